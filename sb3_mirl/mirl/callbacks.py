"""
When ρ and β move: the two callbacks that :meth:`sb3_mirl.MIRL.learn` attaches by itself; and :class:`CheckpointCallback`.

To change a rule, subclass the callback, write to ``self.prior`` or ``self.beta`` in place, and pass an instance to
``learn(callback=...)``: it takes the place of the default.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_mirl.common.resume.checkpoints import CheckpointWriter
from sb3_mirl.mirl.operators import update_beta, update_beta_normalized, update_prior
from sb3_mirl.mirl.policies import MIRLPolicy

if TYPE_CHECKING:
    from sb3_mirl.mirl.mirl import MIRL


def find_action_names(env: VecEnv | None, n_actions: int) -> list[str] | None:
    """
    :param env: the environment
    :param n_actions: how many actions it has
    :return: what it calls them (``get_action_meanings``), if it has a name for each
    """
    try:
        if env is None or not env.has_attr("get_action_meanings"):
            return None
        names = env.env_method("get_action_meanings", indices=[0])[0]
    except Exception:
        # It has something of that name which is not what Atari has. Names are for logs only: no reason to stop
        return None
    # A wrapper may offer fewer actions than the environment that it wraps names; SB3's logger cuts long names
    if not isinstance(names, (list, tuple)) or len({str(name)[:25] for name in names}) != n_actions:
        return None
    return [str(name) for name in names]


class MIRLCallback(BaseCallback):
    """
    An SB3 callback with one more event: :meth:`_on_gradient_step`, after each gradient step of :meth:`MIRL.train`.

    SB3 has no event inside ``train()``, where ``gradient_steps`` of them may pass between two calls of ``_on_step``.
    """

    model: "MIRL"

    def _init_callback(self) -> None:
        # th.compile wraps the policy
        if not isinstance(getattr(self.model.policy, "_orig_mod", self.model.policy), MIRLPolicy):
            raise TypeError(f"{type(self).__name__} works with MIRL, SQL and SQLm, not with {type(self.model).__name__}")

    def _on_step(self) -> bool:
        return True

    def _on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        """
        :param squared_td_error: L, the mean squared TD error of the batch before the step, [] on the model's device,
            whatever ``loss`` is
        """

    @property
    def prior(self) -> th.Tensor:
        """ρ, float64 [n_actions], to be changed in place."""
        return self.model.policy.prior

    @property
    def beta(self) -> th.Tensor:
        """β, float64 [], to be changed in place."""
        return self.model.policy.beta


class PriorUpdateCallback(MIRLCallback):
    """
    Moves ρ at each environment step: ρ ← (1 - α_ρ) ρ + α_ρ π(·|s), with the π that acting has computed.

    During the warm-up (``learning_starts``) nothing moves: π is then an artefact of the random initial network.

    :param verbose: 0: no output, 1: info messages
    """

    def _on_step(self) -> bool:
        policy = self.model.rollout_action_probabilities
        step_size = self.model.prior_step_size
        assert step_size is not None  # learn() has resolved it
        if policy is not None and step_size > 0:
            self.prior.copy_(update_prior(self.prior, policy, step_size))
        return True


class BetaUpdateCallback(MIRLCallback):
    """
    Moves β, by the model's ``beta_schedule``.

    ``"normalized"``: β ← (1 - α_β) β + α_β k / √L at each gradient step. ``"adaptive"``: β ← (1 - α_β) β + α_β / L at each
    gradient step. ``"linear"``: β = β₀ + ``beta_lr`` · i at the i-th environment transition. ``"constant"``: never.
    """

    def _on_step(self) -> bool:
        if self.model.beta_schedule == "linear":
            self.beta.add_(self._step_size() * self.training_env.num_envs).clamp_(max=self.model.beta_max)
        return True

    def _on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        model = self.model
        if model.beta_schedule == "adaptive":
            self.beta.copy_(update_beta(self.beta, squared_td_error, self._step_size(), model.beta_max))
        elif model.beta_schedule == "normalized":
            self.beta.copy_(
                update_beta_normalized(self.beta, squared_td_error, self._step_size(), model.beta_max, model.beta_scale)
            )

    def _step_size(self) -> float:
        step_size = self.model.beta_step_size
        assert step_size is not None  # learn() has resolved it
        return step_size


class CheckpointCallback(callbacks.CheckpointCallback, MIRLCallback):
    """
    SB3's ``CheckpointCallback``, with checkpoints from which :meth:`sb3_mirl.MIRL.resume` continues the run exactly.

    A checkpoint is written between two rollouts, the first time that is so after ``save_freq`` calls; and at the end of the
    training. It is there whole or not at all, it includes the replay buffer, of which only what is new is written, and the
    oldest ones are removed when a newer one is complete. If it cannot be written, because the disk is full, a warning says so
    and training goes on. ``save_path`` then holds ``<name_prefix>_<steps>_steps.zip``, as SB3's would, and what belongs to it
    (:mod:`sb3_mirl.common.resume.checkpoints`). Where a checkpoint of that name is kept, the new one's has a number more.

    :param save_freq: environment steps (of each environment, as SB3 counts) from one checkpoint to the next
    :param save_path: the folder
    :param name_prefix: of the files' names
    :param keep: number of checkpoints that are kept
    :param verbose: 0: no output, 1: where checkpoints are
    :raises ValueError: if an argument is out of range, or if ``save_path`` holds files of another run
    """

    def __init__(
        self, save_freq: int, save_path: str | os.PathLike[str], name_prefix: str = "rl_model", keep: int = 3, verbose: int = 0
    ) -> None:
        super().__init__(save_freq, os.fspath(save_path), name_prefix, save_replay_buffer=True, verbose=verbose)
        self.keep = keep
        for name, value in (("save_freq", save_freq), ("keep", keep)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self._due = False
        self._in_rollout = True
        self._saved_at = -1
        self._writer: CheckpointWriter | None = None

    def _init_callback(self) -> None:
        MIRLCallback._init_callback(self)
        self._due, self._in_rollout, self._saved_at = False, True, -1
        others = [one for one in self.model._callbacks if isinstance(one, CheckpointCallback) and one is not self]
        if any(os.path.realpath(one.save_path) == os.path.realpath(self.save_path) for one in others):
            raise ValueError(f"save_path must be another folder for each CheckpointCallback, got {self.save_path!r} twice")
        if self._writer is None or self._writer.model is not self.model or not self._writer.is_up_to_date():
            self._writer = CheckpointWriter(Path(self.save_path), self.name_prefix, self.keep, self.model)

    def _on_step(self) -> bool:
        self._due |= self.n_calls % self.save_freq == 0
        return True

    def _on_rollout_start(self) -> None:
        # Here nothing is under way: the state of the run is that of its objects
        if self._due:
            self._save()
        self._in_rollout = True

    def _on_rollout_end(self) -> None:
        self._in_rollout = False

    def _on_training_end(self) -> None:
        # Not where a callback has stopped the training: SB3 does not store the latest transition then. Nor when learn() is
        # over: rl-zoo3 calls this once more, after an exception too, in the midst of a gradient step
        if self._in_rollout or self not in self.model._gradient_step_callbacks:
            return
        if self._saved_at != self.model.num_timesteps:
            self._save()

    def _save(self) -> None:
        self._due = False
        assert self._writer is not None
        try:
            path = self._writer.write(self.model._callbacks)
        except OSError as error:
            warnings.warn(
                f"No checkpoint at step {self.model.num_timesteps}, {self.save_path} could not be written ({error}). Training "
                "goes on, and what is missing comes with the next one.",
                stacklevel=2,
            )
            return
        self._saved_at = self.model.num_timesteps
        if self.verbose >= 1:
            print(f"Checkpoint {path}")


class RolloutEvents(BaseCallback):
    """
    Tells callbacks when rollouts and training end: SB3's EventCallback (EveryNTimesteps, EvalCallback) does not tell those
    inside of it.

    :param callbacks: those inside
    """

    def __init__(self, callbacks: list[BaseCallback]) -> None:
        super().__init__()
        self.callbacks = callbacks

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def _on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        for callback in self.callbacks:
            callback.on_training_end()


def inside_of_events(callback: BaseCallback) -> list[BaseCallback]:
    """The checkpoint callbacks inside of SB3's EventCallbacks."""
    events = [one for one in flatten(callback) if isinstance(one, EventCallback)]
    inside = [one for event in events for one in flatten(event) if isinstance(one, CheckpointCallback)]
    return list(dict.fromkeys(inside))


def flatten(callback: BaseCallback) -> Iterator[BaseCallback]:
    """The callback and all that SB3's containers (CallbackList, EventCallback, EvalCallback) hold."""
    yield callback
    children: list[BaseCallback | None] = [*callback.callbacks] if isinstance(callback, CallbackList) else []
    if isinstance(callback, EventCallback):
        children = [callback.callback, getattr(callback, "callback_on_new_best", None)]
    for child in children:
        if child is not None:
            yield from flatten(child)
