"""When checkpoints are written: :class:`CheckpointCallback`."""

import os
import warnings
from pathlib import Path

from stable_baselines3.common import callbacks

from sb3_mirl.common.resume.run_state import ResumableModel
from sb3_mirl.common.resume.writer import CheckpointWriter


class CheckpointCallback(callbacks.CheckpointCallback):
    """
    SB3's ``CheckpointCallback``, with checkpoints from which ``resume()`` continues the run exactly.

    A checkpoint is written between two rollouts, as soon as ``save_freq`` calls have passed, and at the end of the training.
    It is written atomically. It includes the replay buffer; each checkpoint writes only the new part of it. The oldest
    checkpoints are removed when a newer one is complete. If a checkpoint cannot be written, for example because the disk is
    full, the callback warns and training continues.

    The files are described in :mod:`sb3_mirl.common.resume`; the model is ``<name_prefix>_<steps>_steps.zip``, as SB3's.

    :param save_freq: environment steps (of each environment, as SB3 counts) between checkpoints
    :param save_path: the folder
    :param name_prefix: of the files' names
    :param keep: number of checkpoints to keep
    :param verbose: 0: no output, 1: print the path of each checkpoint
    :raises ValueError: if an argument is out of range, or if ``save_path`` holds files of another run
    """

    model: ResumableModel

    def __init__(
        self, save_freq: int, save_path: str | os.PathLike[str], name_prefix: str = "rl_model", keep: int = 3, verbose: int = 0
    ) -> None:
        super().__init__(save_freq, os.fspath(save_path), name_prefix, save_replay_buffer=True, verbose=verbose)
        self.keep = keep
        for name, value in (("save_freq", save_freq), ("keep", keep)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if any(separator in name_prefix for separator in (os.sep, os.altsep) if separator):
            raise ValueError(f"name_prefix must be a part of a file name, without {os.sep}, got {name_prefix!r}")
        self._due = False
        self._in_rollout = True
        self._saved_at = -1
        self._written: Path | None = None
        self._writer: CheckpointWriter | None = None

    def _init_callback(self) -> None:
        if not isinstance(self.model, ResumableModel):
            raise TypeError(
                f"sb3_mirl.CheckpointCallback works with the algorithms of sb3_mirl, not with {type(self.model).__name__}: "
                "use stable_baselines3's CheckpointCallback"
            )
        self._due, self._in_rollout, self._saved_at = False, True, -1
        others = {
            item.save_path for item in self.model.active_callbacks if isinstance(item, CheckpointCallback) and item != self
        }
        if os.path.realpath(self.save_path) in map(os.path.realpath, others):
            raise ValueError(f"save_path must be another folder for each CheckpointCallback, got {self.save_path!r} twice")
        if self._writer is None or self._writer.model is not self.model or not self._writer.is_up_to_date():
            self._writer = CheckpointWriter(Path(self.save_path), self.name_prefix, self.keep, self.model)
        self._writer.begin_training()

    def _on_step(self) -> bool:
        self._due |= self.n_calls % self.save_freq == 0
        return True

    def write_if_due(self) -> None:
        """
        Write a checkpoint if ``save_freq`` calls have passed. It must be called between two rollouts, when the run's objects
        hold its whole state and local variables hold none.
        """
        if self._due:
            self._save()

    def _on_rollout_start(self) -> None:
        # DueCheckpoints has done this already, except for callbacks that it does not know because another callback calls them
        self.write_if_due()
        self._in_rollout = True
        self._announce()

    def _on_rollout_end(self) -> None:
        self._in_rollout = False

    def _on_training_end(self) -> None:
        # If a callback has stopped the training within a rollout, SB3 has not stored the latest transition: no checkpoint.
        # None outside of learn() either: rl-zoo3 calls this method again, even after an exception within a gradient step
        if self._in_rollout or self not in self.model.active_callbacks:
            return
        if self._saved_at != self.model.num_timesteps:
            self._save()
            self._announce()

    def _save(self) -> None:
        self._due = False
        assert self._writer is not None
        try:
            path = self._writer.write(self.model.active_callbacks)
        except OSError as error:
            warnings.warn(
                f"No checkpoint at step {self.model.num_timesteps}, {self.save_path} could not be written ({error}). Training "
                "goes on; the next checkpoint includes what is missing.",
                stacklevel=2,
            )
            return
        self._saved_at, self._written = self.model.num_timesteps, path

    def _announce(self) -> None:
        """Print what was written, as a part of this callback's own event: other callbacks may label its output."""
        if self._written is not None and self.verbose >= 1:
            print(f"Checkpoint {self._written}")
        self._written = None


class DueCheckpoints(callbacks.BaseCallback):
    """
    Writes due checkpoints before ``_on_rollout_start()`` of any other callback: the resumed run begins with this rollout and
    calls all of them.

    :param checkpoint_callbacks: all checkpoint callbacks of the training
    """

    def __init__(self, checkpoint_callbacks: list[CheckpointCallback]) -> None:
        super().__init__()
        self.checkpoint_callbacks = checkpoint_callbacks

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        for callback in self.checkpoint_callbacks:
            callback.write_if_due()
