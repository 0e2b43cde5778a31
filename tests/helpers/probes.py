"""Tiny environments whose right answers are known, so that a failing test names the fault."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class ConstantReward(gym.Env):
    """The same reward for whatever is done; episodes of a fixed length, random observations."""

    def __init__(self, reward: float = 1.0, n_actions: int = 2, length: int = 10, observation_space=None):
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32) if observation_space is None else observation_space
        self.action_space = spaces.Discrete(n_actions)
        self.reward, self.length, self.steps = reward, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), self.reward, self.steps >= self.length, False, {}


class TwoArms(gym.Env):
    """One state, one step: action 1 pays 1, all others nothing."""

    def __init__(self, n_actions: int = 4):
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(n_actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), float(action == 1), True, False, {}


class NamedActions(ConstantReward):
    """Has names for its actions, as Atari has."""

    def get_action_meanings(self):
        return ["NOOP", "FIRE"]


class Image(ConstantReward):
    """Observations as Atari's."""

    def __init__(self):
        super().__init__(observation_space=spaces.Box(0, 255, (36, 36, 3), np.uint8), n_actions=18)


class Mixed(ConstantReward):
    """A Dict of an image, a vector and a category."""

    def __init__(self):
        space = {
            "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
            "vector": spaces.Box(-1, 1, (2,)),
            "kind": spaces.Discrete(3),
        }
        super().__init__(observation_space=spaces.Dict(space))


class Matching(gym.Env):
    """One step: the action that equals the observation, of which there are two, pays 1."""

    def __init__(self, discrete: bool = True):
        self.observation_space = spaces.Discrete(2) if discrete else spaces.Box(0, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.discrete, self.right = discrete, 0

    def _observation(self):
        return self.right if self.discrete else np.eye(2, dtype=np.float32)[self.right]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.right = int(self.np_random.integers(2))
        return self._observation(), {}

    def step(self, action):
        return self._observation(), float(action == self.right), True, False, {}
