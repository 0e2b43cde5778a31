"""Events of SB3's callbacks, for every run with its own generator in place."""

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.events import GradientStepCallback
from sb3_mirl.joint.random_numbers import RunGenerator


class JointCallbacks:
    """
    The callbacks of all runs. The default callbacks of MIRL are taken out: their work is done for all runs at once.

    :param models: by row
    :param generators: by row
    :param started: by row, the callbacks that ``_setup_learn()`` returned
    :param given: by row, those of the user
    """

    def __init__(
        self,
        models: Sequence[BaseDQN],
        generators: Sequence[RunGenerator],
        started: Sequence[BaseCallback],
        given: Sequence[BaseCallback | None],
    ) -> None:
        self._models, self._generators, self._callbacks = [*models], [*generators], [*started]
        #: The callbacks that were taken out, by row
        self.taken: list[list[GradientStepCallback]] = [[] for _ in models]
        #: Rows of the runs that have callbacks of the user's
        self.with_callbacks = {row for row, callback in enumerate(given) if callback is not None}

    def on_training_start(self, row: int) -> None:
        """The beginning of one run's training."""
        model, callback = self._models[row], self._callbacks[row]
        assert isinstance(callback, CallbackList)
        with self._generators[row]:
            callback.on_training_start(
                {"self": model, "total_timesteps": model._total_timesteps, "callback": callback}, globals()
            )
        self.taken[row] = model.take_default_callbacks(callback)

    def on_rollout_start(self, row: int) -> None:
        """The beginning of one run's rollout."""
        if row in self.with_callbacks:
            with self._generators[row]:
                self._callbacks[row].on_rollout_start()

    def on_rollout_end(self, row: int) -> None:
        """The end of one run's rollout."""
        if row in self.with_callbacks:
            with self._generators[row]:
                self._callbacks[row].on_rollout_end()

    def on_training_end(self, row: int) -> None:
        """The end of one run's training."""
        with self._generators[row]:
            self._callbacks[row].on_training_end()

    def on_step(self, row: int, local_variables: dict[str, Any]) -> bool:
        """
        :param row: of a run with callbacks
        :param local_variables: what ``collect_rollouts()`` shows to callbacks
        :return: whether the run goes on
        """
        model, callback = self._models[row], self._callbacks[row]
        for taken in self.taken[row]:
            taken.n_calls += 1
            taken.num_timesteps = model.num_timesteps
        shown = {"self": model, "env": model.env, "replay_buffer": model.replay_buffer, "callback": callback}
        with self._generators[row]:
            callback.update_locals({**shown, **local_variables})
            return callback.on_step()

    def on_gradient_step(self, row: int, squared_td_error: th.Tensor) -> None:
        """
        :param row: of a run that has gradient-step callbacks
        :param squared_td_error: of its batch, []
        """
        with self._generators[row]:
            self._models[row]._after_gradient_step(squared_td_error)
