"""Replay buffers of all runs: one array with an axis of runs where that is exact, and each model's own buffer otherwise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.networks import Observations
from sb3_mirl.joint.random_numbers import RunGenerator

_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Batch(NamedTuple):
    """One batch for each run."""

    #: s, [R, batch, ...]
    observations: Observations
    #: s'
    next_observations: Observations
    #: Actions, rewards and dones, each [R, batch, 1]
    transitions: tuple[th.Tensor, ...]
    #: γⁿ, [R, batch, 1]; None for γ
    discounts: th.Tensor | None


class OwnBuffers:
    """
    The replay buffer of each model, asked for one batch per gradient step, as in solo training.

    :param models: by row
    :param generators: by row
    """

    def __init__(self, models: Sequence[BaseDQN], generators: Sequence[RunGenerator]) -> None:
        self.models, self.generators = [*models], [*generators]
        self._latest: list[Any] = [None] * len(models)

    def sample(self, rows: Sequence[int]) -> Batch:
        """
        :param rows: of the runs that train; the others get a batch that nobody uses
        :return: one batch for each row
        """
        for row in rows:
            model = self.models[row]
            with self.generators[row]:
                self._latest[row] = model.replay_buffer.sample(model.batch_size, env=model._vec_normalize_env)  # type: ignore[union-attr]
        samples = [sample if sample is not None else self._latest[rows[0]] for sample in self._latest]
        observations, next_observations = (
            _stack_observations([getattr(sample, name) for sample in samples])
            for name in ("observations", "next_observations")
        )
        transitions = tuple(
            th.stack([getattr(sample, name) for sample in samples]) for name in ("actions", "rewards", "dones")
        )
        return Batch(observations, next_observations, transitions, self._discounts(samples))

    def _discounts(self, samples: list[Any]) -> th.Tensor | None:
        """γⁿ [R, batch, 1], or None if no buffer has any; γ where one has none."""
        if all(sample.discounts is None for sample in samples):
            return None
        pairs = zip(self.models, samples, strict=True)
        return th.stack([th.full_like(s.rewards, model.gamma) if s.discounts is None else s.discounts for model, s in pairs])

    def release(self, row: int) -> None:
        """Nothing to do: each model keeps its own buffer."""


def _stack_observations(observations: list[Any]) -> Observations:
    if isinstance(observations[0], dict):
        return {key: th.stack([own[key] for own in observations]) for key in observations[0]}
    return {"": th.stack(observations)}


class StackedBuffers:
    """
    The contents of exact :class:`~stable_baselines3.common.buffers.ReplayBuffer` objects as arrays [R, size, n_envs, ...], of
    which each buffer has its row: transitions of all runs are stored at once, and batches are read at once.

    :param models: by row
    :param generators: by row
    """

    def __init__(self, models: Sequence[BaseDQN], generators: Sequence[RunGenerator]) -> None:
        self.generators = [*generators]
        buffers: list[Any] = [model.replay_buffer for model in models]
        self.buffers, first = buffers, buffers[0]
        self._size, self._n_envs, self._batch_size = first.buffer_size, first.n_envs, models[0].batch_size
        self._device = first.device
        self.arrays: dict[str, np.ndarray] = {}
        for name in _ARRAYS:
            own = getattr(first, name)
            self.arrays[name] = np.zeros((len(buffers), *own.shape), own.dtype)
            for buffer, row in zip(buffers, self.arrays[name], strict=True):
                filled = buffer.size()
                row[:filled] = getattr(buffer, name)[:filled]
                setattr(buffer, name, row)
        # The same memory with one axis of transitions, of all runs, slots and environments
        self._flat = {name: array.reshape(-1, *array.shape[3:]) for name, array in self.arrays.items()}

    @staticmethod
    def fits(model: BaseDQN) -> bool:
        """Whether the buffer of a model is one of those that can be stacked."""
        return (
            type(model.replay_buffer) is ReplayBuffer
            and not model.replay_buffer.optimize_memory_usage
            and model.replay_buffer.handle_timeout_termination
            # Models and buffers that override storing or sampling are called one by one, see OwnBuffers
            and getattr(type(model), "_store_transition") is getattr(BaseDQN, "_store_transition")  # noqa: B009
            and "_store_transition" not in vars(model)
            and not {"add", "sample", "_get_samples"} & vars(model.replay_buffer).keys()
            and model._vec_normalize_env is None
        )

    def add(
        self,
        rows: Sequence[int],
        observations: np.ndarray,
        next_observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        timeouts: np.ndarray,
    ) -> None:
        """
        Store one transition of each environment of the given runs. All arrays are [R, n_envs, ...].

        :param rows: of the runs
        :param timeouts: whether an episode ended by a time limit
        """
        positions = [self.buffers[row].pos for row in rows]
        together = len(rows) == len(self.buffers) and len(set(positions)) == 1
        # Slices are several times faster than lists of indices
        where: Any = (slice(None), positions[0]) if together else (rows, positions)
        given = slice(None) if together else rows
        new = zip(_ARRAYS, (observations, next_observations, actions, rewards, dones, timeouts), strict=True)
        for name, values in new:
            array = self.arrays[name]
            array[where] = values[given].reshape(len(rows), *array.shape[2:])
        for row in rows:
            buffer = self.buffers[row]
            buffer.pos += 1
            if buffer.pos == self._size:
                buffer.full, buffer.pos = True, 0

    def sample(self, rows: Sequence[int]) -> Batch:
        """
        :param rows: of the runs that train; the others get a batch that nobody uses
        :return: one batch for each row
        """
        indices = np.zeros((len(self.buffers), self._batch_size), np.int64)
        for row in rows:
            buffer, random = self.buffers[row], self.generators[row].random
            drawn = random.randint(0, buffer.size(), size=self._batch_size)
            # For one environment SB3 calls randint(0, 1), which draws no random number
            if self._n_envs > 1:
                drawn = drawn * self._n_envs + random.randint(0, self._n_envs, size=self._batch_size)
            indices[row] = drawn + row * self._size * self._n_envs
        read = {name: th.from_numpy(array[indices]).to(self._device) for name, array in self._flat.items()}
        ended = read["dones"] * (1 - read["timeouts"])
        transitions = (read["actions"], read["rewards"].unsqueeze(2), ended.unsqueeze(2))
        return Batch({"": read["observations"]}, {"": read["next_observations"]}, transitions, None)

    def release(self, row: int) -> None:
        """Give one model's buffer arrays of its own."""
        buffer = self.buffers[row]
        for name in _ARRAYS:
            # Not more than what is filled is copied
            own = np.zeros(self.arrays[name].shape[1:], self.arrays[name].dtype)
            filled = buffer.size()
            own[:filled] = self.arrays[name][row, :filled]
            setattr(buffer, name, own)
