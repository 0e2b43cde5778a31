"""Writes the checkpoints of a run into a folder, and removes old ones."""

import io
import os
import re
import time
import warnings
import weakref
from pathlib import Path
from typing import IO, Any, NamedTuple

import safetensors.numpy
from stable_baselines3.common.callbacks import BaseCallback

from sb3_mirl.common.files import UNFINISHED, open_regular, try_to_lock
from sb3_mirl.common.resume.classes import qualified_name
from sb3_mirl.common.resume.logs import read_log_files, recorded_values
from sb3_mirl.common.resume.manifest import (
    DamagedCheckpoint,
    file_names,
    find_manifests,
    is_foreign_model,
    read_manifest,
    sync_folder,
    write_file,
    write_manifest,
)
from sb3_mirl.common.resume.model_state import capture_model
from sb3_mirl.common.resume.replay_log import ReplayLog, buffer_state
from sb3_mirl.common.resume.run_state import (
    OBSERVATIONS,
    ArrayTable,
    ResumableModel,
    callback_attributes,
    own_environments,
    own_objects,
    random_states,
    stateful_callbacks,
    versions,
)
from sb3_mirl.common.resume.state import capture
from sb3_mirl.common.text import printable


class _Lock:
    """
    Keeps other processes out of a folder while this object exists. The lock ends with this process.

    :param file: the open and locked file
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        weakref.finalize(self, file.close)


#: Locks of this process by device and inode: all writers of a folder share one
_locks: "weakref.WeakValueDictionary[tuple[int, int], _Lock]" = weakref.WeakValueDictionary()
if hasattr(os, "register_at_fork"):
    # A forked worker process must not keep the lock after its parent has been killed
    os.register_at_fork(after_in_child=lambda: [lock.file.close() for lock in list(_locks.values())])


def _lock(folder: Path) -> _Lock:
    """
    Lock a folder.

    :raises ValueError: if another process writes to the folder
    """
    file = open(folder / ".lock", "a", opener=open_regular)
    status = os.fstat(file.fileno())
    identity = (status.st_dev, status.st_ino)
    if (locked := _locks.get(identity)) is not None:
        file.close()
        return locked
    try:
        obtained = try_to_lock(file)
    except OSError:  # a file system without locks
        obtained = True
    if not obtained:
        file.close()
        raise ValueError(
            f"save_path must be a folder that no other process writes to, got {str(folder)!r}: is its run still active?"
        )
    _locks[identity] = lock = _Lock(file)
    return lock


class _Kept(NamedTuple):
    serial: int
    name: str
    segments: set[str]

    @classmethod
    def read_from(cls, manifest: dict[str, Any]) -> "_Kept":
        return cls(manifest["serial"], manifest["name"], {segment["file"] for segment in manifest["replay"]["segments"]})


class CheckpointWriter:
    """
    Writes the checkpoints of a run into a folder. The only writer of ``model.checkpoint_serial`` during training.

    :param folder: of the checkpoints; created if it does not exist
    :param prefix: of the files' names
    :param keep: how many checkpoints to keep
    :param model: the model
    :raises ValueError: if the folder holds checkpoints of another run, or if another process writes to it
    """

    def __init__(self, folder: Path, prefix: str, keep: int, model: ResumableModel) -> None:
        self.folder, self.prefix, self.keep, self.model = folder, prefix, keep, model
        (folder / "replay").mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._own_name = re.compile(rf"{re.escape(prefix)}(_\d+)?_\d+_steps")
        # Names of the manifests that have been read
        self._known: set[str] = set()
        # A run that was resumed from an older checkpoint has not seen the newer ones
        manifests = [found for found in self._read_new_manifests() if found["serial"] <= model.checkpoint_serial]
        manifests.sort(key=lambda found: found["serial"])
        # The checkpoints of the folder from old to new
        self._kept = [_Kept.read_from(manifest) for manifest in manifests]
        newest = manifests[-1] if manifests else None
        self._n_stored: int = newest["n_stored"] if newest else 0
        self._calls: int = newest["calls"] if newest else 0
        self._replay = ReplayLog(folder / "replay", prefix)
        self._replay.begin(model.replay_buffer, newest["replay"] if newest else None)  # type: ignore[arg-type]

    def begin_training(self) -> None:
        """Called when a training begins."""
        if self.model.optimize_memory_usage or self.model.resumed_from is not None:
            # SB3 or end_trajectory() may have ended the episode of the latest transition
            self._replay.n_changed = 1

    def _read_new_manifests(self) -> list[dict[str, Any]]:
        """
        The manifests of this run that have not been read before.

        :raises ValueError: if there are manifests of another run, or if a new run finds unreadable ones
        """
        paths = [path for path in find_manifests(self.folder) if path.stem not in self._known]
        own, foreign, unreadable = [], [], []
        for path in paths:
            try:
                manifest = read_manifest(path)
            except DamagedCheckpoint as error:
                if self._own_name.fullmatch(path.stem):
                    unreadable.append(str(error))
                continue
            if manifest["run"] == self.model.run_id:
                own.append(manifest)
            else:
                foreign.append(path)
        algorithm = type(self.model).__name__
        got, run = f"got {str(self.folder)!r}", f"{algorithm} run {self.model.run_id[:8]}"
        is_new_run = self.model.checkpoint_serial == 0
        if foreign:
            hint = f"; {algorithm}.resume(folder, env) continues that run" if is_new_run else ""
            raise ValueError(
                f"save_path must be a folder without checkpoints of another run, {got}, in which those of another run lie "
                f"({file_names(foreign)}{hint}). For this {run}, remove these files, or choose another folder."
            )
        if unreadable and is_new_run:  # otherwise resume() has warned of them
            raise ValueError(
                f"save_path must be a folder in which each {self.prefix}_*_steps.json is of this {run}, {got}, in which "
                f"{printable('; '.join(unreadable))}. Remove these files, or choose another folder."
            )
        self._known.update(path.stem for path in paths)
        return own

    def is_up_to_date(self) -> bool:
        """Whether no other callback has written to the folder since this writer did."""
        newest = self._kept[-1].serial if self._kept else -1
        return all(manifest["serial"] <= newest for manifest in self._read_new_manifests())

    def write(self, callbacks: list[BaseCallback]) -> Path:
        """
        Write a checkpoint of the model, which must be between two rollouts, and then remove the oldest ones.

        :param callbacks: those whose state belongs to the run
        :return: path of its manifest
        :raises OSError: if it cannot be written; then writer and model are unchanged
        :raises ValueError: if another run has written to the folder in the meantime
        """
        model, buffer = self.model, self.model.replay_buffer
        assert buffer is not None
        self._read_new_manifests()
        name = self._free_name()
        # Two counts, because a subclass may override the method that increases one of them
        n_new = max(model.n_stored - self._n_stored, model._n_calls - self._calls)
        replay = self._replay.write(buffer, n_new)
        arrays = ArrayTable()
        state = self._capture(callbacks, arrays)
        zipped = io.BytesIO()
        model.save(zipped)
        # The zip file last: a zip file alone would count as SB3's
        contents = {f"{name}.safetensors": safetensors.numpy.save(arrays.arrays), f"{name}.zip": zipped.getvalue()}
        files = {file: write_file(self.folder / file, content) for file, content in contents.items()}
        sync_folder(self.folder / "replay")
        sync_folder(self.folder)
        fields = {
            "algorithm": model.algorithm,
            "run": model.run_id,
            "serial": model.checkpoint_serial + 1,
            "name": name,
            "num_timesteps": model.num_timesteps,
            "total_timesteps": model._total_timesteps,
            "num_timesteps_at_start": model._num_timesteps_at_start,
            "seconds": (time.time_ns() - model.start_time) / 1e9,
            "log_folder": os.path.basename(model.logger.get_dir() or "") or None,
            "n_stored": model.n_stored,
            "calls": model._n_calls,
            "reset_num_timesteps": model.resets_num_timesteps,
            "n_envs": model.n_envs,
            "versions": versions(),
            "files": files,
            "replay": replay,
            "state": state,
        }
        path = self.folder / f"{name}.json"
        manifest = write_manifest(path, fields)
        sync_folder(self.folder)

        self._replay.commit(buffer, replay)
        self._n_stored, self._calls = model.n_stored, model._n_calls
        model.checkpoint_serial += 1
        self._known.add(name)
        self._kept.append(_Kept.read_from(manifest))
        try:
            self._remove_old_files()
        except OSError as error:
            warnings.warn(f"Old checkpoint files could not be removed from {self.folder} ({error})", stacklevel=3)
        return path

    def _capture(self, callbacks: list[BaseCallback], arrays: ArrayTable) -> dict[str, Any]:
        """The state of all that is not in the model file; its arrays go to ``arrays``."""
        model, own = self.model, own_objects(self.model)
        assert model.env is not None and model.replay_buffer is not None
        own_of_callbacks = own | own_environments(model)
        # After load(), after set_env() and in joint training, the model's action space is not the environment's object
        has_own_space = model.action_space is not model.env.action_space
        own_space = {"action_space": arrays.add(capture([model.action_space]))} if has_own_space else {}
        return {
            **own_space,
            "env": arrays.add(capture(model.env, own)),
            "model": arrays.add(capture_model(model)),
            "observations": arrays.add(capture({name: getattr(model, name) for name in OBSERVATIONS})),
            "replay": arrays.add(capture(buffer_state(model.replay_buffer))),
            "random": arrays.add(capture(random_states())),
            "logger": arrays.add(capture(recorded_values(model.logger))),
            "log_files": arrays.add(capture(read_log_files(model.logger))),
            "callbacks": [
                [qualified_name(type(callback)), arrays.add(capture(callback_attributes(callback), own_of_callbacks))]
                for callback in stateful_callbacks(callbacks)
            ],
        }

    def _free_name(self) -> str:
        """``rl_model_5000_steps``, with the serial number added if that name is taken: ``learn()`` counts from 0 again."""
        model = self.model
        name = f"{self.prefix}_{model.num_timesteps}_steps"
        if is_foreign_model(self.folder / f"{name}.zip") or any(name == kept.name for kept in self._kept):
            return f"{self.prefix}_{model.checkpoint_serial + 1}_{model.num_timesteps}_steps"
        return name

    def _remove_old_files(self) -> None:
        """Remove all but the newest checkpoints, and files that belong to no checkpoint."""
        self._kept = self._kept[-self.keep :]
        names = {kept.name for kept in self._kept}
        segments = set().union(*(kept.segments for kept in self._kept))
        own_segment = re.compile(rf"{re.escape(self.prefix)}_[0-9a-f]{{8}}_\d+_\d+")
        # Unfinished checkpoints have no manifest
        for path in [*find_manifests(self.folder), *self.folder.glob("*_steps.safetensors")]:
            if self._own_name.fullmatch(path.stem) and path.stem not in names:
                for extension in (".json", ".zip", ".safetensors"):
                    path.with_suffix(extension).unlink(missing_ok=True)
        for path in (self.folder / "replay").iterdir():
            if path.name not in segments and own_segment.fullmatch(path.stem):
                path.unlink()
        for folder in (self.folder, self.folder / "replay"):
            for path in folder.glob(f".{self.prefix}_*{UNFINISHED}"):
                path.unlink()
