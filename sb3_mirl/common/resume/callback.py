"""The callback that writes checkpoints."""

import os
import warnings
from pathlib import Path

from stable_baselines3.common import callbacks

from sb3_mirl.common.resume.checkpoints import CheckpointWriter


class CheckpointCallback(callbacks.CheckpointCallback):
    """
    SB3's ``CheckpointCallback``, with checkpoints from which :meth:`sb3_mirl.BaseDQN.resume` continues the run exactly.

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
        super()._init_callback()
        self._due, self._in_rollout, self._saved_at = False, True, -1
        others = [item for item in self.model.active_callbacks if isinstance(item, CheckpointCallback) and item is not self]
        if any(os.path.realpath(item.save_path) == os.path.realpath(self.save_path) for item in others):
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
        if self._in_rollout or self not in self.model.active_callbacks:
            return
        if self._saved_at != self.model.num_timesteps:
            self._save()

    def _save(self) -> None:
        self._due = False
        assert self._writer is not None
        try:
            path = self._writer.write(self.model.active_callbacks)
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
