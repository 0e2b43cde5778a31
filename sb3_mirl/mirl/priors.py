"""Learned priors of model files: :func:`load_prior` starts another run with one. No code of a file is run."""

from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_mirl.common.export.model_file import ZIP_FORMAT, read_model_file
from sb3_mirl.common.export.values import decode
from sb3_mirl.common.inputs import find_action_names, valid_action_names
from sb3_mirl.mirl.arguments import LEVELS
from sb3_mirl.mirl.mirl import MIRL
from sb3_mirl.mirl.state_priors import MAX_ELEMENTS

#: Prefix of the names of ρ(·|x)'s tensors in the ``state_dict`` of a policy
STATE_PRIOR = "state_prior."


def load_prior(
    path: str | Path, env: gym.Env | VecEnv | str | None = None, uniform_share: float = 0.0, level: str | None = None
) -> np.ndarray | dict[str, Any]:
    """
    Read a learned ρ to start another run: ``MIRL(..., prior_init=load_prior("model.zip", env, uniform_share=0.1))``.

    If the file and ``env`` both have names for the actions, ρ is matched by name: actions that ``env`` does not have are left
    out and the others scaled to sum 1; actions that the file does not have get their share of the uniform distribution only.
    Without names the order counts, and the number of actions must be the same.

    The result is (1 - u) ρ + u/n with u = ``uniform_share``. Under ``"mutual_information"`` an action with ρ(a) = 0 is never
    tried nor used in the target, and so stays at 0; an action with a tiny ρ(a) needs a large β · Q to come back. The new run
    may need other actions than the old one: u = 0.1, say, gives each action at least a tenth of its uniform probability.

    A ρ(·|x) belongs to a view x of the observation, which the new run must have as well.

    :param path: of an export or of SB3's zip; its suffix may be left out. Nothing in it is unpickled
    :param env: what the new run is for, an environment or its id; without it ρ is in the order of the file
    :param uniform_share: u in [0, 1], the weight of the uniform distribution
    :param level: of skills, ``"low"`` to keep ρ(a|z, x_L) and learn ρ(z|x_H) anew, ``"high"`` for the opposite; None: both
    :return: the marginal: float64 [n_actions], sums to 1. Another kind: a dict for ``prior_init`` with ``table``, float64
        [n_x, n_actions]; or ``high``, [n_x_high, n_skills], and ``low``, [n_skills, n_x_low, n_actions]; or ``network``,
        arrays by name; and with the view, ``prior_observation``, if the file shows it
    :raises ValueError: if the file has no ρ, if actions cannot be matched, if an action of ``env`` would never be taken
        because the file does not know it, or if a network is to be changed, for which there is no rule
    """
    if not isinstance(uniform_share, (int, float)) or not 0.0 <= uniform_share <= 1.0:
        raise ValueError(f"uniform_share must be a number in [0, 1], got {uniform_share!r}")
    if level not in (None, *LEVELS):
        raise ValueError(f"level must be one of {LEVELS} or None, got {level!r}")
    if isinstance(env, str):
        with closing(gym.make(env)) as made:
            return load_prior(path, made, uniform_share, level)
    if not isinstance(env, (gym.Env, VecEnv, type(None))):
        raise ValueError(f"env must be an environment, its id or None, got {env!r}")
    found, arrays = _read(path)

    def adapted(prior: np.ndarray) -> np.ndarray:
        if env is not None:
            prior = _matched(prior, found["action_names"], env, uniform_share, path)
        return (1.0 - uniform_share) * prior + uniform_share / prior.shape[-1]

    if level is not None and not arrays.keys() >= {*LEVELS}:
        raise ValueError(f"level must be None for a prior without skills, got {level!r} for {str(path)!r}")
    if not arrays:
        return adapted(checked_prior(found, path))
    view = _view(found)
    if "network" in arrays:
        if env is not None or uniform_share:
            raise ValueError(f"env must be None and uniform_share 0 for the prior of {str(path)!r}, which is a network")
        return arrays if view is None else {**arrays, "prior_observation": view}
    levels = arrays.keys() if level is None else [level]
    # ``high`` is not adapted: its last axis is skills, not actions
    parts = {name: arrays[name] if name == "high" else adapted(arrays[name]) for name in levels}
    if level is not None and isinstance(view, dict):
        view = {name: view[name] for name in levels if name in view}
    return parts if view is None else {**parts, "prior_observation": view}


def inspect_file(path: str | Path) -> dict[str, Any]:
    """
    :func:`~sb3_mirl.common.export.model_file.read_model_file` with MIRL's arguments and training attributes, and with ρ and β.

    :param path: of an export or of SB3's zip; its suffix may be left out
    :return: plain JSON, with ``prior`` and ``beta``, both None if the file has none; and with ``state_prior``, None for a
        marginal ρ(a), else a dict of the tables by name, which is empty for a network
    :raises ValueError: if the file is neither, or damaged, or if ρ and β are not float64 [n_actions] and float64 []
    """
    found, arrays = _read(path)
    tables = {name: array.tolist() for name, array in arrays.items() if name != "network"}
    return {**found, "state_prior": tables if arrays else None}


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is in a file, with ``prior`` and ``beta``; and the arrays of a ρ(·|x), empty for a marginal."""
    found, tensors = read_model_file(path, ("prior", "beta", STATE_PRIOR), MIRL)
    if not tensors:
        return {**found, "prior": None, "beta": None}, {}
    prior, beta = tensors.pop("prior", None), tensors.pop("beta", None)
    if isinstance(prior, th.Tensor) and prior.numel() > MAX_ELEMENTS:
        raise ValueError(f"{str(path)!r}: prior must have at most {MAX_ELEMENTS} elements, got {prior.numel()}")
    for tensor, n_axes in ((prior, 1), (beta, 0)):
        if not _is_plain(tensor) or (tensor.dtype, tensor.dim()) != (th.float64, n_axes):  # type: ignore[union-attr]
            raise ValueError(f"{str(path)!r}: prior must be a vector and beta a number, both float64")
    found |= {"prior": prior.tolist(), "beta": beta.item()}  # type: ignore[union-attr]
    return found, _state_prior({name.removeprefix(STATE_PRIOR): value for name, value in tensors.items()}, path)


def _is_plain(tensor: Any) -> bool:
    """Whether this is a dense tensor on the CPU. Sparse and meta tensors have no elements to read."""
    return isinstance(tensor, th.Tensor) and (tensor.layout, tensor.device.type) == (th.strided, "cpu")


def _state_prior(tensors: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The arrays of a ρ(·|x): ``table``, or ``high`` and ``low``, or ``network`` with arrays by name."""
    if sum(tensor.numel() for tensor in tensors.values() if isinstance(tensor, th.Tensor)) > MAX_ELEMENTS:
        raise ValueError(f"{str(path)!r}: state_prior must have at most {MAX_ELEMENTS} elements")
    weights = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    tables = {} if weights else tensors
    axes = {"table": 2, "high": 2, "low": 3}
    for name, value in {**weights, **tables}.items():
        dtype, n_axes = (th.float32, None) if name in weights else (th.float64, axes.get(name))
        if not _is_plain(value) or value.dtype != dtype or (name in tables and value.dim() != n_axes):
            raise ValueError(f"{str(path)!r}: state_prior must be tables in float64 or a network in float32, got {name!r}")
    if weights:
        return {"network": {name: value.numpy().copy() for name, value in weights.items()}}
    if tables and tables.keys() not in ({"table"}, {*LEVELS}):
        raise ValueError(f"{str(path)!r}: state_prior must be a table, or a high and a low one, got {sorted(tables)}")
    return {name: _distributions(name, value.numpy(), path) for name, value in tables.items()}


def _distributions(name: str, table: np.ndarray, path: str | Path) -> np.ndarray:
    if table.size == 0 or not np.all(table >= 0) or not np.all(np.abs(table.sum(axis=-1) - 1) <= 1e-6):
        raise ValueError(f"{str(path)!r}: {name} must be non-negative numbers whose rows sum to 1")
    return table / table.sum(axis=-1, keepdims=True)


def _view(found: dict[str, Any]) -> Any:
    """The ``prior_observation`` of a file as data; None if it is a pickle."""
    view = found["arguments"].get("prior_observation")
    if found["file_format"] == ZIP_FORMAT:
        return None if isinstance(view, dict) and "pickle of" in view else view
    return decode(view, "prior_observation", {})


def checked_prior(found: dict[str, Any], path: str | Path) -> np.ndarray:
    """
    :param found: of :func:`inspect_file`
    :param path: of the file, for error messages
    :return: ρ, float64 [n_actions], sums to 1
    :raises ValueError: if there is no prior, or if it is not a distribution
    """
    if found["prior"] is None:
        raise ValueError(f"{str(path)!r} has no prior: it is no model of MIRL or its variants")
    prior = np.array(found["prior"], dtype=np.float64)
    if prior.size == 0 or not np.all(prior >= 0) or not abs(prior.sum() - 1) <= 1e-6:
        raise ValueError(f"{str(path)!r}: prior must be non-negative numbers that sum to 1, the file has {found['prior']}")
    return prior / prior.sum()


def _matched(prior: np.ndarray, names: Any, env: gym.Env | VecEnv, uniform_share: float, path: str | Path) -> np.ndarray:
    """ρ, [..., n_actions], in the order of ``env``, by name where both have names."""
    if not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(f"env must have a Discrete action space, got {env.action_space}")
    n_actions, n_own = int(env.action_space.n), prior.shape[-1]
    own = find_action_names(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env]), n_actions)
    if not own or valid_action_names(names, n_own) is None:
        if n_actions != n_own:
            without = "env" if not own else "the file"
            raise ValueError(
                f"env must have as many actions as {str(path)!r}, {n_own}, got {n_actions}: to match them by name both "
                f"need names (get_action_meanings), and {without} has none"
            )
        return prior
    unknown = [name for name in own if name not in names]
    if unknown and uniform_share == 0.0:
        raise ValueError(
            f"env has actions that {str(path)!r} does not know, {unknown}, which would never be taken: "
            "uniform_share must be above 0, got 0"
        )
    nothing = np.zeros(prior.shape[:-1])
    matched = np.stack([prior[..., names.index(name)] if name in names else nothing for name in own], axis=-1)
    total = matched.sum(axis=-1, keepdims=True)
    if not np.all(total > 0.0):
        raise ValueError(f"env must share actions with {str(path)!r}, which has {names}, got {own}")
    return matched / total
