"""
MinAtar's games for SB3 and rl-zoo3: importing this module registers ``MinAtar/Breakout-v1`` and the others with Gymnasium.

Source: Young and Tian, *MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning Experiments*,
2019. MinAtar is under the GPL and is not part of this package. Without a display it needs only NumPy.
"""

from typing import Any

import gymnasium as gym
import torch as th
from gymnasium.utils import RecordConstructorArgs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

try:
    from minatar.gym import BaseEnv, register_envs
except ImportError as error:
    raise ImportError(f"sb3_mirl.envs.minatar needs MinAtar ({error}): pip install 'sb3-mirl[minatar]'") from error

if "MinAtar/Breakout-v1" not in gym.registry:
    register_envs()

__all__ = ["ACTION_NAMES", "BaseEnv", "MinAtarCNN", "MinAtarWrapper"]

#: Names of the actions by MinAtar's letters
ACTION_NAMES = {"n": "NOOP", "l": "LEFT", "u": "UP", "r": "RIGHT", "d": "DOWN", "f": "FIRE"}


class MinAtarWrapper(gym.Wrapper, RecordConstructorArgs):
    """
    A game with names for its actions. Its observations are planes of 0 and 1, bool [10, 10, channels].

    :param env: one of MinAtar's games
    """

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The game's ``reset``. A seed also clears the last action, which MinAtar could repeat in the new episode."""
        if kwargs.get("seed") is not None:
            self.unwrapped.game.last_action = 0  # type: ignore[attr-defined]
        return self.env.reset(**kwargs)

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, as Atari environments give them. The names of an inner wrapper have precedence."""
        if self.env.has_wrapper_attr("get_action_meanings"):
            return self.env.get_wrapper_attr("get_action_meanings")()
        env: Any = self.unwrapped
        return [ACTION_NAMES[env.game.env.action_map[action]] for action in env.action_set]


class MinAtarCNN(BaseFeaturesExtractor):
    """
    The convolution of MinAtar's DQN: 16 filters of 3x3 with stride 1. With ``net_arch=[128]`` it is the whole network.

    :param observation_space: [height, width, channels]
    """

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        height, width, channels = observation_space.shape
        super().__init__(observation_space, features_dim=16 * (height - 2) * (width - 2))
        self.cnn = nn.Sequential(nn.Conv2d(channels, 16, kernel_size=3), nn.ReLU(), nn.Flatten())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Features [batch, features_dim] of observations [batch, height, width, channels]."""
        return self.cnn(observations.permute(0, 3, 1, 2))
