"""MIRL, soft Q-learning with mutual-information regularisation (ICLR 2019), for Stable-Baselines3."""

from sb3_mirl import gridworld  # noqa: F401 (registers the environments)
from sb3_mirl.callbacks import BetaUpdateCallback, CheckpointCallback, MIRLCallback, PriorUpdateCallback
from sb3_mirl.mirl import MIRL, SQL, SQLm

__version__ = "0.1.0"

__all__ = [
    "MIRL",
    "SQL",
    "BetaUpdateCallback",
    "CheckpointCallback",
    "MIRLCallback",
    "PriorUpdateCallback",
    "SQLm",
    "__version__",
]
