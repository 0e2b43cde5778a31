"""MIRL, soft Q-learning with mutual-information regularisation (ICLR 2019), for Stable-Baselines3."""

import importlib
from typing import TYPE_CHECKING, Any

from sb3_mirl.envs import gridworld  # noqa: F401 (registers the environments)

if TYPE_CHECKING:
    from sb3_mirl.mirl.callbacks import BetaUpdateCallback, CheckpointCallback, MIRLCallback, PriorUpdateCallback
    from sb3_mirl.mirl.mirl import MIRL, PAPER_ATARI, SQL, SQLm
    from sb3_mirl.mirl.priors import load_prior

__version__ = "0.1.0"

__all__ = [
    "MIRL",
    "PAPER_ATARI",
    "SQL",
    "BetaUpdateCallback",
    "CheckpointCallback",
    "MIRLCallback",
    "PriorUpdateCallback",
    "SQLm",
    "__version__",
    "load_prior",
]


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: torch takes seconds, which commands that do without it need not wait for
    if name in __all__:
        module = "mirl.callbacks" if name.endswith("Callback") else "mirl.priors" if name == "load_prior" else "mirl.mirl"
        return getattr(importlib.import_module(f"sb3_mirl.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
