"""
:func:`train_jointly`: the loop of SB3's ``learn()``, ``collect_rollouts()`` and ``train()`` for many models at once.

Read it beside ``stable_baselines3/common/off_policy_algorithm.py``: the order within a step is the same.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.events import flatten_callbacks
from sb3_mirl.common.inputs import check_integer
from sb3_mirl.joint.acting import Acting
from sb3_mirl.joint.callbacks import JointCallbacks
from sb3_mirl.joint.compatibility import check_models, give_seeds
from sb3_mirl.joint.environments import Environments, Transitions
from sb3_mirl.joint.networks import StackedNetworks
from sb3_mirl.joint.optimizer import JointOptimizer
from sb3_mirl.joint.random_numbers import RunGenerator, global_generator_kept
from sb3_mirl.joint.records import TrainingRecords
from sb3_mirl.joint.regularization import Regularization
from sb3_mirl.joint.replay import OwnBuffers, StackedBuffers
from sb3_mirl.joint.storing import store_transitions
from sb3_mirl.mirl.mirl import MIRL


def train_jointly(
    models: Sequence[BaseDQN],
    total_timesteps: int,
    callback: Sequence[BaseCallback | None] | Callable[[BaseDQN], BaseCallback | None] | None = None,
    progress_bar: bool = False,
    log_interval: int | None = 4,
    on_error: Callable[[BaseDQN, ValueError], None] | None = None,
) -> list[ValueError | None]:
    """
    Train several models in lock-step, which takes a fraction of the time of training them one after the other.

    Each model ends as if it had been trained alone with ``model.learn(total_timesteps, callback)`` right after its
    construction: the same random numbers are drawn in the same order, results differ by rounding only, and one run changes
    nothing in another. MIRL, its variants, MDQN, BaseDQN and DQNMSE may be mixed. Models may differ in seed, environment,
    learning rate and its schedule, ``gamma``, exploration schedule, ``max_grad_norm``, and in the own arguments of MIRL and
    MDQN; all else must agree.

    A run whose loss, reward or observation is not finite ends with an error; the others go on. Other exceptions of
    environments and callbacks end the training, as they end ``learn()``. Python's ``random`` and torch's generator are not
    kept apart: environments should draw from their own generators, or from NumPy's global one. The forward method of the
    networks is traced once, as by ``compile_update=True``: Python attributes keep the value that they had then.

    :param models: new or loaded models, each with an environment of its own. A model without a seed gets a random one,
        which is printed
    :param total_timesteps: environment transitions of each model
    :param callback: one callback (or None) for each model, or a function that makes one for a model. A callback that returns
        False ends its run only
    :param progress_bar: show one progress bar, in environment transitions of each model; it needs tqdm and rich
    :param log_interval: episodes of a model between two writes of its logs; None: logs are not written
    :param on_error: called when a run ends with an error, with its model and the error; by default there is a warning
    :return: for each model None, or the error that ended its run
    :raises ValueError: if the models disagree in something that must agree; the message names it and both values
    :raises TypeError: if ``models`` is a single model, or a model is not one of this package
    """
    if isinstance(models, BaseDQN):
        raise TypeError(f"models must be a list of models, got the {type(models).__name__} {models}")
    models = [*models]
    total_timesteps = check_integer("total_timesteps", total_timesteps, 0)
    if log_interval is not None:
        log_interval = check_integer("log_interval", log_interval, 1)
    check_models(models)
    callbacks = _callbacks_of(models, callback)
    with global_generator_kept():
        give_seeds(models)
        # MIRL first, equal losses and learning rates beside each other: they share operations
        order = sorted(range(len(models)), key=lambda index: _place(models[index]))
        training = JointTraining([models[index] for index in order], log_interval, on_error)
        training.learn(total_timesteps, [callbacks[index] for index in order], progress_bar)
    errors = dict(zip(order, training.errors, strict=True))
    return [errors[index] for index in range(len(models))]


def _place(model: BaseDQN) -> tuple[Any, ...]:
    return not isinstance(model, MIRL), repr(model.batch_loss), model.policy.optimizer.param_groups[0]["lr"]


def _has_standard_dump_logs(model: BaseDQN) -> bool:
    return type(model).dump_logs in (MIRL.dump_logs, BaseDQN.dump_logs)


def _callbacks_of(models: list[BaseDQN], callback: Any) -> list[BaseCallback | None]:
    if callback is None:
        return [None] * len(models)
    if isinstance(callback, BaseCallback):
        raise ValueError(
            f"callback must be a list of {len(models)} callbacks, or a function that makes one for a model, got one "
            f"{type(callback).__name__}: each run needs its own"
        )
    callbacks = [callback(model) for model in models] if callable(callback) else [*callback]
    if len(callbacks) != len(models):
        raise ValueError(f"callback must hold one callback for each of the {len(models)} models, got {len(callbacks)}")
    for given in callbacks:
        if given is not None and not isinstance(given, BaseCallback):
            raise ValueError(f"callback must hold callbacks of SB3 or None, got {given!r}")
    parts = [id(part) for given in callbacks if given is not None for part in flatten_callbacks(given)]
    if len(set(parts)) < len(parts):
        raise ValueError("callback must hold an object of its own for each model, got one twice")
    return callbacks


def _warn(model: BaseDQN, error: ValueError) -> None:
    warnings.warn(
        f"Joint training goes on without the {type(model).__name__} with seed {model.seed} (learning_rate="
        f"{model.learning_rate}, gamma={model.gamma}), which ended at step {model.num_timesteps}: {error}",
        stacklevel=7,
    )


class JointTraining:
    """
    One training of several models.

    :param models: in an order in which equal losses are neighbours, MIRL's first
    :param log_interval: as in :func:`train_jointly`
    :param on_error: as in :func:`train_jointly`
    """

    def __init__(
        self,
        models: list[BaseDQN],
        log_interval: int | None = 4,
        on_error: Callable[[BaseDQN, ValueError], None] | None = None,
    ) -> None:
        self.models = models
        self._log_interval, self._on_error = log_interval, on_error or _warn
        self.generators = [RunGenerator(model.random_state) for model in models]
        #: The runs that go on, by row
        self.rows = [*range(len(models))]
        self.errors: list[ValueError | None] = [None] * len(models)
        self._n_updates = models[0]._n_updates
        # Parts with a row for each run, in the order of creation. Each has a method release(row)
        self._parts: list[StackedNetworks | JointOptimizer | Environments | OwnBuffers | StackedBuffers] = []
        # Rows whose logger lacks what SB3 records at each step
        self._unlogged: set[int] = set()
        self._target_interval = max(models[0].target_update_interval // models[0].n_envs, 1)

    def learn(self, total_timesteps: int, callbacks: list[BaseCallback | None], progress_bar: bool = False) -> None:
        """
        :param total_timesteps: environment transitions of each model
        :param callbacks: by row
        :param progress_bar: show one progress bar
        """
        with self._states_of_generators(), ExitStack() as trainings:
            totals = self._begin(trainings, total_timesteps, callbacks)
            bar = None
            if progress_bar:
                bar = self._progress_bar(totals)
                trainings.callback(bar.on_training_end)
            while self.rows and self._first.num_timesteps < totals:
                self._collect_rollout(bar)
                if self.rows and self._first.num_timesteps > self._first.learning_starts:
                    self._train()
            for row in self.rows:
                self._log(row)
                self.callbacks.on_training_end(row)

    @contextmanager
    def _states_of_generators(self) -> Iterator[None]:
        """When the training ends, stores each run's generator state in its model, for the model's next training."""
        try:
            yield
        finally:
            for model, generator in zip(self.models, self.generators, strict=True):
                model.random_state = generator.state

    @property
    def _first(self) -> BaseDQN:
        """One of the running models. The loop reads only settings from it that agree between all models."""
        return self.models[self.rows[0]]

    def _begin(self, trainings: ExitStack, total_timesteps: int, callbacks: list[BaseCallback | None]) -> int:
        started, totals = [], []
        for model, generator, callback in zip(self.models, self.generators, callbacks, strict=True):
            with generator:
                total, reset = trainings.enter_context(model.learning(total_timesteps, reset_num_timesteps=True))
                total, started_callback = model._setup_learn(total, callback, reset, model.algorithm)
            started.append(started_callback)
            totals.append((total, model.num_timesteps))
        if len(set(totals)) > 1:
            raise ValueError(
                f"models must be at the same step, got {totals[0][1]} of {totals[0][0]} in one and "
                + next(f"{step} of {total}" for total, step in totals if (total, step) != totals[0])
                + " in another: resume_jointly() reads checkpoints of the same step"
            )
        self.callbacks = JointCallbacks(self.models, self.generators, started, self._log_interval)
        for row in self.rows:
            self.callbacks.on_training_start(row)
        trainings.callback(self._release_all)
        self.networks = StackedNetworks(self.models)
        self._parts.append(self.networks)
        self.regularization = Regularization(self.networks, self.callbacks.taken)
        self.optimizer = JointOptimizer(self.models, self.networks.parameters)
        self.acting = Acting(self.networks, self.generators)
        own_buffers = not all(map(StackedBuffers.fits, self.models))
        # Replay buffers and callbacks may keep the infos of these rows
        copied = self.rows if own_buffers else self.callbacks.rows_with_callbacks
        self.environments = Environments(self.models, self.generators, copied)
        self.replay = (OwnBuffers if own_buffers else StackedBuffers)(self.models, self.generators)
        self._parts += [self.optimizer, self.environments, self.replay]
        self.records = TrainingRecords(self.models, self.networks)
        for row in self.callbacks.rows_with_callbacks:
            self.callbacks.keep_settings(row)
        # Networks that cannot be traced are refused now, before the warm-up
        self.networks.trace(self.environments.observations)
        return totals[0][0]

    def _progress_bar(self, total_timesteps: int) -> ProgressBarCallback:
        bar = ProgressBarCallback()
        bar.init_callback(self.models[0])
        bar.on_training_start({"total_timesteps": total_timesteps}, {})
        return bar

    def _collect_rollout(self, bar: BaseCallback | None) -> None:
        for row in self.rows:
            self.callbacks.on_rollout_start(row)
        for _ in range(self._first.train_freq.frequency):  # type: ignore[union-attr]
            self._step()
            if bar is not None:
                bar.on_step()
            if not self.rows:
                return
        for row in [*self.rows]:
            self.callbacks.on_rollout_end(row)
            with self._ending(row):
                self.callbacks.check_settings(row)

    def _step(self) -> None:
        """One step of every environment."""
        actions, network_actions = self.acting.choose(self.rows, self.environments.observations)
        self.regularization.show_probabilities(self.acting.probabilities, self.callbacks.rows_with_callbacks)
        transitions = self.environments.step(self.rows, actions)
        for row, error in transitions.errors:
            self._fail(row, error)
        for row in self.rows:
            self.models[row].num_timesteps += self.models[row].n_envs
        self.regularization.after_step(self.acting.moved_prior)
        self._call_back(actions, network_actions, transitions)
        if not self.rows:
            return
        for row in transitions.eventful:
            if row in self.rows:
                self.models[row]._update_info_buffer(transitions.infos[row], transitions.dones[row])
        for row, error in store_transitions(
            self.models, self.rows, self.environments, self.replay, network_actions, transitions
        ):
            self._fail(row, error)
        self.environments.observations = transitions.observations
        if self.rows:
            self._after_step(transitions)

    def _call_back(self, actions: np.ndarray, network_actions: np.ndarray, transitions: Transitions) -> None:
        for row in [row for row in self.rows if row in self.callbacks.rows_with_callbacks]:
            observations, rewards = transitions.of_row(row)
            local_variables = {
                "actions": actions[row],
                "buffer_actions": network_actions[row],
                "new_obs": observations,
                "rewards": rewards,
                "dones": transitions.dones[row],
                "infos": transitions.infos[row],
            }
            goes_on = True
            with self._ending(row):
                goes_on = self.callbacks.on_step(row, local_variables)
            if not goes_on:
                # SB3 does not store this transition either
                self.callbacks.on_training_end(row)
                self._end(row)
            elif row in self.rows:
                # A callback may have changed the rewards
                transitions.rewards[row] = rewards

    def _after_step(self, transitions: Transitions) -> None:
        """Schedules, target networks and logs."""
        due = []
        first = self._first
        # All runs have the same num_timesteps and total_timesteps
        first._update_current_progress_remaining(first.num_timesteps, first._total_timesteps)
        progress = first._current_progress_remaining
        for row in self.rows:
            model = self.models[row]
            model._current_progress_remaining = progress
            model._n_calls += 1
            if model._n_calls % self._target_interval == 0:
                due.append(row)
            model.exploration_rate = model.exploration_schedule(progress)
        if due:
            self.networks.update_targets(due, first.tau)
        self._unlogged = set(self.rows)
        for row in self.callbacks.rows_with_callbacks.intersection(self.rows):
            self._log(row)
        for row, _ in transitions.ended:
            if row in self.rows:
                model = self.models[row]
                model._episode_num += 1
                if self._log_interval is not None and model._episode_num % self._log_interval == 0:
                    if (
                        model.logger.output_formats
                        or row in self.callbacks.rows_with_callbacks
                        or not _has_standard_dump_logs(model)
                    ):
                        self._log(row)
                    else:
                        # This dump has no outputs; it only clears the recorded values
                        self._unlogged.discard(row)
                        self.records.skip(row)
                    with self.generators[row]:
                        model.dump_logs()

    def _log(self, row: int) -> None:
        """Record what SB3 records at each step and after each rollout, here only where it is read."""
        if row in self._unlogged:
            self._unlogged.discard(row)
            self.models[row].logger.record("rollout/exploration_rate", self.models[row].exploration_rate)
        self.records.write(row)

    def _train(self) -> None:
        """SB3's ``train()``, for all runs."""
        first = self._first
        n_steps = first.gradient_steps
        if n_steps < 0:
            n_steps = first.train_freq.frequency * first.n_envs  # type: ignore[union-attr]
        if n_steps == 0:
            return
        for row in [*self.rows]:
            with self._ending(row):
                self.models[row]._update_learning_rate(self.models[row].policy.optimizer)
        if not self.rows:
            return
        for _ in range(n_steps):
            self._gradient_step()
        for row in self.rows:
            self.models[row]._n_updates += n_steps
        self.records.close()
        for row, error in self.records.check(self.rows):
            self._fail(row, error)
        for row in self.callbacks.rows_with_callbacks.intersection(self.rows):
            self.optimizer.count_steps(row)
            self.records.write(row)

    def _gradient_step(self) -> None:
        batch = self.replay.sample(self.rows)
        results = self.networks.compute_gradients(
            batch.observations, batch.next_observations, *batch.transitions, discounts=batch.discounts
        )
        self.optimizer.step(results.gradients, self._n_updates)
        self._n_updates += 1
        self.records.add(results)
        self.regularization.after_gradient_step(results.squared_td_errors)
        for row in self.rows:
            model = self.models[row]
            if model.has_gradient_step_callbacks:
                # What such callbacks find in solo training
                self.optimizer.count_steps(row)
                model.policy.set_training_mode(True)
                for name, parameter in model.q_net.named_parameters():
                    parameter.grad = results.gradients[name][row] if name in results.gradients else None
                self.callbacks.on_gradient_step(row, results.squared_td_errors[row])

    @contextmanager
    def _ending(self, row: int) -> Iterator[None]:
        """A context in which a ValueError ends one run."""
        try:
            yield
        except ValueError as error:
            self._fail(row, error)

    def _fail(self, row: int, error: ValueError) -> None:
        """Ends one run, as an error ends a solo training; the others go on."""
        self.errors[row] = error
        self._end(row)
        self._on_error(self.models[row], error)

    def _end(self, row: int) -> None:
        self.records.write(row)
        self._release(row)
        self.rows.remove(row)

    def _release_all(self) -> None:
        for row in self.rows:
            self._release(row)

    def _release(self, row: int) -> None:
        for part in self._parts:
            part.release(row)
