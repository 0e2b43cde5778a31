"""Environments with action masks, whose right answers are known."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class MaskedProbe(gym.Env):
    """
    Walks through ``n_states`` states, given as a number or one-hot, along a fixed table of masks that depends on the state.

    Action a in state s leads to (s + a + 1) mod n_states and pays ``rewards[s, a]``. An invalid action is an error. Episodes
    are truncated after ``length`` steps; state 0 ends them where ``terminal``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        n_states=5,
        n_actions=4,
        seed=0,
        length=7,
        terminal=True,
        observation="one-hot",
        start=0,
        render_mode=None,
    ):
        self.render_mode = render_mode
        rng = np.random.default_rng(seed)
        self.masks = rng.random((n_states, n_actions)) < 0.5
        self.masks[np.arange(n_states), rng.integers(n_actions, size=n_states)] = True
        self.rewards = rng.normal(size=(n_states, n_actions))
        self.n_states, self.length, self.terminal = n_states, length, terminal
        self.action_space = spaces.Discrete(n_actions, start=start)
        self.observation_space = {
            "one-hot": spaces.Box(0, 1, (n_states,), np.float32),
            "number": spaces.Discrete(n_states),
            "dict": spaces.Dict({"state": spaces.Discrete(n_states), "one-hot": spaces.Box(0, 1, (n_states,), np.float32)}),
            "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        }[observation]
        self.observation = observation
        self.state, self.steps = 0, 0

    def observe(self):
        one_hot = np.eye(self.n_states, dtype=np.float32)[self.state]
        if self.observation == "image":
            return np.full((36, 36, 1), self.state, np.uint8)
        return {"one-hot": one_hot, "number": self.state, "dict": {"state": self.state, "one-hot": one_hot}}[self.observation]

    def render(self):
        return np.full((36, 36, 3), 50 * self.state, np.uint8)

    def next_state(self, state, action):
        return (state + action + 1) % self.n_states

    def action_masks(self):
        return self.masks[self.state].copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = int(self.np_random.integers(1, self.n_states)), 0
        return self.observe(), {}

    def step(self, action):
        index = int(action - self.action_space.start)
        assert self.masks[self.state, index], f"action {action} is invalid in state {self.state}"
        reward = float(self.rewards[self.state, index])
        self.state, self.steps = self.next_state(self.state, index), self.steps + 1
        terminated = self.terminal and self.state == 0
        return self.observe(), reward, terminated, self.steps >= self.length, {}


class MaskInInfo(gym.Wrapper):
    """Has no method ``action_masks()``, but the mask in its info, as Taxi has."""

    def get_wrapper_attr(self, name):
        if name == "action_masks":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)

    def has_wrapper_attr(self, name):
        return name != "action_masks" and super().has_wrapper_attr(name)

    def info(self):
        return {"action_mask": self.env.unwrapped.action_masks().astype(np.int8)}

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, **self.info()}

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, **self.info()}
