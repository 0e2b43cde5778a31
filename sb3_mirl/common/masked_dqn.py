""":class:`MaskedDQN`: SB3's DQN with action masks where the environment has them, in acting and in the replay buffer."""

import io
import pathlib
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn import DQN

from sb3_mirl.common.action_masks import checked_masks, supports_action_masks, with_masks_in_info
from sb3_mirl.common.env_types import check_env_type
from sb3_mirl.common.masked_buffers import MASKED_BUFFERS, StoresMasks
from sb3_mirl.common.policies import DQNPolicy


class MaskedDQN(DQN):
    """
    SB3's DQN with action masks: it chooses valid actions only, and its replay buffer stores the masks of s'. In environments
    without action masks it is SB3's DQN.
    """

    policy: DQNPolicy
    #: Whether the model learns with action masks. Its environments must then have masks, and :meth:`predict` needs them
    uses_action_masks: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.uses_action_masks = self.env is not None and supports_action_masks(self.env)

    @staticmethod
    def _wrap_env(env: GymEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_env_type(env)
        return DQN._wrap_env(with_masks_in_info(maybe_make_env(env, verbose)), verbose, monitor_wrapper)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in SB3. Raises ValueError unless ``env`` has action masks exactly if the model uses them."""
        env = self._wrap_env(env, self.verbose)
        self._check_masks_of(env)
        super().set_env(env, force_reset)

    def _check_masks_of(self, env: VecEnv | None) -> None:
        if env is None or supports_action_masks(env) == self.uses_action_masks:
            return
        own, other = ("with", "without") if self.uses_action_masks else ("without", "with")
        raise ValueError(
            f"env must be {own} action masks (the method action_masks() of its environments), as the model's first "
            f"environment was, got {env} {other} them"
        )

    def _setup_model(self) -> None:
        self._check_masks_of(self.env)
        if self.uses_action_masks and self.replay_buffer is None:
            # SB3 makes one only where there is none
            self.replay_buffer = self._make_masked_buffer()
        super()._setup_model()
        self.policy.needs_action_masks = self.uses_action_masks

    def _make_masked_buffer(self) -> StoresMasks:
        plain, kwargs = self.replay_buffer_class, dict(self.replay_buffer_kwargs)
        if plain is None and isinstance(self.observation_space, spaces.Dict):
            plain = DictReplayBuffer
        elif plain is None and self.n_steps > 1:
            plain, kwargs = NStepReplayBuffer, {**kwargs, "n_steps": self.n_steps, "gamma": self.gamma}
        plain = plain or ReplayBuffer
        buffer = plain if issubclass(plain, StoresMasks) else MASKED_BUFFERS.get(plain)
        if buffer is None:
            raise ValueError(
                f"replay_buffer_class must be None, one of {[kind.__name__ for kind in MASKED_BUFFERS]}, or a subclass of "
                f"sb3_mirl.common.masked_buffers.StoresMasks for an environment with action masks, got {plain.__name__}, "
                "which does not store them"
            )
        if self.optimize_memory_usage or kwargs.get("optimize_memory_usage"):
            raise ValueError(
                "optimize_memory_usage must be False for an environment with action masks, got True: it leaves out the last "
                "state of an episode, whose mask is needed"
            )
        return buffer(
            self.buffer_size, self.observation_space, self.action_space, device=self.device, n_envs=self.n_envs, **kwargs
        )

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        As in SB3.

        :raises ValueError: if the file has masks and the model does not use masks, or vice versa
        """
        before = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)
        if isinstance(loaded := self.replay_buffer, StoresMasks) != self.uses_action_masks:
            self.replay_buffer = before
            needed = "with" if self.uses_action_masks else "without"
            raise ValueError(f"path must hold a replay buffer {needed} action masks, got a {type(loaded).__name__}")

    def get_action_masks(self) -> np.ndarray | None:
        """
        :return: which actions are valid now in each environment, bool [n_envs, n_actions]; None without action masks
        :raises ValueError: if a mask is not valid
        """
        if not self.uses_action_masks:
            return None
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        masks = get_action_masks(self.env)  # type: ignore[arg-type]
        return checked_masks(masks, (self.n_envs, n_actions), "action_masks() of the environments")

    def next_action_masks(self, replay_data: Any) -> th.Tensor | None:
        """
        :param replay_data: a batch of the replay buffer
        :return: which actions are valid in its states s', bool [batch, n_actions]; None without action masks
        :raises ValueError: if the model uses masks and the replay buffer has none
        """
        if not self.uses_action_masks:
            return None
        masks: th.Tensor | None = getattr(replay_data, "next_action_masks", None)
        if masks is None:
            kinds = [kind.__name__ for kind in MASKED_BUFFERS.values()]
            raise ValueError(
                f"replay_buffer must be one of {kinds}, which store action masks, got {type(self.replay_buffer).__name__}"
            )
        return masks

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        masks = self.get_action_masks()
        if masks is None:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        if self.num_timesteps < learning_starts:
            actions = self._draw_valid_actions(masks)
        else:
            actions, _ = self.predict(self._last_obs, deterministic=False, action_masks=masks)  # type: ignore[arg-type]
        return actions, actions

    def _draw_valid_actions(self, masks: np.ndarray) -> np.ndarray:
        return np.array([self.action_space.sample(mask) for mask in masks.astype(np.int8)])  # type: ignore[arg-type]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The best action or, unless ``deterministic``, with probability ε a random one. Arguments and results are those of DQN.

        :param action_masks: which actions are valid, bool [n_envs, n_actions], or [n_actions] for a single observation. None:
            all; a model that was trained with masks needs them
        :raises ValueError: if masks are missing or not valid
        """
        masks = self.policy.checked_action_masks(observation, action_masks)
        if masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        if not deterministic and np.random.rand() < self.exploration_rate:
            actions = self._draw_valid_actions(masks)
            return actions if self.policy.is_vectorized_observation(observation) else actions[0], state
        return self.policy.predict(observation, state, episode_start, deterministic, masks)
