"""
Learned priors in files: :func:`load_prior` starts another run with one, and ``sb3-mirl prior`` says what an agent learned not
to do. Like ``sb3-mirl inspect`` both read a file without running code of it.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_mirl.callbacks import find_action_names
from sb3_mirl.model_file import inspect_file


def load_prior(path: str | Path, env: gym.Env | VecEnv | None = None, uniform_share: float = 0.0) -> np.ndarray:
    """
    ρ of a model file, to start another run with: ``MIRL(..., prior_init=load_prior("model.zip", env, uniform_share=0.1))``.

    Where the file and ``env`` both have names for the actions, ρ is matched by name: actions that ``env`` does not have are
    left out and the others scaled to 1; actions that the file does not have get their share of the uniform distribution and
    nothing more. Without names the order counts, and the number of actions must be the same.

    The result is (1 - u) ρ + u/n with u = ``uniform_share``. Under ``"mutual_information"`` an action with ρ(a) = 0 is never
    tried nor used in the target, and so stays at 0 for ever; with a tiny ρ(a) it takes a large β · Q to come back. A share
    of, say, 0.1 leaves each action at least a tenth of what it has without a prior, for the new run may need what the old one
    did not.

    :param path: of an export or of SB3's zip; its suffix may be left out. Nothing in it is unpickled
    :param env: what the new run is for; without it ρ is in the order of the file
    :param uniform_share: u in [0, 1], the weight of the uniform distribution
    :return: float64 [n_actions], sums to 1
    :raises ValueError: if the file has no ρ, if actions cannot be matched, or if one of ``env`` would never be taken because
        the file does not know it
    """
    if not 0.0 <= uniform_share <= 1.0:
        raise ValueError(f"uniform_share must be a number in [0, 1], got {uniform_share!r}")
    found = inspect_file(path)
    prior = prior_of(found, path)
    if env is not None:
        prior = _matched(prior, found["action_names"], env, uniform_share, path)
    return (1.0 - uniform_share) * prior + uniform_share / len(prior)


def prior_of(found: dict[str, Any], path: str | Path) -> np.ndarray:
    """
    :param found: of :func:`~sb3_mirl.model_file.inspect_file`
    :param path: of the file, for the error
    :return: ρ, float64 [n_actions], sums to 1
    :raises ValueError: if there is none, or if it is no distribution
    """
    if found["prior"] is None:
        raise ValueError(f"{str(path)!r} has no prior: it is no model of MIRL, SQL or SQLm")
    prior = np.array(found["prior"], dtype=np.float64)
    if prior.size == 0 or not np.all(prior >= 0) or not abs(prior.sum() - 1) <= 1e-6:
        raise ValueError(f"{str(path)!r}: prior must be non-negative numbers that sum to 1, the file has {found['prior']}")
    return prior / prior.sum()


def _matched(prior: np.ndarray, names: Any, env: gym.Env | VecEnv, uniform_share: float, path: str | Path) -> np.ndarray:
    """ρ in the order of ``env``, by name where both have names."""
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise ValueError(f"env must have a Discrete action space, got {env.action_space}")
    n_actions = int(env.action_space.n)
    own = find_action_names(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env]), n_actions)
    if not own or not _are_names(names, len(prior)):
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


def _are_names(names: Any, n_actions: int) -> bool:
    # In a zip that was made by hand there may be anything
    return isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == n_actions
