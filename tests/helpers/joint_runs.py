"""Models that are trained alone and jointly, and what must agree between them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl import DQNMSE, MIRL, SQL, BaseDQN, CheckpointCallback, SQLm, resume_jointly, train_jointly

SETTINGS: dict[str, Any] = {
    "learning_starts": 50,
    "train_freq": 2,
    "batch_size": 16,
    "buffer_size": 300,
    "target_update_interval": 60,
    "exploration_fraction": 0.5,
    "policy_kwargs": {"net_arch": [32]},
    "loss": "mse",
}
#: Five runs that differ in all that may differ
DIFFERENT: list[tuple[type[BaseDQN], dict[str, Any]]] = [
    (MIRL, {"seed": 0, "prior_lr": 1e-2, "beta_lr": 1e-2}),
    (SQL, {"seed": 1, "learning_rate": 1e-3, "exploration_final_eps": 0.2}),
    (DQNMSE, {"seed": 2, "gamma": 0.9}),
    (SQLm, {"seed": 3, "beta_schedule": "linear", "beta_lr": 1e-3, "learning_rate": lambda progress: 1e-3 * progress}),
    (MIRL, {"seed": 4, "beta_schedule": "adaptive", "max_grad_norm": 0.1, "beta_max": 0.5}),
]
SAME: list[tuple[type[BaseDQN], dict[str, Any]]] = [(MIRL, {"seed": seed, "prior_lr": 1e-2}) for seed in range(3)]


def make_models(
    specifications: Sequence[tuple[type[BaseDQN], dict[str, Any]]], make_env: Callable[[], Any], policy: Any, **settings: Any
) -> list[BaseDQN]:
    return [algorithm(policy, make_env(), **{**SETTINGS, **settings, **own}) for algorithm, own in specifications]


def train_alone(
    specifications: Sequence[tuple[type[BaseDQN], dict[str, Any]]],
    make_env: Callable[[], Any],
    policy: Any,
    steps: int,
    **settings: Any,
) -> list[BaseDQN]:
    """Each is trained right after its construction, which defines what joint training must equal."""
    models = []
    for specification in specifications:
        (model,) = make_models([specification], make_env, policy, **settings)
        models.append(model.learn(steps))
    return models


def check_equal(alone: BaseDQN, joint: BaseDQN, tolerance: float = 1e-4) -> None:
    """All that the two models are and have seen."""
    for name in ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "_current_progress_remaining"):
        assert getattr(joint, name) == getattr(alone, name), name
    buffer, expected = joint.replay_buffer, alone.replay_buffer
    assert (buffer.pos, buffer.full) == (expected.pos, expected.full)  # type: ignore[union-attr]
    # What was done decides all that follows
    for name in ("actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(buffer, name), getattr(expected, name), err_msg=name)
    weights = alone.policy.state_dict()
    for name, value in joint.policy.state_dict().items():
        scale = weights[name].abs().max().clamp(min=1e-3)
        limit = {"prior": 0.1 * tolerance, "beta": tolerance * weights[name].abs()}.get(name, tolerance * scale)
        assert ((value - weights[name]).abs() <= limit).all() or th.equal(value, weights[name]), name
    states, expected_states = (model.policy.optimizer.state_dict()["state"] for model in (joint, alone))
    assert states.keys() == expected_states.keys()
    for number, state in expected_states.items():
        assert states[number].keys() == state.keys()
        for name, value in state.items():
            if isinstance(value, th.Tensor):
                assert th.allclose(states[number][name], value, rtol=1e-2, atol=10 * tolerance), name
                assert states[number][name].dtype == value.dtype
    logged, expected_log = joint.logger.name_to_value, alone.logger.name_to_value
    assert logged.keys() == expected_log.keys()
    for name, value in expected_log.items():
        if not name.startswith("time/"):
            np.testing.assert_allclose(logged[name], value, rtol=1e-2, atol=10 * tolerance, err_msg=name)
    episodes = [[(info["r"], info["l"]) for info in model.ep_info_buffer or []] for model in (joint, alone)]
    assert episodes[0] == episodes[1]
    assert joint.learning_curve == alone.learning_curve


def run_jointly(
    folder: Path,
    make_env: Callable[[Path], VecEnv],
    total: int,
    save_freq: int,
    specifications: Sequence[tuple[type[BaseDQN], dict[str, Any]]],
    callback: Callable[[int], list[Any]] = lambda run: [],
) -> list[BaseDQN]:
    """Begins a joint training with checkpoints, or goes on with it if every run has one."""
    folders = [folder / str(run) for run in range(len(specifications))]
    for own in folders:
        own.mkdir(exist_ok=True)
    envs = [make_env(own) for own in folders]
    checkpoints = [own / "checkpoints" for own in folders]
    # A run that was killed before its first checkpoint began leaves the others nothing to go on from
    if all(list(own.glob("rl_model_*.json")) for own in checkpoints):
        models = resume_jointly([algorithm for algorithm, _ in specifications], checkpoints, envs)
    else:
        for own in checkpoints:
            for file in [*own.rglob("*")]:
                if file.is_file():
                    file.unlink()
        waiting = iter(envs)
        models = make_models(specifications, lambda: next(waiting), "MlpPolicy")
    for model, own in zip(models, folders, strict=True):
        model.set_logger(configure(str(own), ["csv"]))
    callbacks = [CallbackList([CheckpointCallback(save_freq, own), *callback(run)]) for run, own in enumerate(checkpoints)]
    errors = train_jointly(models, total, callback=callbacks)
    assert errors == [None] * len(models)
    return models
