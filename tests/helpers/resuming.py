"""Runs that are interrupted and resumed, and what is compared of them: shared by the tests of checkpoints."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl import MIRL, BaseDQN, CheckpointCallback
from sb3_mirl.common.buffers import FrameReplayBuffer
from sb3_mirl.common.resume.replay_log import buffer_state, slot_arrays
from sb3_mirl.common.resume.state import capture

#: Warnings of SB3, of Box2D and of torch that interrupted runs cause
IGNORED_WARNINGS = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore:`n_steps=3` is ignored",
    "ignore:.*Monitor",
    "ignore:builtin type (Swig|swig)",
    "ignore:torch.quantize",
    "ignore:`torch.jit:DeprecationWarning",
)
SETTINGS: dict[str, Any] = {
    "learning_starts": 50,
    "buffer_size": 150,
    "learning_rate": 1e-3,
    "target_update_interval": 70,
    "batch_size": 8,
    "prior_lr": 1e-3,
    "beta_lr": 1e-2,
    "seed": 1,
    "policy_kwargs": {"net_arch": [16]},
}
SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 16}}
CNN = {"policy_kwargs": SMALL_CNN, "replay_buffer_class": FrameReplayBuffer}
#: Numbers of arrays, what counts seconds, and generators that nobody seeds
_NOT_COMPARED = (
    *("id", "content", "first", "owner", "elapsed", "episode_times", "observation_space", "_observation_space"),
    "python",  # seeds its generator anew in each worker process
)


def cartpole(folder: Path, n_envs: int = 1, **kwargs: Any) -> VecEnv:
    return make_vec_env("CartPole-v1", n_envs, seed=5, monitor_dir=str(folder), **kwargs)


def manifest_names(folder: Path, pattern: str = "checkpoints/*.json") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


class Interrupt(Exception):
    """Stands for whatever ends a process."""


def interrupt_at(n_calls: int | None) -> BaseCallback:
    """A callback without a state of its own, which the checkpoint would restore."""

    def function(local: dict[str, Any], _: dict[str, Any]) -> bool:
        if n_calls is not None and local["self"]._n_calls == n_calls:
            raise Interrupt
        return True

    return ConvertCallback(function)


def run(
    folder: Path,
    make_env: Callable[[], VecEnv],
    total: int,
    save_freq: int,
    settings: dict[str, Any],
    policy: str = "MlpPolicy",
    interrupted_at: int | None = None,
    callbacks: Callable[[], list[BaseCallback]] = list,
    algorithm: type[BaseDQN] = MIRL,
) -> BaseDQN:
    """Begins a run, or goes on with it if it has a checkpoint."""
    set_random_seed(3)  # worker processes begin with the generators of NumPy and torch
    env = make_env()
    if list(folder.glob("checkpoints/rl_model_*.json")):  # not one that is unfinished
        model = algorithm.resume(folder / "checkpoints", env)
    else:
        model = algorithm(policy, env, **settings)
    model.set_logger(configure(str(folder), ["csv"]))
    checkpoints = CheckpointCallback(save_freq, folder / "checkpoints")
    try:
        model.learn(total, callback=[checkpoints, *callbacks(), interrupt_at(interrupted_at)], log_interval=1)
    except Interrupt:
        env.close()
    return model


def content(model: BaseDQN, folder: Path) -> dict[str, Any]:
    """All of a run that must not depend on interruptions."""
    buffer = model.replay_buffer
    assert buffer is not None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    return {
        "weights": {name: _hash(value) for name, value in model.policy.state_dict().items()},
        "optimizer": _hash_all(model.policy.optimizer.state_dict()),
        "prior and beta": (model.prior.tolist(), model.beta) if isinstance(model, MIRL) else None,
        "replay": _replay(model, filled),
        "episodes": [{key: value for key, value in episode.items() if key != "t"} for episode in model.ep_info_buffer or []],
        "counters": [model.num_timesteps, model._n_updates, model._episode_num, model._n_calls, model.exploration_rate],
        "last_obs": _hash_all(model._last_obs),
        "env": _without_times(capture(model.env)),
        "random": [_hash(np.random.get_state()[1]), np.random.get_state()[2], _hash(th.get_rng_state())],
        "log": [_without_time_columns(line) for line in _table(folder / "progress.csv")],
        "monitors": {path.name: _monitor(path) for path in sorted(folder.glob("*monitor.csv"))},
    }


def _replay(model: BaseDQN, filled: int) -> dict[str, str]:
    buffer = model.replay_buffer
    assert buffer is not None
    names = [name for name, _ in slot_arrays(buffer)]
    found = {name: _hash(array[:filled]) for name, array in slot_arrays(buffer) if "observations" not in name}
    if any("observations" in name for name in names):
        for name in ("observations", "next_observations"):
            arrays = vars(buffer).get(name)
            for key, array in arrays.items() if isinstance(arrays, dict) else [("", arrays)]:
                if array is not None:
                    slots, envs = np.divmod(np.arange(filled * buffer.n_envs), buffer.n_envs)
                    found[name + key] = _hash(array[slots, envs, :] if isinstance(array, np.ndarray) else array[slots, envs])
    rest = buffer_state(buffer)
    return {**found, "rest": _hash_all({key: value for key, value in rest.items() if key != "infos"})}


def _hash(array: Any) -> str:
    array = array.detach().cpu().numpy() if isinstance(array, th.Tensor) else np.asarray(array)
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def _hash_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _hash_all(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hash_all(one) for one in value]
    return _hash(value) if isinstance(value, (np.ndarray, th.Tensor)) else value


def _without_times(state: Any) -> list[Any]:
    def clean(node: Any) -> Any:
        if isinstance(node, dict):
            if node.get("is") in ("time", "file"):
                return None
            node = {key: value for key, value in node.items() if key not in _NOT_COMPARED}
            if "pairs" in node:  # info["episode"]["t"]
                node["pairs"] = [pair for pair in node["pairs"] if pair[0] != "t"]
            return {key: clean(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [clean(one) for one in node]
        return node

    files = _file_contents(state.tree, 0)
    return [
        json.dumps(clean(state.tree), sort_keys=True),
        [_hash(array) for number, array in enumerate(state.arrays) if number not in files],
    ]


def _file_contents(node: Any, first: int) -> set[int]:
    """Numbers of the arrays that hold monitor files; those of worker processes count from ``first``."""
    if isinstance(node, dict):
        own = {first + node["content"]} if node.get("is") == "file" else set()
        first = node.get("first", first)
        return own.union(*(_file_contents(child, first) for child in node.values()))
    return set().union(*(_file_contents(child, first) for child in node)) if isinstance(node, (list, tuple)) else set()


def _table(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    header, *lines = path.read_text().splitlines() or [""]
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def _without_time_columns(line: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in line.items() if key not in ("time/fps", "time/time_elapsed")}


def _monitor(path: Path) -> list[list[str]]:
    return [line.split(",")[:2] for line in path.read_text().splitlines()[1:]]


def copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
