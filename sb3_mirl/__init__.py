"""MIRL, soft Q-learning with mutual-information regularisation (ICLR 2019), for Stable-Baselines3."""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from sb3_mirl.envs import gridworld, useless_actions  # noqa: F401 (they register environments)

if TYPE_CHECKING:
    from sb3_mirl.common.action_masks import ActionMaskInfo
    from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer
    from sb3_mirl.common.dqn import DQNMSE, BaseDQN
    from sb3_mirl.common.events import GradientStepCallback
    from sb3_mirl.common.munchausen import MDQN
    from sb3_mirl.common.resume.callback import CheckpointCallback
    from sb3_mirl.common.tracking import TrackingCallback
    from sb3_mirl.envs.atari import AtariVecEnv
    from sb3_mirl.envs.gridworld import GridWorld
    from sb3_mirl.joint.resume import resume_jointly
    from sb3_mirl.joint.training import train_jointly
    from sb3_mirl.mirl.acting import DrawsFromPolicy
    from sb3_mirl.mirl.arguments import PAPER_ATARI
    from sb3_mirl.mirl.callbacks import BetaUpdateCallback, MIRLCallback, PriorInfluenceCallback, PriorUpdateCallback
    from sb3_mirl.mirl.mirl import MIRL, SQL, SQLDecoupled, SQLm
    from sb3_mirl.mirl.priors import load_prior
    from sb3_mirl.tabular.solvers import (
        discounted_visitation,
        evaluate_policy,
        mutual_information,
        optimize_prior,
        optimize_skills,
        soft_value_iteration,
    )

try:
    __version__ = metadata.version("sb3-mirl")
except metadata.PackageNotFoundError:  # a checkout on the path, which is not installed
    __version__ = "0+unknown"

#: The module of each public name. It is imported at the first use of the name, because importing torch takes seconds
_MODULES = {
    "MIRL": "mirl.mirl",
    "SQL": "mirl.mirl",
    "SQLDecoupled": "mirl.mirl",
    "SQLm": "mirl.mirl",
    "DrawsFromPolicy": "mirl.acting",
    "PAPER_ATARI": "mirl.arguments",
    "BetaUpdateCallback": "mirl.callbacks",
    "MIRLCallback": "mirl.callbacks",
    "PriorInfluenceCallback": "mirl.callbacks",
    "PriorUpdateCallback": "mirl.callbacks",
    "load_prior": "mirl.priors",
    "BaseDQN": "common.dqn",
    "DQNMSE": "common.dqn",
    "MDQN": "common.munchausen",
    "GradientStepCallback": "common.events",
    "CheckpointCallback": "common.resume.callback",
    "TrackingCallback": "common.tracking",
    "ActionMaskInfo": "common.action_masks",
    "DeviceReplayBuffer": "common.buffers",
    "FrameReplayBuffer": "common.buffers",
    "resume_jointly": "joint.resume",
    "train_jointly": "joint.training",
    "AtariVecEnv": "envs.atari",
    "GridWorld": "envs.gridworld",
    "discounted_visitation": "tabular.solvers",
    "evaluate_policy": "tabular.solvers",
    "mutual_information": "tabular.solvers",
    "optimize_prior": "tabular.solvers",
    "optimize_skills": "tabular.solvers",
    "soft_value_iteration": "tabular.solvers",
}

__all__ = [
    "DQNMSE",
    "MDQN",
    "MIRL",
    "PAPER_ATARI",
    "SQL",
    "ActionMaskInfo",
    "AtariVecEnv",
    "BaseDQN",
    "BetaUpdateCallback",
    "CheckpointCallback",
    "DeviceReplayBuffer",
    "DrawsFromPolicy",
    "FrameReplayBuffer",
    "GradientStepCallback",
    "GridWorld",
    "MIRLCallback",
    "PriorInfluenceCallback",
    "PriorUpdateCallback",
    "SQLDecoupled",
    "SQLm",
    "TrackingCallback",
    "__version__",
    "discounted_visitation",
    "evaluate_policy",
    "load_prior",
    "mutual_information",
    "optimize_prior",
    "optimize_skills",
    "resume_jointly",
    "soft_value_iteration",
    "train_jointly",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"sb3_mirl.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
