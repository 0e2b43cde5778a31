"""Runs of DQN that can be interrupted: events for callbacks, ``learn()`` and ``resume()``."""

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_mirl.common.events import GradientStepCallback, RolloutEvents, callbacks_inside_events, flatten_callbacks
from sb3_mirl.common.inputs import check_integer, find_action_names
from sb3_mirl.common.learning_curve import add_return, new_curve
from sb3_mirl.common.resume.callback import CheckpointCallback, DueCheckpoints
from sb3_mirl.common.resume.manifest import new_run_id
from sb3_mirl.common.resume.model_state import ModelSnapshot
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.common.resume.run_state import ResumableModel, missing_names

SelfDQN = TypeVar("SelfDQN", bound="ResumableDQN")

# Attributes that belong to one call of learn()
_OF_ONE_LEARN = (
    *("_gradient_step_callbacks", "active_callbacks", "_num_timesteps_at_start", "_total_timesteps"),
    "resets_num_timesteps",
)


class ResumableDQN(ResumableModel):
    """SB3's DQN with checkpoints from which a run goes on exactly, and an event after each gradient step."""

    #: Added to learn()'s callbacks unless the user passes one of the same class
    default_callbacks: ClassVar[tuple[type[GradientStepCallback], ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Names of the actions, if an environment of :meth:`learn` has any
        self.action_names: list[str] | None = None
        #: Returns of the episodes since the counters began, see learning_curve.py
        self.learning_curve: dict[str, Any] = new_curve()
        # ResumableModel says who may write these
        self.active_callbacks: list[BaseCallback] = []
        self.run_id, self.checkpoint_serial, self.n_stored = new_run_id(), 0, 0
        self.resets_num_timesteps = True
        #: Of NumPy's global generator after the construction or the latest :meth:`learn`. Joint training goes on from it
        self.random_state = np.random.get_state(legacy=False)
        self.resumed_from: Checkpoint | None = None
        self._gradient_step_callbacks: list[GradientStepCallback] = []

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if isinstance(callback, list):
            callback = CallbackList(callback)
        if not isinstance(callback, BaseCallback):
            callback = ConvertCallback(callback)  # type: ignore[arg-type]
        given = [item for item in flatten_callbacks(callback) if isinstance(item, GradientStepCallback)]
        defaults: list[GradientStepCallback] = []
        for kind in self.default_callbacks:
            count = sum(isinstance(item, kind) for item in given)
            if count > 1:
                raise ValueError(f"callback must hold at most one {kind.__name__}, got {count}")
            if count == 0:
                defaults.append(kind())
        continues = self.resumed_from is not None and not self.active_callbacks
        # In the order of the defaults, whichever of them the user passes
        self._gradient_step_callbacks = sorted([*defaults, *given], key=self._place_of)
        self.active_callbacks = [*defaults, *flatten_callbacks(callback)]
        checkpoints = [item for item in self.active_callbacks if isinstance(item, CheckpointCallback)]
        due = [DueCheckpoints(checkpoints)] if checkpoints else []
        inside = callbacks_inside_events(callback, CheckpointCallback)
        events = [RolloutEvents(list(inside))] if inside else []
        # Last: nothing after it draws random numbers before the first step
        resumption = [_Resumption(self)] if continues else []
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        self.action_names = find_action_names(self.env, n_actions) or self.action_names
        return super()._init_callback(CallbackList([*due, *defaults, callback, *events, *resumption]), progress_bar)

    def _place_of(self, callback: GradientStepCallback) -> int:
        kinds = self.default_callbacks
        return next((place for place, kind in enumerate(kinds) if isinstance(callback, kind)), len(kinds))

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(total_timesteps, *args, **kwargs)
        if self.num_timesteps == 0:
            self.learning_curve = new_curve()
        return result

    def _store_transition(self, *args: Any, **kwargs: Any) -> None:
        super()._store_transition(*args, **kwargs)
        self.n_stored += 1

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        for info in infos:
            if (episode := info.get("episode")) is not None:
                add_return(self.learning_curve, episode["r"])

    def _after_gradient_step(self, squared_td_error: th.Tensor) -> None:
        """
        Trigger the event.

        :param squared_td_error: the mean squared TD error of the batch before the step, []
        """
        for callback in self._gradient_step_callbacks:
            callback.on_gradient_step(squared_td_error)
        # A callback may have called predict()
        if not self.policy.training:
            self.policy.set_training_mode(True)

    def learn(
        self: SelfDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDQN:
        """SB3's ``learn()``. After :meth:`resume` it continues the interrupted call."""
        with self.learning(total_timesteps, reset_num_timesteps) as (total_timesteps, reset_num_timesteps):
            return super().learn(
                total_timesteps=total_timesteps,
                callback=callback,
                log_interval=log_interval,
                tb_log_name=tb_log_name or self.algorithm,
                reset_num_timesteps=reset_num_timesteps,
                progress_bar=progress_bar,
            )

    @contextmanager
    def learning(self, total_timesteps: int, reset_num_timesteps: bool = True) -> Iterator[tuple[int, bool]]:
        """
        The context of a training. After :meth:`resume` it is that of the interrupted one.

        :param total_timesteps: of :meth:`learn`
        :param reset_num_timesteps: of :meth:`learn`
        :return: both, as SB3's ``_setup_learn()`` needs them
        """
        total_timesteps = check_integer("total_timesteps", total_timesteps, 0)
        # A callback may call learn() inside of another learn(), which then continues with its own attributes
        outer = {name: getattr(self, name) for name in _OF_ONE_LEARN} if self.active_callbacks else {}
        self.resets_num_timesteps = reset_num_timesteps
        if self.resumed_from is not None and not outer:
            self.resumed_from.set_logger(self)
            if reset_num_timesteps or self.resumed_from.continues_counting:  # continue the interrupted call
                self.resets_num_timesteps = self.resumed_from.manifest["reset_num_timesteps"]
                total_timesteps += self._num_timesteps_at_start - self.num_timesteps
                reset_num_timesteps = False
        try:
            yield total_timesteps, reset_num_timesteps
        finally:
            self._gradient_step_callbacks, self.active_callbacks = [], []
            self.random_state = np.random.get_state(legacy=False)
            self.__dict__.update(outer)

    def take_callbacks(
        self, callback: CallbackList, kinds: tuple[type[GradientStepCallback], ...]
    ) -> list[GradientStepCallback]:
        """
        Take out callbacks that :meth:`learn` has added, for a training that does their work in another way.

        :param callback: that ``_setup_learn()`` returned; the callbacks are removed from it
        :param kinds: their very classes
        :return: the callbacks
        """
        taken = [item for item in callback.callbacks if type(item) in kinds]
        callback.callbacks = [item for item in callback.callbacks if item not in taken]
        self._gradient_step_callbacks = [item for item in self._gradient_step_callbacks if item not in taken]
        return taken  # type: ignore[return-value]

    @property
    def has_gradient_step_callbacks(self) -> bool:
        """Whether :meth:`_after_gradient_step` has anybody to call."""
        return bool(self._gradient_step_callbacks)

    @classmethod
    def resume(
        cls: type[SelfDQN],
        folder: str | os.PathLike[str],
        env: GymEnv | str,
        device: th.device | str = "auto",
        **kwargs: Any,
    ) -> SelfDQN:
        """
        Load the newest complete checkpoint that a :class:`~sb3_mirl.CheckpointCallback` wrote.

        Then call :meth:`learn` with the arguments of the interrupted call, which it continues: on a CPU the result is
        bit-exact. If that call was complete or counted from 0, ``learn(n, reset_num_timesteps=False)`` trains n more steps, as
        in SB3. Logs and monitor files are reset to their content at the checkpoint; set your own logger again. Changes that
        callbacks make to environment, policy, optimiser or learning rate when training starts are undone.

        If the state of the environment cannot be captured (Box2D, for example), new episodes begin, with a warning. The model
        file is unpickled, as by SB3's ``load``: resume only your own files.

        :param folder: of the checkpoints
        :param env: created like that of the interrupted run, with the same wrappers
        :param device: as in :meth:`load`
        :param kwargs: as in :meth:`load`: attributes to be changed
        :return: the model
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if all checkpoints are damaged, or if ``env`` differs from that of the interrupted run
        """
        return cls.resume_checkpoint(Checkpoint.newest(folder), env, device, **kwargs)

    @classmethod
    def resume_checkpoint(
        cls: type[SelfDQN], checkpoint: Checkpoint, env: GymEnv | str, device: th.device | str = "auto", **kwargs: Any
    ) -> SelfDQN:
        """:meth:`resume` for a checkpoint that has been read already."""
        env = maybe_make_env(env, verbose=0)
        model = cls.load(checkpoint.model_file, cls._wrap_env(env, verbose=0), device, force_reset=False, **kwargs)
        checkpoint.restore_replay(model)
        checkpoint.restore_env(model)
        checkpoint.restore_model(model, {*kwargs, *(kwargs.get("custom_objects") or ())})
        model.resumed_from = checkpoint
        return model

    def get_parameters(self) -> dict[str, dict]:
        """As in SB3, but views of larger tensors (as in joint training) are copied: a file would hold the larger tensor."""
        return _copy_views(super().get_parameters())

    def __getstate__(self) -> dict[str, Any]:
        # Copies, such as those of a callback during learn(), have no callbacks and are runs of their own
        own = {"resumed_from": None, "run_id": new_run_id(), "checkpoint_serial": 0}
        return {**self.__dict__, "_gradient_step_callbacks": [], "active_callbacks": [], **own}

    def _excluded_save_params(self) -> list[str]:
        own = ["_gradient_step_callbacks", "active_callbacks", "run_id", "checkpoint_serial", "resumed_from", "random_state"]
        return [*super()._excluded_save_params(), *own]


def _copy_views(value: Any) -> Any:
    if isinstance(value, dict):
        # A copy: an optimiser's state_dict() holds dictionaries of its state. Its type may have attributes of its own
        copied = copy.copy(value)
        copied.update({key: _copy_views(item) for key, item in value.items()})
        return copied
    is_part = isinstance(value, th.Tensor) and value.untyped_storage().nbytes() > value.numel() * value.element_size()
    return value.clone() if is_part else value


class _Resumption(BaseCallback):
    """Restores the state of the interrupted run when training begins."""

    model: ResumableDQN

    def __init__(self, model: ResumableDQN) -> None:
        super().__init__()
        checkpoint = model.resumed_from
        assert checkpoint is not None
        # The snapshot leaves out what the checkpoint lacks, because callbacks may set it
        complete = {"with_rest": not checkpoint.model_is_incomplete, "with_env": not checkpoint.new_episodes}
        self._snapshot: ModelSnapshot | None = ModelSnapshot(model, **complete)

    def _on_training_start(self) -> None:
        checkpoint, self.model.resumed_from = self.model.resumed_from, None
        snapshot, self._snapshot = self._snapshot, None
        assert checkpoint is not None and snapshot is not None
        # Undo what callbacks did at the start of training: the interrupted training had started before
        if missing := snapshot.put_back(self.model):
            names = missing_names(missing)
            warnings.warn(f"If callbacks changed these when training started, they remain changed: {names}", stacklevel=2)
        checkpoint.restore_run(self.model, self.model.active_callbacks)

    def _on_step(self) -> bool:
        return True
