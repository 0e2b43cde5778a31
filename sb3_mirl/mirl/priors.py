"""Learned priors of model files: :func:`load_prior` starts another run with one. No code of a file is run."""

from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.dqn import DQN

from sb3_mirl.common.export.model_file import read_model_file
from sb3_mirl.common.inputs import find_action_names, valid_action_names

#: Actions of a ρ that is read from a file
MAX_ACTIONS = 2**20


def load_prior(path: str | Path, env: gym.Env | VecEnv | str | None = None, uniform_share: float = 0.0) -> np.ndarray:
    """
    ρ of a model file, to start another run with: ``MIRL(..., prior_init=load_prior("model.zip", env, uniform_share=0.1))``.

    If the file and ``env`` both have names for the actions, ρ is matched by name: actions that ``env`` does not have are left
    out and the others scaled to sum 1; actions that the file does not have get their share of the uniform distribution only.
    Without names the order counts, and the number of actions must be the same.

    The result is (1 - u) ρ + u/n with u = ``uniform_share``. Under ``"mutual_information"`` an action with ρ(a) = 0 is never
    tried nor used in the target, and so stays at 0; an action with a tiny ρ(a) needs a large β · Q to come back. A share of,
    say, 0.1 gives each action at least a tenth of its uniform probability, because the new run may need other actions than
    the old one.

    :param path: of an export or of SB3's zip; its suffix may be left out. Nothing in it is unpickled
    :param env: what the new run is for, an environment or its id; without it ρ is in the order of the file
    :param uniform_share: u in [0, 1], the weight of the uniform distribution
    :return: float64 [n_actions], sums to 1
    :raises ValueError: if the file has no ρ, if actions cannot be matched, or if an action of ``env`` would never be taken
        because the file does not know it
    """
    if not isinstance(uniform_share, (int, float)) or not 0.0 <= uniform_share <= 1.0:
        raise ValueError(f"uniform_share must be a number in [0, 1], got {uniform_share!r}")
    if isinstance(env, str):
        with closing(gym.make(env)) as made:
            return load_prior(path, made, uniform_share)
    if not isinstance(env, (gym.Env, VecEnv, type(None))):
        raise ValueError(f"env must be an environment, its id or None, got {env!r}")
    found = inspect_file(path)
    prior = checked_prior(found, path)
    if env is not None:
        prior = _matched(prior, found["action_names"], env, uniform_share, path)
    return (1.0 - uniform_share) * prior + uniform_share / len(prior)


def inspect_file(path: str | Path, algorithm: type = DQN) -> dict[str, Any]:
    """
    :func:`~sb3_mirl.common.export.model_file.read_model_file`, with ρ and β.

    :param path: of an export or of SB3's zip; its suffix may be left out
    :param algorithm: the class whose constructor arguments are looked for in a zip
    :return: plain JSON, with ``prior`` and ``beta``; both are None if the file has none
    :raises ValueError: if the file is neither, or damaged, or if ρ and β are not float64 [n_actions] and float64 []
    """
    found, tensors = read_model_file(path, ("prior", "beta"), algorithm)
    if not tensors:
        return {**found, "prior": None, "beta": None}
    prior, beta = tensors.get("prior"), tensors.get("beta")
    if isinstance(prior, th.Tensor) and prior.numel() > MAX_ACTIONS:
        raise ValueError(f"{str(path)!r}: prior must have at most {MAX_ACTIONS} elements, got {prior.numel()}")
    for tensor, n_axes in ((prior, 1), (beta, 0)):
        # Sparse tensors and those of the device meta have no elements to be read
        is_plain = isinstance(tensor, th.Tensor) and (tensor.layout, tensor.device.type) == (th.strided, "cpu")
        if not is_plain or (tensor.dtype, tensor.dim()) != (th.float64, n_axes):  # type: ignore[union-attr]
            raise ValueError(f"{str(path)!r}: prior must be a vector and beta a number, both float64")
    return {**found, "prior": prior.tolist(), "beta": beta.item()}  # type: ignore[union-attr]


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
    """ρ in the order of ``env``, by name where both have names."""
    if not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(f"env must have a Discrete action space, got {env.action_space}")
    n_actions = int(env.action_space.n)
    own = find_action_names(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env]), n_actions)
    if not own or valid_action_names(names, len(prior)) is None:
        if n_actions != len(prior):
            without = "env" if not own else "the file"
            raise ValueError(
                f"env must have as many actions as {str(path)!r}, {len(prior)}, got {n_actions}: to match them by name both "
                f"need names (get_action_meanings), and {without} has none"
            )
        return prior
    known = dict(zip(names, prior, strict=True))
    unknown = [name for name in own if name not in known]
    if unknown and uniform_share == 0.0:
        raise ValueError(
            f"env has actions that {str(path)!r} does not know, {unknown}, which would never be taken: "
            "uniform_share must be above 0, got 0"
        )
    matched = np.array([known.get(name, 0.0) for name in own])
    if not matched.sum() > 0.0:
        raise ValueError(f"env must share actions with {str(path)!r}, which has {names}, got {own}")
    return matched / matched.sum()
