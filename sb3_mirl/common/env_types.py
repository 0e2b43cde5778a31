"""What the argument ``env`` of an algorithm may be: :func:`check_env_type`."""

from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv


def check_env_type(env: Any) -> None:
    """
    :param env: as given to an algorithm
    :raises ValueError: if SB3 does not take it; the message says what it takes
    """
    accepted = "env must be a gymnasium.Env, an SB3 VecEnv or the id of an environment"
    if isinstance(env, gym.vector.VectorEnv):
        raise ValueError(
            f"{accepted}, got Gymnasium's {env}. For several environments at once: "
            "stable_baselines3.common.env_util.make_vec_env(id, n_envs)"
        )
    # SB3 converts environments of OpenAI Gym, if they are installed
    of_gym = any(base.__module__.partition(".")[0] == "gym" for base in type(env).__mro__)
    if env is not None and not of_gym and not isinstance(env, (gym.Env, VecEnv, str)):
        raise ValueError(f"{accepted}, got {env!r}")
