"""MIRL, soft Q-learning with mutual-information regularisation (ICLR 2019), for Stable-Baselines3."""

import importlib
from typing import TYPE_CHECKING, Any

from sb3_mirl import gridworld  # noqa: F401 (registers the environments)

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: torch takes seconds, which commands that do without it need not wait for
    if name in __all__:
        return getattr(importlib.import_module("sb3_mirl.callbacks" if name.endswith("Callback") else "sb3_mirl.mirl"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
