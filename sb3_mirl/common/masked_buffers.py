"""Replay buffers that also store which actions are valid in s', one byte for each action of a transition."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from sb3_mirl.common.action_masks import masks_in_infos
from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer


class MaskedSamples(NamedTuple):
    """SB3's ``ReplayBufferSamples``, with the masks of the next observations, bool [batch, n_actions]."""

    observations: th.Tensor | TensorDict
    actions: th.Tensor
    next_observations: th.Tensor | TensorDict
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None
    next_action_masks: th.Tensor


class StoresMasks(ReplayBuffer):
    """
    A replay buffer with the mask of s' of each transition, from the ``info`` that
    :class:`~sb3_mirl.common.action_masks.ActionMaskInfo` writes. Its samples are :class:`MaskedSamples`. It takes the
    arguments of the class with which it is combined.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        #: Which actions are valid in s', bool [buffer_size, n_envs, n_actions]
        self.next_action_masks = np.zeros((self.buffer_size, self.n_envs, self.n_actions), dtype=bool)

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        """
        Store a transition of each environment.

        :raises ValueError: if the mask is missing in an info, or not valid
        """
        self.next_action_masks[self.pos] = masks_in_infos(infos, self.n_actions)
        super().add(obs, next_obs, action, reward, done, infos)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        # The mask is read where SB3 reads the next observation: with n-step returns that is the last of the n states
        stored: Any = self.next_observations
        first = next(iter(stored)) if isinstance(stored, dict) else None
        noted = _IndexRecorder(stored if first is None else stored[first])
        self.next_observations = noted if first is None else {**stored, first: noted}  # type: ignore[assignment]
        try:
            samples = super()._get_samples(batch_inds, env)
        finally:
            self.next_observations = stored
        return MaskedSamples(*samples, self.to_torch(self.next_action_masks[noted.slots_and_envs]))  # type: ignore[call-arg]


class _IndexRecorder:
    """
    Stands for an array of observations, and keeps the slots and environments that are read.

    :param array: the array
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.slots_and_envs: tuple[np.ndarray, np.ndarray]

    def __getitem__(self, key: tuple) -> Any:
        self.slots_and_envs = key[:2]
        return self._array[key]


class MaskedReplayBuffer(StoresMasks, ReplayBuffer):
    """SB3's ``ReplayBuffer`` with masks."""


class MaskedDictReplayBuffer(StoresMasks, DictReplayBuffer):
    """SB3's ``DictReplayBuffer`` with masks."""


class MaskedNStepReplayBuffer(StoresMasks, NStepReplayBuffer):
    """SB3's ``NStepReplayBuffer`` with masks: that of the last of the n states."""


class MaskedFrameReplayBuffer(StoresMasks, FrameReplayBuffer):
    """:class:`~sb3_mirl.common.buffers.FrameReplayBuffer` with masks."""


class MaskedDeviceReplayBuffer(StoresMasks, DeviceReplayBuffer):
    """:class:`~sb3_mirl.common.buffers.DeviceReplayBuffer` with masks, which are in main memory."""


#: The class with masks for each class without
MASKED_BUFFERS: dict[type[ReplayBuffer], type[StoresMasks]] = {
    ReplayBuffer: MaskedReplayBuffer,
    DictReplayBuffer: MaskedDictReplayBuffer,
    NStepReplayBuffer: MaskedNStepReplayBuffer,
    FrameReplayBuffer: MaskedFrameReplayBuffer,
    DeviceReplayBuffer: MaskedDeviceReplayBuffer,
}
