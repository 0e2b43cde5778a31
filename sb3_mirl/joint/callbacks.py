"""Calls SB3's callbacks of each run, while NumPy's global generator is that of the run."""

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.events import GradientStepCallback, flatten_callbacks
from sb3_mirl.joint.random_numbers import RunGenerator
from sb3_mirl.mirl.callbacks import BetaUpdateCallback, PriorUpdateCallback
from sb3_mirl.mirl.mirl import MIRL


class JointCallbacks:
    """
    The callbacks of all runs. The default callbacks of MIRL are taken out: their work is done for all runs at once.

    :param models: by row
    :param generators: by row
    :param started: by row, the callbacks that ``_setup_learn()`` returned
    :param log_interval: as in ``learn()``
    """

    def __init__(
        self,
        models: Sequence[BaseDQN],
        generators: Sequence[RunGenerator],
        started: Sequence[BaseCallback],
        log_interval: int | None = 4,
    ) -> None:
        self._log_interval = log_interval
        self._models, self._generators, self._callbacks = [*models], [*generators], [*started]
        #: The callbacks that were taken out, by row
        self.taken: list[list[GradientStepCallback]] = [[] for _ in models]
        #: Rows of the runs that have other callbacks, too
        self.rows_with_callbacks: set[int] = set()
        #: Settings that callbacks must not change, by row
        self._kept: dict[int, dict[str, Any]] = {}

    def on_training_start(self, row: int) -> None:
        """Start the callbacks of one run, and take out MIRL's default callbacks."""
        model, callback = self._models[row], self._callbacks[row]
        assert isinstance(callback, CallbackList)
        with self._generators[row]:
            callback.on_training_start({**self._local_variables(row), "total_timesteps": model._total_timesteps}, globals())
        self.taken[row] = model.take_callbacks(callback, (PriorUpdateCallback, BetaUpdateCallback))
        # If the user passes no callback, _init_callback() makes a ConvertCallback with callback=None
        rest = [item for item in flatten_callbacks(callback) if not isinstance(item, CallbackList)]
        if any(type(item) is not ConvertCallback or item.callback is not None for item in rest):
            self.rows_with_callbacks.add(row)

    def _local_variables(self, row: int) -> dict[str, Any]:
        """What is the same at every step among the local variables of SB3's ``learn()`` and ``collect_rollouts()``."""
        model = self._models[row]
        return {
            "self": model,
            "env": model.env,
            "callback": self._callbacks[row],
            "replay_buffer": model.replay_buffer,
            "train_freq": model.train_freq,
            "learning_starts": model.learning_starts,
            "action_noise": None,
            "continue_training": True,
            "log_interval": self._log_interval,
            "tb_log_name": model.algorithm,
            "reset_num_timesteps": True,
            "progress_bar": False,
        }

    def on_rollout_start(self, row: int) -> None:
        """The beginning of one run's rollout."""
        if row in self.rows_with_callbacks:
            self._models[row].policy.set_training_mode(False)
            with self._generators[row]:
                self._callbacks[row].on_rollout_start()

    def on_rollout_end(self, row: int) -> None:
        """The end of one run's rollout."""
        if row in self.rows_with_callbacks:
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
        counters = model.num_timesteps, model._n_updates
        with self._generators[row]:
            callback.update_locals({**self._local_variables(row), **local_variables})
            goes_on = callback.on_step()
        if counters != (model.num_timesteps, model._n_updates):
            raise ValueError("callback must not call learn() or train() of its model in joint training: train it with learn()")
        return goes_on

    def keep_settings(self, row: int) -> None:
        """Remember what :meth:`check_settings` compares."""
        if row in self.rows_with_callbacks:
            self._kept[row] = _settings_of(self._models[row])

    def check_settings(self, row: int) -> None:
        """
        Called once per rollout, before the gradient steps.

        :param row: of a run
        :raises ValueError: if a callback has changed something that joint training does not follow
        """
        if row not in self.rows_with_callbacks:
            return
        kept, now = self._kept[row], _settings_of(self._models[row])
        if changed := [name for name, value in kept.items() if now[name] != value]:
            raise ValueError(
                f"Callbacks must leave {changed[0]} as it was in joint training, but one has changed it: train this model "
                "with learn()"
            )

    def on_gradient_step(self, row: int, squared_td_error: th.Tensor) -> None:
        """
        :param row: of a run that has gradient-step callbacks
        :param squared_td_error: of its batch, []
        """
        with self._generators[row]:
            self._models[row]._after_gradient_step(squared_td_error)


#: Attributes that are read once for all steps
_READ_ONCE = (
    *("gamma", "tau", "max_grad_norm", "batch_size", "learning_starts", "train_freq", "gradient_steps", "n_steps", "loss"),
    *("target_update_interval", "_total_timesteps"),
)
#: Entries of the optimiser's group that are not compared: learning rates may change, parameters are compared one by one
_RATES = ("lr", "initial_lr", "params")
_READ_ONCE_OF_MIRL = ("prior_step_size", "beta_step_size", "beta_schedule", "beta_max", "beta_scale", "beta_factor")


def _settings_of(model: BaseDQN) -> dict[str, Any]:
    """Settings that callbacks must not change, because joint training reads them once or changes them itself."""
    optimizer = model.policy.optimizer
    settings: dict[str, Any] = {name: getattr(model, name) for name in _READ_ONCE}
    objects = {"env": model.env, "replay_buffer": model.replay_buffer, "policy": model.policy, "optimizer": optimizer}
    settings |= {name: id(value) for name, value in objects.items()} | {"the optimizer's state": id(optimizer.state)}
    settings |= {f"the optimizer's {name}": value for name, value in optimizer.param_groups[0].items() if name not in _RATES}
    for name, parameter in model.policy.named_parameters():
        settings[f"the memory of parameter {name}"] = (parameter.data_ptr(), parameter.requires_grad)
    if not isinstance(model, MIRL):
        settings["loss_coefficients()"] = [values.tolist() for values in model.loss_coefficients()]
    else:
        settings |= {name: getattr(model, name) for name in _READ_ONCE_OF_MIRL}
        policy = model.policy
        settings |= {"regularization": policy.regularization, "the memory of prior": policy.prior.data_ptr()}
        settings["the memory of beta"] = policy.beta.data_ptr()
    return settings
