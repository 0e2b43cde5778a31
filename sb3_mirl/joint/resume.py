"""Going on with an interrupted joint training from the checkpoints that its runs have written."""

import os
import warnings
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.resume.reader import Checkpoint


def resume_jointly(
    algorithms: Sequence[type[BaseDQN]],
    folders: Sequence[str | os.PathLike[str]],
    envs: Sequence[GymEnv | str],
    device: th.device | str = "auto",
) -> list[BaseDQN]:
    """
    Load the models of an interrupted :func:`~sb3_mirl.train_jointly` whose runs had a
    :class:`~sb3_mirl.CheckpointCallback` each. All models are loaded at the newest step of which every folder has a
    checkpoint, because some runs have a newer checkpoint if the interruption came while checkpoints were written.

    Then call :func:`~sb3_mirl.train_jointly` with these models and the arguments of the interrupted call, which it continues:
    on a CPU the result is bit-exact. Leave out runs that have ended before the others.

    :param algorithms: class of each run's model
    :param folders: of each run's checkpoints
    :param envs: for each run, created like that of the interrupted one
    :param device: as in ``load()``
    :return: the models
    :raises FileNotFoundError: if a folder holds no checkpoint
    :raises ValueError: if there is no step of which all folders hold an undamaged checkpoint
    """
    lengths = {"algorithms": len(algorithms), "folders": len(folders), "envs": len(envs)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"algorithms, folders and envs must have the same length, got {lengths}")
    found = [Checkpoint.steps(folder) for folder in folders]
    if not found:
        return []
    checkpoints: list[Checkpoint] | None = None
    for step in sorted(set.intersection(*map(set, found)), reverse=True):
        try:
            checkpoints = [Checkpoint.newest(folder, num_timesteps=step) for folder in folders]
            break
        except ValueError as error:
            warnings.warn(f"Not all runs can go on from step {step} ({error}): trying an older step", stacklevel=2)
    if checkpoints is None:
        newest = ", ".join(f"{os.fspath(folder)!r} {steps}" for folder, steps in zip(folders, found, strict=True))
        raise ValueError(f"folders must hold undamaged checkpoints of one common step, got steps {newest}")
    runs = zip(algorithms, checkpoints, envs, strict=True)
    return [algorithm.resume_checkpoint(checkpoint, env, device) for algorithm, checkpoint, env in runs]
