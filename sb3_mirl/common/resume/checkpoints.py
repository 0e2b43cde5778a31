"""
Checkpoints on disk: what they hold, how they are written so that none is ever half there, and how they are read again.

A folder of checkpoints holds, for each of them,

- ``rl_model_5000_steps.zip``: the model, as ``model.save()`` writes it. Where an earlier ``learn()`` has left a checkpoint of
  that name, a number is added: ``rl_model_7_5000_steps.zip``;
- ``rl_model_5000_steps.safetensors``: the arrays of the run's state (environments, random generators, callbacks, logs);
- ``rl_model_5000_steps.json``: the rest of that state, and sizes and SHA-256 sums of all files that belong to the checkpoint.
  It is written last: without it there is no checkpoint;

and, for all of them together, ``replay/``: the replay buffer as a sequence of files, to which each checkpoint adds what was
stored since the one before. A file that lies there never changes.
"""

import errno
import hashlib
import io
import json
import os
import platform
import random
import re
import time
import uuid
import warnings
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import safetensors.numpy
import stable_baselines3
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, ProgressBarCallback
from stable_baselines3.common.logger import CSVOutputFormat, TensorBoardOutputFormat, configure
from stable_baselines3.her import HerReplayBuffer

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer, Planes, Stacks, TensorOnDevice
from sb3_mirl.common.files import UNFINISHED, write_whole
from sb3_mirl.common.resume.state import State, StateMismatch, capture, replace_content, restore
from sb3_mirl.common.text import printable

if TYPE_CHECKING:
    from sb3_mirl.mirl.mirl import MIRL

FORMAT = "sb3_mirl checkpoint"
FORMAT_VERSION = 2
#: Bytes of a file of replayed transitions: more are written as several files, so that memory is needed for one only
SEGMENT_BYTES = 16_000_000
# Callbacks that may be missing when a run is resumed
_DISPENSABLE = ("sb3_mirl.mirl.callbacks.CheckpointCallback",)
#: Those which a checkpoint leaves out
_STATELESS = (CallbackList, ProgressBarCallback)
# Of callbacks: set by SB3 when training starts, or chosen by the user anew
_NOT_STATE = re.compile(r"model|locals|globals|parent|callbacks?|callback_on_new_best|.*(path|dir|folder)")


class DamagedCheckpoint(ValueError):
    """A checkpoint is not as it was written."""


# ---------------------------------------------------------------------------------------------------------------- files


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Writes a file whole or not at all. Returns its entry in the manifest."""
    write_whole(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sync_folder(folder: Path) -> None:
    """Makes renamed files survive a power failure."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


#: Open files by device and inode: closing any of them would end the lock that the process has
_locks: "weakref.WeakValueDictionary[tuple[int, int], IO[str]]" = weakref.WeakValueDictionary()


def _lock(folder: Path) -> IO[str]:
    """
    Keeps other processes out of a folder for as long as the returned file is open. A killed process keeps nobody out.

    :raises ValueError: if another process writes there
    """
    path = folder / ".lock"
    if path.exists() and not path.is_file():  # a pipe would never open
        raise ValueError(f"save_path must be a folder in which .lock is a file, got {str(folder)!r}: remove {path.name}")
    path.touch()
    identity = (path.stat().st_dev, path.stat().st_ino)
    if (locked := _locks.get(identity)) is not None:
        return locked
    file = open(path, "a")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                raise ValueError(
                    f"save_path must be a folder that no other process writes to, got {str(folder)!r}: does its run go on?"
                ) from error
            # else a file system without locks
    if os.name == "posix":
        _locks[identity] = file
    return file


def _check_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    try:
        with open(folder / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                raise DamagedCheckpoint(f"{name} has {size} bytes instead of {entry['bytes']}")
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from error
    if digest.hexdigest() != entry["sha256"]:
        raise DamagedCheckpoint(f"{name} is not what was written: its SHA-256 sum differs")


def _checksum(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path.name} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path.name} is not what was written: not a manifest")
    if manifest.get("sha256") != _checksum(manifest):
        raise DamagedCheckpoint(f"{path.name} is not what was written: its SHA-256 sum differs")
    if manifest.get("version") != FORMAT_VERSION:
        raise DamagedCheckpoint(f"{path.name} has version {manifest.get('version')!r}, this package reads {FORMAT_VERSION}")
    types = {"run": str, "serial": int, "name": str, "calls": int, "files": dict, "replay": dict, "state": dict}
    if wrong := [key for key, cls in types.items() if not isinstance(manifest.get(key), cls)]:
        raise DamagedCheckpoint(f"{path.name} is not what was written: {', '.join(wrong)}")
    if manifest["name"] != path.stem:
        raise DamagedCheckpoint(f"{path.name} is a copy of {manifest['name']}.json")
    return manifest


def _manifests(folder: Path) -> list[Path]:
    """Of a folder, and not of those inside of it."""
    return sorted(path for path in folder.glob("*_steps.json") if path.is_file())


def _listed(paths: Iterable[Path]) -> str:
    names = [printable(path.name) for path in paths]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -------------------------------------------------------------------------------------------------------- replay buffers


class ReplayLog:
    """
    A replay buffer as a sequence of files ("segments"), each with the transitions of a range of steps.

    Steps are counted from the buffer's beginning; that of number n is in slot n modulo the buffer's size.

    :param folder: of the files
    :param prefix: of their names
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.count = 0
        #: Steps before the latest one of the log that have changed since they were written
        self.n_changed = 0
        self.segments: list[dict[str, Any]] = []
        self._buffer: ReplayBuffer | None = None
        # Images that are in files which no complete checkpoint has yet, and the numbers of these files
        self._images: list[tuple[np.ndarray, int]] = []

    def begin(self, buffer: ReplayBuffer, replay: dict[str, Any] | None) -> None:
        """
        Begins to log a buffer, and warns if its class is not known here.

        :param buffer: what is to be logged
        :param replay: the entry of the manifest whose content ``buffer`` holds, and perhaps more; None: of none
        """
        if type(buffer) not in _KNOWN_BUFFERS:
            warnings.warn(
                f"Of a {type(buffer).__name__}, checkpoints hold the arrays with a row for each slot, and nothing else that "
                "it adds to SB3's replay buffers",
                stacklevel=4,
            )
        self._buffer = buffer
        self.count, self.segments = (replay["count"], replay["segments"]) if replay else (0, [])

    def write(self, buffer: ReplayBuffer, n_new: int) -> dict[str, Any]:
        """
        Writes what is new. Nothing of this object changes before :meth:`commit`.

        :param buffer: the replay buffer
        :param n_new: steps stored since the last :meth:`commit`
        :return: entry for the manifest
        """
        size = buffer.buffer_size
        count, segments = self.count + n_new, self.segments
        if buffer is not self._buffer or count % size != buffer.pos or (count >= size) != bool(buffer.full):
            # Not the buffer that was logged so far: begin anew
            count, segments = buffer.pos + size * bool(buffer.full), []
            first = count - (size if buffer.full else buffer.pos)
        else:
            first = max(self.count - self.n_changed, count - size, 0)
        segments = [segment for segment in segments if segment["last"] > count - size]
        new: list[dict[str, Any]] = []
        self._images = []
        for begin, end in _ranges(first, count, _bytes_of_a_step(buffer)):
            arrays = _slots(buffer, _slot_numbers(buffer, begin, end))
            if isinstance(buffer, FrameReplayBuffer):
                # Each file has the images of its own stacks; the last one also those whose file is not needed otherwise
                among = _images(arrays) if end < count else None
                images = buffer.planes.unsaved([_number(segment) for segment in segments], among)
                for others, _ in self._images:
                    images = np.setdiff1d(images, others, assume_unique=True)
                arrays |= {"images": buffer.planes.images[images], "image_numbers": images}
            content = safetensors.numpy.save(arrays)
            # By its content: another buffer's file of the same steps belongs to another checkpoint
            name = f"{self.prefix}_{hashlib.sha256(content).hexdigest()[:8]}_{begin}_{end}.safetensors"
            entry = _write(self.folder / name, content)
            new.append({"file": name, "first": begin, "last": end, **entry})
            if isinstance(buffer, FrameReplayBuffer):
                self._images.append((images, _number(entry)))
        return {"size": size, "count": count, "segments": [*segments, *new]}

    def commit(self, buffer: ReplayBuffer, replay: dict[str, Any]) -> None:
        """The checkpoint that this entry belongs to is complete."""
        self.count, self.segments, self._buffer, self.n_changed = replay["count"], replay["segments"], buffer, 0
        if isinstance(buffer, FrameReplayBuffer):
            for images, file in self._images:
                buffer.planes.saved_in[images] = file


def _number(segment: dict[str, Any]) -> int:
    """Of a file, by its content: several folders may hold the same buffer in other files."""
    return int(segment["sha256"][:15], 16)


_KNOWN_BUFFERS = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, FrameReplayBuffer, DeviceReplayBuffer)


def _ranges(first: int, last: int, bytes_of_a_step: int) -> Iterator[tuple[int, int]]:
    steps = max(1, SEGMENT_BYTES // bytes_of_a_step)
    for begin in range(first, last, steps):
        yield begin, min(begin + steps, last)


def _slot_arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, Any]]:
    """All arrays of a buffer that have a row for each slot, with their names."""
    for name, value in vars(buffer).items():
        for key, array in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(array, Stacks):
                array = array.index
            elif isinstance(array, TensorOnDevice):
                array = array.tensor
            if (
                isinstance(array, (np.ndarray, th.Tensor))
                and array.shape[:1] == (buffer.buffer_size,)
                and name not in _HINDSIGHT
            ):
                yield name if key is None else f"{name}/{key}", array


#: Arrays of HerReplayBuffer that it changes at other slots than the one that it stores to
_HINDSIGHT = ("ep_start", "ep_length", "infos")


def _slots(buffer: ReplayBuffer, slots: np.ndarray) -> dict[str, np.ndarray]:
    rows = {name: array[slots] for name, array in _slot_arrays(buffer)}
    return {name: row.cpu().numpy() if isinstance(row, th.Tensor) else row for name, row in rows.items()}


def _slot_numbers(buffer: ReplayBuffer, first: int, last: int) -> np.ndarray:
    # With optimize_memory_usage, the slot thereafter has the next observation
    return np.arange(first, last + bool(getattr(buffer, "optimize_memory_usage", False))) % buffer.buffer_size


def _images(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([arrays["observations"].ravel(), arrays["next_observations"].ravel()]))


def _bytes_of_a_step(buffer: ReplayBuffer) -> int:
    size = sum(array[0].nbytes for _, array in _slot_arrays(buffer))
    return size + (buffer.planes.images[0].nbytes * buffer.n_envs if isinstance(buffer, FrameReplayBuffer) else 0)


def _rest_of_replay(buffer: ReplayBuffer) -> dict[str, Any]:
    """What is not in the segments."""
    rest: dict[str, Any] = {"pos": buffer.pos, "full": buffer.full}
    if isinstance(buffer, HerReplayBuffer):
        names = ("ep_start", "ep_length", "_current_ep_start", *(["infos"] if buffer.copy_info_dict else []))
        rest |= {name: vars(buffer)[name] for name in names}
    if isinstance(buffer, FrameReplayBuffer):
        rest["frame_channels"] = buffer.planes.frame_channels
    return rest


def _fill_replay(buffer: ReplayBuffer, folder: Path, replay: dict[str, Any], rest: State) -> None:
    if buffer.buffer_size != replay["size"]:
        raise ValueError(f"buffer_size must be as it was ({replay['size']} slots), got {buffer.buffer_size} slots")
    targets = dict(_slot_arrays(buffer))
    planes: Planes | None = buffer.planes if isinstance(buffer, FrameReplayBuffer) else None
    for segment in replay["segments"]:
        arrays = safetensors.numpy.load_file(folder / segment["file"])
        if planes is not None:
            planes.load(arrays.pop("image_numbers"), arrays.pop("images"), _number(segment))
        slots = _slot_numbers(buffer, segment["first"], segment["last"])
        for name, rows in arrays.items():
            target = targets[name]
            target[slots] = th.as_tensor(rows, device=target.device) if isinstance(target, th.Tensor) else rows
    values = restore(_rest_of_replay(buffer), rest)
    _warn_of_missing("The replay buffer", rest)
    if planes is not None:
        planes.frame_channels = values.pop("frame_channels")
    vars(buffer).update(values)
    if planes is not None:
        stacks: tuple[Any, Any] = buffer.observations, buffer.next_observations
        observations, next_observations = (one.index for one in stacks)
        used = np.unique(np.concatenate([observations, next_observations], axis=None))
        if not planes.saved_in[used[used > 0]].all():
            raise DamagedCheckpoint("images of the replay buffer are in none of its files")
        planes.finish_loading([observations, next_observations], next_observations[buffer.pos - 1])


def end_trajectory(buffer: ReplayBuffer) -> None:
    """Marks the latest transitions as the last ones of their episodes, cut off there."""
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()
    elif buffer.pos > 0 or buffer.full:
        buffer.dones[buffer.pos - 1] = 1
        if buffer.handle_timeout_termination:
            buffer.timeouts[buffer.pos - 1] = 1


# ------------------------------------------------------------------------------------------------------ state of the run


def _random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    if states["cuda"] and th.cuda.is_available():
        th.cuda.set_rng_state_all(states["cuda"])


def _log_files(model: "MIRL") -> dict[str, dict[str, Any]]:
    """Of SB3's logger, by file name: what is in them, since SB3 begins them anew; and the columns of a CSV file."""
    files: dict[str, dict[str, Any]] = {}
    for output in model.logger.output_formats:
        path = getattr(getattr(output, "file", None), "name", None)
        if isinstance(path, str) and os.path.isfile(path):
            output.file.flush()  # type: ignore[attr-defined]
            columns = output.keys if isinstance(output, CSVOutputFormat) else None
            files[os.path.basename(path)] = {"content": Path(path).read_bytes(), "columns": columns}
    return files


def _restore_logs(model: "MIRL", files: dict[str, dict[str, Any]]) -> None:
    for output in model.logger.output_formats:
        path = getattr(getattr(output, "file", None), "name", None)
        file = files.pop(os.path.basename(path), None) if isinstance(path, str) else None
        if file is not None:
            replace_content(output.file, file["content"])  # type: ignore[attr-defined]
            if isinstance(output, CSVOutputFormat):
                output.keys = file["columns"]
        elif isinstance(output, TensorBoardOutputFormat):
            _hide_later_events(output, model.num_timesteps)
    if files:
        warnings.warn(
            f"The interrupted run wrote {sorted(files)}, which nothing writes now: to go on with them, call "
            "model.set_logger(configure(folder, formats)) before learn()",
            stacklevel=2,
        )


def _hide_later_events(output: TensorBoardOutputFormat, num_timesteps: int) -> None:
    """Tells TensorBoard that what was logged after the checkpoint is void, and comes again."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = Event(step=num_timesteps + 1, session_log=SessionLog(status=SessionLog.START))
    output.writer._get_file_writer().add_event(start, step=num_timesteps + 1)  # type: ignore[union-attr]


def _callback_attributes(callback: BaseCallback) -> dict[str, Any]:
    if isinstance(callback, CheckpointCallback):  # its settings are free to change, and where it writes
        return {"n_calls": callback.n_calls, "num_timesteps": callback.num_timesteps}
    return {name: value for name, value in vars(callback).items() if not _NOT_STATE.fullmatch(name)}


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _own(model: "MIRL") -> dict[str, Any]:
    """What environments and callbacks may refer to and a checkpoint has already, by name."""
    policy = model.policy
    parts = {"model": model, "policy": policy, "optimizer": policy.optimizer, "replay buffer": model.replay_buffer}
    parts["logger"] = getattr(model, "_logger", None)
    parts |= {f"module {name} of the policy": module for name, module in policy.named_modules() if name}
    parts |= {f"callback {index}": callback for index, callback in enumerate(model.active_callbacks)}
    return {name: part for name, part in parts.items() if part is not None}


def _own_environments(model: "MIRL") -> dict[str, Any]:
    """The same for callbacks: the environments, to the innermost."""
    found: dict[str, Any] = {}
    pending: list[Any] = [model.env]
    while pending:
        env = pending.pop()
        found[f"environment {len(found)}"] = env
        pending += [*vars(env).get("envs", ()), *(vars(env)[name] for name in ("venv", "env") if name in vars(env))]
    return found


def _warn_of_missing(what: str, state: State) -> None:
    if state.missing:
        warnings.warn(f"{what} is not restored as a whole: {_names(state.missing)}", stacklevel=3)


def _names(missing: list[str]) -> str:
    more = f" and {len(missing) - 30} more" if len(missing) > 30 else ""
    return f"{'; '.join(map(printable, missing[:30]))}{more}"


class _Arrays:
    """States as JSON, with their arrays apart."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def put(self, state: State) -> dict[str, Any]:
        first = len(self.arrays)
        self.arrays |= {str(first + index): array for index, array in enumerate(state.arrays)}
        return {"tree": state.tree, "missing": state.missing, "first": first, "count": len(state.arrays)}

    def get(self, node: dict[str, Any]) -> State:
        numbers = range(node["first"], node["first"] + node["count"])
        return State(node["tree"], [self.arrays[str(number)] for number in numbers], node["missing"])


def _versions() -> dict[str, Any]:
    """On which it depends whether two runs are the same bit for bit."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": th.__version__,
        "numpy": np.__version__,
        "gymnasium": gym.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "threads": th.get_num_threads(),
    }


# ---------------------------------------------------------------------------------------------------------- checkpoints


class CheckpointWriter:
    """
    Writes the checkpoints of a run into a folder.

    :param folder: the folder, which is made if it is not there
    :param prefix: of the files' names
    :param keep: how many checkpoints to keep
    :param model: the model
    :raises ValueError: if the folder holds checkpoints of another run, or if another process writes there
    """

    def __init__(self, folder: Path, prefix: str, keep: int, model: "MIRL") -> None:
        self.folder, self.prefix, self.keep, self.model = folder, prefix, keep, model
        (folder / "replay").mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._kept: list[tuple[int, str, set[str]]] = []
        self._known: set[str] = set()
        self._own_name = re.compile(rf"{re.escape(prefix)}(_\d+)?_\d+_steps")
        # After a fall-back, the model has not seen what is newer
        seen = [one for one in self._look() if one["serial"] <= model.checkpoint_serial]
        for manifest in sorted(seen, key=lambda one: one["serial"]):
            self._remember(manifest)
        newest = max(seen, key=lambda one: one["serial"], default=None)
        self._replay = ReplayLog(folder / "replay", prefix)
        self._calls = newest["calls"] if newest else 0
        self._replay.begin(model.replay_buffer, newest["replay"] if newest else None)  # type: ignore[arg-type]
        if model.resumed_from is not None and model.resumed_from.new_episodes:
            self._replay.n_changed = 1  # see end_trajectory

    def _look(self) -> list[dict[str, Any]]:
        """
        The manifests in the folder that were not there when it was looked at before.

        :raises ValueError: if one is of another run
        """
        paths = [path for path in _manifests(self.folder) if path.stem not in self._known]
        own, foreign, unreadable = [], [], []
        for path in paths:
            try:
                manifest = _read_manifest(path)
            except DamagedCheckpoint as error:
                if self._own_name.fullmatch(path.stem):
                    unreadable.append(str(error))
                continue
            if manifest["run"] == self.model.run_id:
                own.append(manifest)
            else:
                foreign.append(path)
        where, run = f"got {str(self.folder)!r}", f"{type(self.model).__name__} run {self.model.run_id[:8]}"
        begun = self.model.checkpoint_serial > 0
        if foreign:
            go_on = "" if begun else f", {type(self.model).__name__}.resume(folder, env) goes on with them"
            raise ValueError(
                f"save_path must be a folder without checkpoints of another run, {where}, in which those of another one lie "
                f"({_listed(foreign)}{go_on}). For this {run}, remove these files, or choose another folder."
            )
        if unreadable and not begun:  # otherwise resume() has named them
            raise ValueError(
                f"save_path must be a folder in which each {self.prefix}_*_steps.json is of this {run}, {where}, in which "
                f"{printable('; '.join(unreadable))}. Remove these files, or choose another folder."
            )
        self._known.update(path.stem for path in paths)
        return own

    def is_up_to_date(self) -> bool:
        """Whether no other callback has written to the folder since this one did."""
        return not any(manifest["serial"] > self._kept[-1][0] if self._kept else True for manifest in self._look())

    def _remember(self, manifest: dict[str, Any]) -> None:
        segments = {segment["file"] for segment in manifest["replay"]["segments"]}
        self._kept.append((manifest["serial"], manifest["name"], segments))

    def write(self, callbacks: list[BaseCallback]) -> Path:
        """
        Writes a checkpoint of the model, which is between two rollouts, and thereafter removes the oldest ones.

        :param callbacks: those whose state belongs to the run
        :return: path of its manifest
        :raises OSError: if it cannot be written: then everything is as before
        :raises ValueError: if another run has written to the folder in the meantime
        """
        model = self.model
        self._look()
        name = self._free_name()
        buffer = model.replay_buffer
        assert buffer is not None
        replay = self._replay.write(buffer, model._n_calls - self._calls)

        arrays, own = _Arrays(), _own(model) | _own_environments(model)
        state = {
            "env": arrays.put(capture(model.env, _own(model))),
            "replay": arrays.put(capture(_rest_of_replay(buffer))),
            "random": arrays.put(capture(_random_states())),
            "logger": arrays.put(capture(_logger_values(model))),
            "log_files": arrays.put(capture(_log_files(model))),
            "callbacks": [
                [_class_name(one), arrays.put(capture(_callback_attributes(one), own))]
                for one in callbacks
                if not isinstance(one, _STATELESS)
            ],
        }
        zipped = io.BytesIO()
        model.save(zipped)
        # In this order: what has a .zip only is SB3's
        contents = {f"{name}.safetensors": safetensors.numpy.save(arrays.arrays), f"{name}.zip": zipped.getvalue()}
        files = {file: _write(self.folder / file, content) for file, content in contents.items()}
        _sync_folder(self.folder / "replay")
        _sync_folder(self.folder)
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "algorithm": model.algorithm,
            "run": model.run_id,
            "serial": model.checkpoint_serial + 1,
            "name": name,
            "num_timesteps": model.num_timesteps,
            "total_timesteps": model._total_timesteps,
            "num_timesteps_at_start": model._num_timesteps_at_start,
            "seconds": (time.time_ns() - model.start_time) / 1e9,
            "log_folder": os.path.basename(model.logger.get_dir() or "") or None,
            "calls": model._n_calls,
            "n_envs": model.n_envs,
            "versions": _versions(),
            "files": files,
            "replay": replay,
            "state": state,
        }
        manifest["sha256"] = _checksum(manifest)
        path = self.folder / f"{name}.json"
        _write(path, json.dumps(manifest).encode())  # in this order: of what is shared, the first has the value
        _sync_folder(self.folder)

        self._replay.commit(buffer, replay)
        self._calls = model._n_calls
        model.checkpoint_serial += 1
        self._known.add(name)
        self._remember(manifest)
        try:
            self._prune()
        except OSError as error:
            warnings.warn(f"What is not needed any more could not be removed from {self.folder} ({error})", stacklevel=3)
        return path

    def _free_name(self) -> str:
        """``rl_model_5000_steps``, or with a number more where that is taken: ``learn()`` counts from 0 again."""
        name = f"{self.prefix}_{self.model.num_timesteps}_steps"
        of_others = _is_of_others(self.folder / f"{name}.zip")
        if of_others or any(name == kept for _, kept, _ in self._kept):
            return f"{self.prefix}_{self.model.checkpoint_serial + 1}_{self.model.num_timesteps}_steps"
        return name

    def _prune(self) -> None:
        """Removes all but the newest checkpoints, and what no checkpoint refers to."""
        self._kept = self._kept[-self.keep :]
        names = {name for _, name, _ in self._kept}
        segments = {segment for _, _, of_one in self._kept for segment in of_one}
        own_segment = re.compile(rf"{re.escape(self.prefix)}_[0-9a-f]{{8}}_\d+_\d+")
        # Those that were never finished have no manifest
        for path in [*_manifests(self.folder), *self.folder.glob("*_steps.safetensors")]:
            if self._own_name.fullmatch(path.stem) and path.stem not in names:
                for extension in (".json", ".zip", ".safetensors"):
                    path.with_suffix(extension).unlink(missing_ok=True)
        for path in (self.folder / "replay").iterdir():
            if path.name not in segments and own_segment.fullmatch(path.stem):
                path.unlink()
        for folder in (self.folder, self.folder / "replay"):
            for path in folder.glob(f".{self.prefix}_*{UNFINISHED}"):
                path.unlink()


def _is_of_others(zip_file: Path) -> bool:
    """Whether a model file belongs to no checkpoint of ours, not even to one that was never finished."""
    return zip_file.exists() and not any(zip_file.with_suffix(one).exists() for one in (".json", ".safetensors"))


def _logger_values(model: "MIRL") -> dict[str, Any]:
    logger = model.logger
    return {
        "name_to_value": logger.name_to_value,
        "name_to_count": logger.name_to_count,
        "name_to_excluded": logger.name_to_excluded,
    }


def _reasons(damaged: list[tuple[Path, str]]) -> str:
    return printable("; ".join(reason for _, reason in damaged))


class Checkpoint:
    """
    A checkpoint that was read, and found to be whole.

    :param folder: where it lies
    :param path: its manifest
    :raises DamagedCheckpoint: if it is not as it was written
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(path)
        try:
            for name, entry in self.manifest["files"].items():
                _check_file(folder, name, entry)
            for segment in self.manifest["replay"]["segments"]:
                _check_file(folder / "replay", segment["file"], segment)
        except (AttributeError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(f"{path.name} is not what was written: {type(error).__name__} {error}") from error
        #: Whether the environment could not be put into its state
        self.new_episodes = False
        self._logger_is_ours = False
        self._arrays = _Arrays()
        self._arrays.arrays = safetensors.numpy.load_file(folder / f"{self.manifest['name']}.safetensors")
        self.model_file = folder / f"{self.manifest['name']}.zip"

    @classmethod
    def newest(cls, folder: str | os.PathLike[str]) -> "Checkpoint":
        """
        The newest whole checkpoint of a folder; warns of newer ones that are damaged.

        :param folder: where :class:`~sb3_mirl.CheckpointCallback` wrote them
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if there is none that is whole
        """
        folder = Path(folder)
        paths = _manifests(folder)
        if not paths:
            if models := sorted(filter(_is_of_others, folder.glob("*_steps.zip"))):
                raise ValueError(
                    f"folder must hold checkpoints of sb3_mirl.CheckpointCallback, got {str(folder)!r}, which holds those of "
                    f"stable_baselines3's CheckpointCallback ({_listed(models)}). A run cannot be resumed from these: "
                    f"load() reads their models, and `from sb3_mirl import CheckpointCallback` gives the one to train with."
                )
            raise FileNotFoundError(f"folder must hold a checkpoint (*_steps.json), got {str(folder)!r}, which holds none")
        damaged: list[tuple[Path, str]] = []
        readable: list[tuple[int, Path]] = []
        runs: dict[str, list[Path]] = {}
        for path in paths:
            try:
                manifest = _read_manifest(path)
            except DamagedCheckpoint as error:
                damaged.append((path, str(error)))
            else:
                readable.append((manifest["serial"], path))
                runs.setdefault(manifest["run"], []).append(path)
        if len(runs) > 1:
            raise ValueError(
                f"folder must hold the checkpoints of one run, got {str(folder)!r}, which holds those of {len(runs)}: "
                f"{' and '.join(map(_listed, runs.values()))}. Remove the files of all but one of them."
            )
        for _, path in sorted(readable, reverse=True):
            try:
                checkpoint = cls(folder, path)
            except DamagedCheckpoint as error:
                damaged.append((path, str(error)))
                continue
            if damaged:
                warnings.warn(
                    f"Damaged checkpoint in {str(folder)!r} ({_reasons(damaged)}): going on with {path.stem}. To get rid of "
                    f"this warning, remove {_listed(one for one, _ in damaged)}.",
                    stacklevel=3,
                )
            return checkpoint
        raise ValueError(
            f"folder must hold a whole checkpoint, got {str(folder)!r}, in which all are damaged: {_reasons(damaged)}. Where "
            "only a file in replay/ is damaged, load() still reads the model from its zip file. To begin a new run in the "
            f"folder, remove {_listed(path for path, _ in damaged)}."
        )

    @property
    def finished(self) -> bool:
        """Whether training had come to its end."""
        return self.manifest["num_timesteps"] >= self.manifest["total_timesteps"]

    def restore_replay(self, model: "MIRL") -> None:
        """
        Fills the replay buffer of the model.

        :raises ValueError: if its size, or the number of environments, is another than in the interrupted run
        """
        if model.n_envs != self.manifest["n_envs"]:
            raise ValueError(f"env must have {self.manifest['n_envs']} environments as it had, got {model.n_envs}")
        rest = self._arrays.get(self.manifest["state"]["replay"])
        _fill_replay(model.replay_buffer, self.folder / "replay", self.manifest["replay"], rest)  # type: ignore[arg-type]
        model.run_id, model.checkpoint_serial = self.manifest["run"], self.manifest["serial"]

    def restore_env(self, model: "MIRL") -> None:
        """
        Puts the environment into the checkpoint's state or, where that is not known, begins new episodes and warns.

        :raises ValueError: if the environment is not made like that of the interrupted run
        """
        env = model.env
        assert env is not None
        last_obs, state = model._last_obs, self._arrays.get(self.manifest["state"]["env"])
        env.reset()
        try:
            restore(env, state, _own(model))
        except StateMismatch as error:
            raise ValueError(f"env must be made like that of the interrupted run: {error}") from error
        model._last_obs = last_obs
        if state.missing:
            warnings.warn(
                f"The environment's state is not in the checkpoint, because it cannot be read: {_names(state.missing)}. "
                "Training goes on with new episodes; nothing else is lost.",
                stacklevel=3,
            )
            self.new_episodes = True
            env.seed((model.seed or 0) + model.num_timesteps)
            model._last_obs = env.reset()  # type: ignore[assignment]
            model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
            if model._vec_normalize_env is not None:
                model._last_original_obs = model._vec_normalize_env.get_original_obs()
            end_trajectory(model.replay_buffer)  # type: ignore[arg-type]

    def set_logger(self, model: "MIRL") -> None:
        """Lets the model log into the folder of the interrupted run, unless the user has set a logger."""
        folder = self.manifest["log_folder"]
        if not model._custom_logger and model.tensorboard_log is not None and folder is not None:
            formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
            model.set_logger(configure(os.path.join(model.tensorboard_log, folder), formats))
            self._logger_is_ours = True

    def restore_run(self, model: "MIRL", callbacks: list[BaseCallback]) -> None:
        """
        Restores all that is outside of the model, when training has begun: nothing draws random numbers thereafter.

        :param callbacks: of the resumed run
        """
        manifest, state = self.manifest, self.manifest["state"]
        if self._logger_is_ours:
            model._custom_logger = False
        model.start_time = time.time_ns() - int(manifest["seconds"] * 1e9)
        model._num_timesteps_at_start = manifest["num_timesteps_at_start"]
        self._restore_callbacks(model, state["callbacks"], callbacks)
        recorded = self._arrays.get(state["logger"])
        vars(model.logger).update(restore(_logger_values(model), recorded))
        _warn_of_missing("What the logger has recorded", recorded)
        _restore_logs(model, restore({}, self._arrays.get(state["log_files"])))
        versions = _versions()
        changed = [f"{name} {old} -> {versions[name]}" for name, old in manifest["versions"].items() if versions[name] != old]
        if changed:
            warnings.warn(
                f"The interrupted run had other versions ({', '.join(changed)}): results may differ by rounding from those "
                "of an uninterrupted run",
                stacklevel=2,
            )
        _set_random_states(restore(_random_states(), self._arrays.get(state["random"])))

    def _restore_callbacks(self, model: "MIRL", saved: list[Any], callbacks: list[BaseCallback]) -> None:
        """Each gets the state of the one of its class at the same place among those of its class."""
        waiting, own = list(callbacks), _own(model) | _own_environments(model)
        for name, node in saved:
            callback = next((one for one in waiting if _class_name(one) == name), None)
            if callback is None:
                if name not in _DISPENSABLE:
                    warnings.warn(f"The interrupted run had a {name} among its callbacks, this one has not", stacklevel=2)
                continue
            waiting.remove(callback)
            state = self._arrays.get(node)
            vars(callback).update(restore(_callback_attributes(callback), state, own))
            _warn_of_missing(f"The state of the {name}", state)


def new_run_id() -> str:
    """By which the checkpoints of one run know each other."""
    return uuid.uuid4().hex
