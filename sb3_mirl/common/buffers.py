"""
Replay buffers: :class:`FrameReplayBuffer` for stacked frames stores each frame once, a million Atari transitions in 7.2 GB
instead of 56 GB; :class:`DeviceReplayBuffer` keeps the observations on the device that learns.

What is sampled from them is bit for bit what SB3's own buffer would return for the same transitions and random state.
"""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

try:
    import psutil
except ImportError:  # as SB3 treats it: then nobody warns of too little memory
    psutil = None

# Planes for which memory is reserved at first; it grows by a 64th, so that little of it is ever unused
_FIRST_PLANES = 1024
# The plane of zeros with which SB3's VecFrameStack begins an episode. It is never freed
_ZEROS = 0
_FOR_EVER = 2**30


class Planes:
    """
    Images [H, W] of a :class:`FrameReplayBuffer`, one for each channel of a frame, kept as long as something refers to them.

    The most recent stack of every environment is remembered, because the next one consists of it but for a frame.

    :param n_envs: number of environments
    :param shape: of a stack, [C, H, W]
    :param dtype: of the images
    """

    def __init__(self, n_envs: int, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        n_channels, *image = shape
        self.images = np.zeros((1, *image), dtype=dtype)
        self.references = np.full(1, _FOR_EVER, dtype=np.int32)
        #: Number of the file of a checkpoint that holds the image, 0: none
        self.saved_in = np.zeros(1, dtype=np.int64)
        self.free: list[int] = []
        self._no_content = self.images[_ZEROS].tobytes()
        self.latest = np.zeros((n_envs, *shape), dtype=dtype)
        self.latest_index = np.full((n_envs, n_channels), _ZEROS, dtype=np.int32)
        #: Channels of a frame, as far as one can tell: a stack is the one before, moved on by so many
        self.frame_channels = 1
        self._shifts = [shift for shift in range(1, n_channels) if n_channels % shift == 0]

    def _equal(self, stacks: np.ndarray, shift: int) -> np.ndarray:
        """Which planes equal the one ``shift`` further in the latest stack, [n_envs, C - shift]: bytes, not numbers."""
        n_envs, n_channels, height, width = stacks.shape
        planes = (n_envs, n_channels - shift, height * width)
        new, old = stacks[:, : n_channels - shift].reshape(planes), self.latest[:, shift:].reshape(planes)
        word = np.uint64 if height * width * stacks.itemsize % 8 == 0 else np.uint8
        return (new.view(word) == old.view(word)).all(axis=-1)

    def find_or_add(self, stacks: np.ndarray, shifted: bool) -> np.ndarray:
        """
        The images of a stack for every environment. Those not seen in the latest stacks are stored.

        :param stacks: [n_envs, C, H, W]
        :param shifted: whether to expect the latest stacks moved on by a frame, rather than the same ones
        :return: numbers of the images, [n_envs, C]
        """
        n_envs, n_channels = stacks.shape[:2]
        stacks = np.ascontiguousarray(stacks)
        index = np.full((n_envs, n_channels), -1, dtype=np.int32)
        shift = self.frame_channels if shifted else 0
        found = self._equal(stacks, shift)
        if shifted and not found.all():
            for other in self._shifts:
                if (of_other := self._equal(stacks, other)).all():
                    self.frame_channels, shift, found = other, other, of_other
                    break
        # Where episodes begin or end, or where there is no stack at all, some planes may still be the same
        index[:, : n_channels - shift] = np.where(found, self.latest_index[:, shift:], -1)
        for env, channel in np.argwhere(index < 0):
            index[env, channel] = self._find_or_add_image(stacks[env], index[env], channel)
        self.latest[:] = stacks
        self.latest_index[:] = index
        return index

    def _find_or_add_image(self, stack: np.ndarray, index: np.ndarray, channel: int) -> int:
        """The image of one channel: zeros, the image of the frame before (a first frame that is repeated), or a new one."""
        before = channel - self.frame_channels
        content = stack[channel].tobytes()
        if before >= 0 and stack[before].tobytes() == content:
            return int(index[before])
        if content == self._no_content:
            return _ZEROS
        if not self.free:
            self._grow()
        new = self.free.pop()
        self.images[new] = stack[channel]
        self.saved_in[new] = 0
        return new

    def _grow(self) -> None:
        n_images = len(self.images)
        larger = n_images + max(_FIRST_PLANES, n_images // 64)
        self._resize(larger)
        self.free = list(range(larger - 1, n_images - 1, -1))

    def _resize(self, n_images: int) -> None:
        for name in ("images", "references", "saved_in"):
            array = getattr(self, name)
            if not array.flags.owndata:  # as it comes from a pickle
                array = array.copy()
                setattr(self, name, array)
            # In place: for what is larger than a few pages, the system moves addresses, not data
            array.resize((n_images, *array.shape[1:]), refcheck=False)

    def refer(self, index: np.ndarray) -> None:
        """One more reference to each of these images."""
        np.add.at(self.references, index.ravel(), 1)

    def release(self, index: np.ndarray) -> None:
        """One reference less to each of these images; the last one frees it."""
        index = index.ravel()
        np.subtract.at(self.references, index, 1)
        self.free += {int(image) for image in index[self.references[index] == 0]}

    def unsaved(self, files: list[int], among: np.ndarray | None) -> np.ndarray:
        """
        The images that are in none of these files, among those given, or else among all that something refers to.

        :param files: numbers of files
        :param among: numbers of images
        :return: numbers of images
        """
        images = np.flatnonzero(self.references) if among is None else among
        images = images[images != _ZEROS]
        return images[~np.isin(self.saved_in[images], files)]

    def load(self, numbers: np.ndarray, images: np.ndarray, file: int) -> None:
        """
        Images as they come from a file. :meth:`finish_loading` must follow.

        :param numbers: of the images, [n]
        :param images: [n, H, W]
        :param file: number of the file
        """
        if len(numbers) and numbers.max() >= len(self.images):
            self._resize(int(numbers.max()) + 1)
        self.images[numbers] = images
        self.saved_in[numbers] = file

    def finish_loading(self, indices: list[np.ndarray], latest_index: np.ndarray) -> None:
        """
        :param indices: all numbers of images that something refers to
        :param latest_index: those of the latest stacks, [n_envs, C]
        """
        n_images = len(self.images)
        self.references[:] = sum(np.bincount(index.ravel(), minlength=n_images) for index in indices)
        self.references[_ZEROS] = _FOR_EVER
        self.free = [int(image) for image in np.flatnonzero(self.references == 0)]
        self.latest_index[:] = latest_index
        self.latest[:] = self.images[latest_index]


class Stacks:
    """
    In a :class:`FrameReplayBuffer`, stands where SB3's buffer has an array of observations, and holds the numbers
    of images.

    :param planes: the images
    :param buffer_size: number of slots
    :param channels_last: whether observations are [H, W, C] rather than [C, H, W]
    :param shifted: whether these are the next observations, a frame further than the observations
    """

    def __init__(self, planes: Planes, buffer_size: int, channels_last: bool, shifted: bool) -> None:
        self.planes, self.channels_last, self.shifted = planes, channels_last, shifted
        self.index = np.full((buffer_size, *planes.latest_index.shape), _ZEROS, dtype=np.int32)

    def __setitem__(self, slot: int, stacks: np.ndarray) -> None:
        """The observations of all environments at one step, [n_envs, *obs_shape]."""
        new = self.planes.find_or_add(np.moveaxis(stacks, -1, -3) if self.channels_last else stacks, self.shifted)
        self.planes.refer(new)
        self.planes.release(self.index[slot])
        self.index[slot] = new

    def __getitem__(self, key: Any) -> np.ndarray:
        """Observations by slot and environment, [..., *obs_shape]; ``key`` as SB3's buffers index their arrays."""
        slots_and_envs = key[:2] if isinstance(key, tuple) else key
        stacks = self.planes.images.take(self.index[slots_and_envs], axis=0)
        return np.ascontiguousarray(np.moveaxis(stacks, -3, -1)) if self.channels_last else stacks


class FrameReplayBuffer(NStepReplayBuffer):
    """
    A replay buffer that stores every frame of stacked images once.

    Use it as ``replay_buffer_class=FrameReplayBuffer`` with any SB3 algorithm. Observations are images with their channels
    first or last, in which an observation is the one before moved on by a frame, as ``VecFrameStack`` and Gymnasium's
    ``FrameStackObservation`` make them; how many channels a frame has is found out from the data. Where episodes begin or
    end, or where there is no such stack, everything is stored that is new: the result is right in any case, and the memory
    saved depends on the data. An Atari transition takes 7.1 kB; SB3's takes 56.4 kB.

    :param buffer_size: number of transitions, as SB3 counts them
    :param observation_space: a Box of images [C, H, W] or [H, W, C]
    :param action_space: the action space
    :param device: device of what is sampled
    :param n_envs: number of environments
    :param optimize_memory_usage: not supported, since it is done anyway
    :param handle_timeout_termination: as in SB3's buffer
    :param n_steps: length of the n-step return
    :param gamma: discount factor of the n-step return
    :raises ValueError: for observations that are no images, and for ``optimize_memory_usage=True``
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_steps: int = 1,
        gamma: float = 0.99,
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 3:
            raise ValueError(
                "FrameReplayBuffer stores images: observation_space must be a Box of shape [C, H, W] or [H, W, C], "
                f"got {observation_space}. Use SB3's ReplayBuffer (replay_buffer_class=None)."
            )
        if optimize_memory_usage:
            raise ValueError(
                "FrameReplayBuffer stores every frame once already: optimize_memory_usage must be False, got True"
            )
        # Without observations, of which SB3 would allocate whole stacks
        nothing = spaces.Box(0, 1, (0,), observation_space.dtype.type)
        super().__init__(
            buffer_size,
            nothing,
            action_space,
            device,
            n_envs,
            handle_timeout_termination=handle_timeout_termination,
            n_steps=n_steps,
            gamma=gamma,
        )
        self.observation_space, self.obs_shape = observation_space, observation_space.shape
        channels_last = int(np.argmin(observation_space.shape)) == 2
        stack = (self.obs_shape[2], *self.obs_shape[:2]) if channels_last else self.obs_shape
        self.planes = planes = Planes(n_envs, stack, observation_space.dtype)
        self.observations = Stacks(planes, self.buffer_size, channels_last, shifted=False)  # type: ignore[assignment]
        self.next_observations = Stacks(planes, self.buffer_size, channels_last, shifted=True)  # type: ignore[assignment]
        self._warn_of_little_memory(planes)

    def _warn_of_little_memory(self, planes: Planes) -> None:
        expected = self.buffer_size * self.n_envs * planes.images[0].nbytes
        available = float("inf") if psutil is None else psutil.virtual_memory().available
        if expected > available:
            warnings.warn(
                f"FrameReplayBuffer: buffer_size={self.buffer_size * self.n_envs} takes at least {expected / 1e9:.2f} GB when "
                f"it is full, and {available / 1e9:.2f} GB of memory are available",
                stacklevel=3,
            )

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        if self.n_steps == 1:
            return ReplayBuffer._get_samples(self, batch_inds, env)
        return super()._get_samples(batch_inds, env)

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        """What is sampled has been copied out of the buffer already."""
        return super().to_torch(array, copy=False)


class TensorOnDevice:
    """
    In a :class:`DeviceReplayBuffer`, stands where SB3's buffer has an array of observations, and holds a tensor on a device.

    :param shape: of the array
    :param dtype: NumPy's
    :param device: where it is
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, device: th.device) -> None:
        if device.type == "cpu":
            self.tensor = th.as_tensor(np.zeros(shape, dtype))  # which takes memory only where it is written to
        else:
            self.tensor = th.zeros(shape, dtype=th.as_tensor(np.empty(0, dtype)).dtype, device=device)

    def __setitem__(self, slot: int, observations: np.ndarray) -> None:
        self.tensor[slot] = th.as_tensor(observations, device=self.tensor.device)

    def __getitem__(self, key: Any) -> th.Tensor:
        slots, envs = (th.as_tensor(index, device=self.tensor.device) for index in key[:2])
        return self.tensor[slots, envs]


class DeviceReplayBuffer(ReplayBuffer):
    """
    A replay buffer whose observations are on the device that learns, so that a batch need not be copied there.

    Use it as ``replay_buffer_class=DeviceReplayBuffer`` on a GPU with room for ``2 * buffer_size`` observations: 56 kB for an
    Atari transition. Its file can be loaded where that device exists.

    :param buffer_size: number of transitions, as SB3 counts them
    :param observation_space: any but Dict
    :param action_space: the action space
    :param device: where the observations are kept, and where samples are returned
    :param n_envs: number of environments
    :param optimize_memory_usage: not supported
    :param handle_timeout_termination: as in SB3's buffer
    :raises ValueError: for Dict observations and for ``optimize_memory_usage=True``
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if isinstance(observation_space, spaces.Dict):
            raise ValueError(f"DeviceReplayBuffer: observation_space must not be a Dict, got {observation_space}")
        if optimize_memory_usage:
            raise ValueError("DeviceReplayBuffer: optimize_memory_usage must be False, got True")
        # Without observations, for which SB3 would allocate memory elsewhere
        nothing = spaces.Box(0, 1, (0,))
        super().__init__(
            buffer_size, nothing, action_space, device, n_envs, handle_timeout_termination=handle_timeout_termination
        )
        self.observation_space = observation_space
        self.obs_shape = get_obs_shape(observation_space)  # type: ignore[assignment]
        shape = (self.buffer_size, n_envs, *self.obs_shape)
        dtype = np.dtype(observation_space.dtype)
        self.observations = TensorOnDevice(shape, dtype, self.device)  # type: ignore[assignment]
        self.next_observations = TensorOnDevice(shape, dtype, self.device)  # type: ignore[assignment]

    @staticmethod
    def _normalize_obs(obs: Any, env: VecNormalize | None = None) -> Any:
        if env is not None and env.norm_obs:
            raise ValueError(
                "DeviceReplayBuffer does not work with VecNormalize(norm_obs=True), which normalises NumPy arrays: use SB3's "
                "ReplayBuffer (replay_buffer_class=None)"
            )
        return obs

    def to_torch(self, array: Any, copy: bool = True) -> th.Tensor:
        """Observations are tensors already."""
        return array if isinstance(array, th.Tensor) else super().to_torch(array, copy)
