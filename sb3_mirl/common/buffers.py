"""
Replay buffers: :class:`FrameReplayBuffer` for stacked frames stores each frame once, a million Atari transitions in 7.1 GB
instead of 56 GB; :class:`DeviceReplayBuffer` keeps the observations on the device that learns.

Their samples are bit for bit those of SB3's own buffer for the same transitions and random state.
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
except ImportError:  # as in SB3: without psutil, there is no warning of too little memory
    psutil = None

# Memory grows by this number of images, or by 1/64 of its size if that is more, so that little of it stays unused
_FIRST_IMAGES = 1024
# Index of the image of zeros, with which SB3's VecFrameStack begins an episode. This image is never freed
_ZEROS = 0
_NEVER_FREED_REFERENCES = 2**30


class Planes:
    """
    Images [H, W] of a :class:`FrameReplayBuffer`, one for each channel of a frame, with reference counts.

    The latest stack of each environment is kept, because the next one differs from it by one frame.

    :param n_envs: number of environments
    :param shape: of a stack, [C, H, W]
    :param dtype: of the images
    """

    def __init__(self, n_envs: int, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        n_channels, *image = shape
        self.images = np.zeros((1, *image), dtype=dtype)
        self.references = np.full(1, _NEVER_FREED_REFERENCES, dtype=np.int32)
        #: Number of the checkpoint file that holds the image, 0: none
        self.saved_in = np.zeros(1, dtype=np.int64)
        self.free: list[int] = []
        self._no_content = self.images[_ZEROS].tobytes()
        self.latest = np.zeros((n_envs, *shape), dtype=dtype)
        self.latest_index = np.full((n_envs, n_channels), _ZEROS, dtype=np.int32)
        #: Channels of a frame, as inferred from the data: a stack is the previous one shifted by this number
        self.frame_channels = 1
        self._shifts = [shift for shift in range(1, n_channels) if n_channels % shift == 0]

    def _equal(self, stacks: np.ndarray, shift: int) -> np.ndarray:
        """Whether image i of a stack has the bytes of image i + ``shift`` of the latest stack, bool [n_envs, C - shift]."""
        n_envs, n_channels, height, width = stacks.shape
        planes = (n_envs, n_channels - shift, height * width)
        new, old = stacks[:, : n_channels - shift].reshape(planes), self.latest[:, shift:].reshape(planes)
        word = np.uint64 if height * width * stacks.itemsize % 8 == 0 else np.uint8
        return (new.view(word) == old.view(word)).all(axis=-1)

    def find_or_add(self, stacks: np.ndarray, shifted: bool) -> np.ndarray:
        """
        Find the images of a stack for each environment. Images that are not in the latest stacks are stored.

        :param stacks: [n_envs, C, H, W]
        :param shifted: whether to expect the latest stacks shifted by a frame, instead of the latest stacks
        :return: indices of the images, [n_envs, C]
        """
        n_envs, n_channels = stacks.shape[:2]
        # SubprocVecEnv passes on what environments give, which may have another dtype than their space
        stacks = np.ascontiguousarray(stacks, dtype=self.latest.dtype)
        index = np.full((n_envs, n_channels), -1, dtype=np.int32)
        shift = self.frame_channels if shifted else 0
        found = self._equal(stacks, shift)
        if shifted and not found.all():
            for other in self._shifts:
                if (of_other := self._equal(stacks, other)).all():
                    self.frame_channels, shift, found = other, other, of_other
                    break
        # If an episode begins or ends, or if observations are not stacked, some images may still be equal
        index[:, : n_channels - shift] = np.where(found, self.latest_index[:, shift:], -1)
        for env, channel in np.argwhere(index < 0):
            index[env, channel] = self._find_or_add_image(stacks[env], index[env], channel)
        self.latest[:] = stacks
        self.latest_index[:] = index
        return index

    def _find_or_add_image(self, stack: np.ndarray, index: np.ndarray, channel: int) -> int:
        """The image of one channel: zeros, that of the previous frame (a repeated first frame), or a new one."""
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
        larger = n_images + max(_FIRST_IMAGES, n_images // 64)
        self._resize(larger)
        self.free = list(range(larger - 1, n_images - 1, -1))

    def _resize(self, n_images: int) -> None:
        for name in ("images", "references", "saved_in"):
            array = getattr(self, name)
            if not array.flags.owndata:  # after unpickling
                array = array.copy()
                setattr(self, name, array)
            # In place: the system moves pages of large arrays without copying them
            array.resize((n_images, *array.shape[1:]), refcheck=False)

    def refer(self, index: np.ndarray) -> None:
        """Add a reference to each of these images."""
        np.add.at(self.references, index.ravel(), 1)

    def release(self, index: np.ndarray) -> None:
        """Remove a reference to each of these images; without references they are freed."""
        index = index.ravel()
        np.subtract.at(self.references, index, 1)
        self.free += {int(image) for image in index[self.references[index] == 0]}

    def unsaved(self, files: list[int], among: np.ndarray | None) -> np.ndarray:
        """
        Find images that are in none of these checkpoint files.

        :param files: numbers of files
        :param among: indices of images to select from; None: all that are referred to
        :return: indices of images
        """
        images = np.flatnonzero(self.references) if among is None else among
        images = images[images != _ZEROS]
        return images[~np.isin(self.saved_in[images], files)]

    def load(self, numbers: np.ndarray, images: np.ndarray, file: int) -> None:
        """
        Store images from a checkpoint file. :meth:`finish_loading` must follow.

        :param numbers: indices of the images, [n]
        :param images: [n, H, W]
        :param file: number of the file
        """
        if len(numbers) and numbers.max() >= len(self.images):
            self._resize(int(numbers.max()) + 1)
        self.images[numbers] = images
        self.saved_in[numbers] = file

    def finish_loading(self, indices: list[np.ndarray], latest_index: np.ndarray) -> None:
        """
        Restore reference counts and the latest stacks.

        :param indices: indices of all images that are referred to, with repetitions
        :param latest_index: indices of the latest stacks, [n_envs, C]
        """
        n_images = len(self.images)
        self.references[:] = sum(np.bincount(index.ravel(), minlength=n_images) for index in indices)
        self.references[_ZEROS] = _NEVER_FREED_REFERENCES
        self.free = [int(image) for image in np.flatnonzero(self.references == 0)]
        self.latest_index[:] = latest_index
        self.latest[:] = self.images[latest_index]


class Stacks:
    """
    Replaces the array of observations in a :class:`FrameReplayBuffer`. It holds indices of images.

    :param planes: the images
    :param buffer_size: number of slots
    :param channels_last: whether observations are [H, W, C], not [C, H, W]
    :param shifted: whether these are the next observations, which are a frame later
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
    A replay buffer that stores each frame of stacked images once.

    Use it as ``replay_buffer_class=FrameReplayBuffer`` with any off-policy algorithm of SB3. Observations are images with
    their channels first or last. In a stack, as made by ``VecFrameStack`` and Gymnasium's ``FrameStackObservation``, an
    observation is the previous one shifted by a frame; the number of channels of a frame is inferred from the data. New images
    are always stored, so that samples are correct for all observations; only the saved memory depends on the data. An Atari
    transition takes 7.1 kB; SB3's takes 56.4 kB.

    :param buffer_size: number of transitions, as SB3 counts them
    :param observation_space: a Box of images [C, H, W] or [H, W, C]
    :param action_space: the action space
    :param device: device of the samples
    :param n_envs: number of environments
    :param optimize_memory_usage: not supported; each frame is stored once without it
    :param handle_timeout_termination: as in SB3's buffer
    :param n_steps: length of the n-step return
    :param gamma: discount factor of the n-step return
    :raises ValueError: if observations are not images, or if ``optimize_memory_usage=True``
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
        # An empty observation space, so that SB3 allocates no stacks
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
        """SB3's conversion without a copy: samples are copies already."""
        return super().to_torch(array, copy=False)


class TensorOnDevice:
    """
    Replaces the array of observations in a :class:`DeviceReplayBuffer` by a tensor on a device.

    :param shape: of the array
    :param dtype: of the array
    :param device: of the tensor
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, device: th.device) -> None:
        if device.type == "cpu":
            self.tensor = th.as_tensor(np.zeros(shape, dtype))  # NumPy's zeros take memory only when they are written to
        else:
            self.tensor = th.zeros(shape, dtype=th.as_tensor(np.empty(0, dtype)).dtype, device=device)

    def __setitem__(self, slot: int, observations: np.ndarray) -> None:
        self.tensor[slot] = th.as_tensor(observations, device=self.tensor.device)

    def __getitem__(self, key: Any) -> th.Tensor:
        slots, envs = (th.as_tensor(index, device=self.tensor.device) for index in key[:2])
        return self.tensor[slots, envs]


class DeviceReplayBuffer(ReplayBuffer):
    """
    A replay buffer whose observations are on the device that learns, so that batches are not copied to it.

    Use it as ``replay_buffer_class=DeviceReplayBuffer`` on a GPU with memory for ``2 * buffer_size`` observations: 56 kB for
    an Atari transition. A saved buffer can be loaded only if its device exists.

    :param buffer_size: number of transitions, as SB3 counts them
    :param observation_space: any space except Dict
    :param action_space: the action space
    :param device: device of the observations and of the samples
    :param n_envs: number of environments
    :param optimize_memory_usage: not supported
    :param handle_timeout_termination: as in SB3's buffer
    :raises ValueError: if observations are Dict, or if ``optimize_memory_usage=True``
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
        # An empty observation space, so that SB3 allocates no memory for observations
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
        """Convert as in SB3. Observations are tensors already; they are moved if the buffer was loaded onto another device."""
        return array.to(self.device) if isinstance(array, th.Tensor) else super().to_torch(array, copy)
