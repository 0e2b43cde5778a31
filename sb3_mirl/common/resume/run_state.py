"""What a run consists of besides its model: random generators, callbacks, environments; and the identity of a run."""

import os
import platform
import random
import re
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, ProgressBarCallback
from stable_baselines3.dqn.dqn import DQN

from sb3_mirl.common.files import package_versions
from sb3_mirl.common.resume.classes import qualified_name
from sb3_mirl.common.resume.walk import State
from sb3_mirl.common.text import printable

#: Callbacks that have nothing to restore
_STATELESS = (CallbackList, ProgressBarCallback)
#: Attributes of callbacks that SB3 sets when training starts, or that the user may choose anew
_NOT_STATE = re.compile(r"model|locals|globals|parent|callbacks?|callback_on_new_best")
_PATHS = re.compile(r".*(path|dir|folder)")
#: May be missing when a run is resumed
_OPTIONAL_CALLBACK = "sb3_mirl.CheckpointCallback"
_MAX_NAMES = 30


class ResumableModel(DQN):
    """
    A model with an identity for its checkpoints. Who may write the attributes:

    - ``algorithm``: nobody; a constant of the class
    - ``active_callbacks``: ``learn()`` only; all callbacks of the current ``learn()``, and none outside of it
    - ``run_id``: the constructor and copies (a new id), and :meth:`Checkpoint.restore_replay` (that of the interrupted run)
    - ``checkpoint_serial``: :class:`CheckpointWriter` (one more with each checkpoint) and :meth:`Checkpoint.restore_replay`
    - ``n_stored``: ``_store_transition()`` only; how often the replay buffer has stored a step
    - ``resets_num_timesteps``: ``learn()`` only; whether the current call counts its steps from 0
    - ``resumed_from``: ``resume()`` sets the checkpoint, and ``learn()`` clears it when training has started
    """

    algorithm: str
    active_callbacks: list[BaseCallback]
    run_id: str
    checkpoint_serial: int
    n_stored: int
    resets_num_timesteps: bool
    resumed_from: Any


def cpu_random_states() -> dict[str, Any]:
    """The states of the global random generators of a process that uses no GPU."""
    return {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": th.get_rng_state()}


def random_states() -> dict[str, Any]:
    """The states of the global random generators."""
    return {**cpu_random_states(), "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else []}


def set_random_states(states: dict[str, Any]) -> None:
    """The counterpart of :func:`random_states` and :func:`cpu_random_states`."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    if states.get("cuda") and th.cuda.is_available():
        th.cuda.set_rng_state_all(states["cuda"])


def versions() -> dict[str, Any]:
    """Versions and the number of threads: bit-exact results need the same ones."""
    machine = {"python": platform.python_version(), "machine": platform.machine(), "threads": th.get_num_threads()}
    return machine | package_versions("torch", "numpy", "gymnasium", "stable_baselines3")


def stateful_callbacks(callbacks: list[BaseCallback]) -> list[BaseCallback]:
    """The callbacks whose state a checkpoint holds."""
    return [callback for callback in callbacks if not isinstance(callback, _STATELESS)]


def callback_attributes(callback: BaseCallback) -> dict[str, Any]:
    """The attributes of a callback that belong to the run."""
    if isinstance(callback, CheckpointCallback):  # its settings and its folder may change
        return {"n_calls": callback.n_calls, "num_timesteps": callback.num_timesteps}
    return {name: value for name, value in vars(callback).items() if not (_NOT_STATE.fullmatch(name) or _is_path(name, value))}


def _is_path(name: str, value: Any) -> bool:
    # Only text or None is a path: an attribute `dir` may also be a direction
    return _PATHS.fullmatch(name) is not None and isinstance(value, (str, bytes, os.PathLike, type(None)))


def _callback_class(name: str) -> str:
    """
    The name by which saved callbacks are matched with those of the resumed run, for the full name of a class. The modules of
    this package are left out, since classes have moved between them.
    """
    package, _, rest = name.partition(".")
    return f"{package}.{rest.rpartition('.')[2]}" if package == "sb3_mirl" else name


def pair_with_saved(saved: list[Any], callbacks: list[BaseCallback]) -> tuple[list[tuple[Any, BaseCallback]], list[str]]:
    """
    Pair the n-th saved callback of a class with the n-th of that class.

    :param saved: class names and states
    :param callbacks: of the resumed run
    :return: pairs of a saved state and its callback, and the class names of those without a partner
    """
    waiting, pairs, missing = list(callbacks), [], []
    for name, state in saved:
        cls = _callback_class(name)
        callback = next((other for other in waiting if _callback_class(qualified_name(type(other))) == cls), None)
        if callback is not None:
            waiting.remove(callback)
            pairs.append((state, callback))
        elif cls != _OPTIONAL_CALLBACK:
            missing.append(name)
    return pairs, missing


def own_objects(model: ResumableModel) -> dict[str, Any]:
    """Objects that environments and callbacks may refer to and that a checkpoint holds already, by name."""
    policy = model.policy
    parts = {"model": model, "policy": policy, "optimizer": policy.optimizer, "replay buffer": model.replay_buffer}
    parts["logger"] = getattr(model, "_logger", None)
    parts |= {f"module {name} of the policy": module for name, module in policy.named_modules() if name}
    # Named as pair_with_saved() pairs them: the resumed run may leave callbacks out
    for callback in model.active_callbacks:
        name = _callback_class(qualified_name(type(callback)))
        number = sum(part.startswith(f"callback {name} ") for part in parts)
        parts[f"callback {name} {number}"] = callback
    return {name: part for name, part in parts.items() if part is not None}


def own_environments(model: ResumableModel) -> dict[str, Any]:
    """Objects that only callbacks may refer to, by name: the environment and all environments inside it."""
    found: dict[str, Any] = {}
    pending: list[Any] = [model.env]
    while pending:
        env = pending.pop()
        found[f"environment {len(found)}"] = env
        pending += [*vars(env).get("envs", ()), *(vars(env)[name] for name in ("venv", "env") if name in vars(env))]
    return found


def missing_names(missing: list[str]) -> str:
    """What a state lacks, for a warning."""
    more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
    return f"{'; '.join(map(printable, missing[:_MAX_NAMES]))}{more}"


#: Attributes of a model that its file has too. Pickles of older versions of NumPy do not keep the order of axes in memory
OBSERVATIONS = ("_last_obs", "_last_original_obs")


class ArrayTable:
    """The arrays of several states, for one safetensors file; the rest of each state goes into the manifest."""

    def __init__(self, arrays: dict[str, np.ndarray] | None = None) -> None:
        self.arrays: dict[str, np.ndarray] = arrays or {}

    def add(self, state: State) -> dict[str, Any]:
        """Store the arrays of a state. Returns the rest, as JSON."""
        first = len(self.arrays)
        self.arrays |= {str(first + index): array for index, array in enumerate(state.arrays)}
        return {"tree": state.tree, "missing": state.missing, "first": first, "count": len(state.arrays)}

    def get(self, node: dict[str, Any]) -> State:
        """The state for which :meth:`add` returned ``node``."""
        numbers = range(node["first"], node["first"] + node["count"])
        return State(node["tree"], [self.arrays[str(number)] for number in numbers], [*node["missing"]])
