"""
The replay buffer in a folder of checkpoints: a sequence of files ("segments"), each with the transitions of a range of steps.

Steps are counted from the buffer's beginning; step n is in slot n modulo the buffer's size.
"""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her import HerReplayBuffer

from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer, Stacks, TensorOnDevice
from sb3_mirl.common.masked_buffers import MASKED_BUFFERS
from sb3_mirl.common.resume.manifest import DamagedCheckpoint, write_file

#: Largest file of transitions. It limits the memory that writing needs
SEGMENT_BYTES = 16_000_000
#: Buffers that a checkpoint restores completely
_KNOWN_BUFFERS = (
    *(ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, FrameReplayBuffer, DeviceReplayBuffer),
    *MASKED_BUFFERS.values(),
)
#: Arrays of these buffers with a row for each slot
_STEP_ARRAYS = (
    *("observations", "next_observations", "actions", "rewards", "dones", "timeouts"),
    "next_action_masks",
)
#: Dtypes that NumPy, torch and safetensors have in common. Others of NumPy are written as bytes
_COMMON_DTYPES = frozenset("bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64".split())
#: The entry of :func:`buffer_state` with the arrays of a user's class
_ADDED = "added arrays"
#: Arrays of HerReplayBuffer that change in other slots than the one being stored to: each checkpoint has all of them
_HINDSIGHT_ARRAYS = ("ep_start", "ep_length", "infos")


class ReplayLog:
    """
    Writes the new transitions of a replay buffer at each checkpoint.

    ``count``, ``segments`` and what the buffer knows about saved images describe the last complete checkpoint. They change
    only in :meth:`begin` and :meth:`commit`, so that a failed :meth:`write` has no effect.

    :param folder: of the files
    :param prefix: of their names
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.count = 0
        self.segments: list[dict[str, Any]] = []
        #: Number of latest steps that have changed since they were written
        self.n_changed = 0
        self._buffer: ReplayBuffer | None = None
        # Images in files of the checkpoint that is being written, with the numbers of these files
        self._new_images: list[tuple[np.ndarray, int]] = []

    def begin(self, buffer: ReplayBuffer, replay: dict[str, Any] | None) -> None:
        """
        Start to log a buffer. Warns of classes that may have state which a checkpoint does not restore.

        :param buffer: to be logged
        :param replay: entry of the manifest whose content ``buffer`` includes; None if there is none
        """
        if type(buffer) not in _KNOWN_BUFFERS:
            left_out = [name for name, array in _row_arrays(buffer) if not _is_storable(array)]
            names = f", without {', '.join(left_out)}, whose dtype cannot be written" if left_out else ""
            warnings.warn(
                f"Checkpoints of a {type(buffer).__name__} hold its arrays with a row for each slot{names}, but nothing else "
                "that the class adds to SB3's replay buffers",
                stacklevel=4,
            )
        self._buffer = buffer
        self.count, self.segments = (replay["count"], replay["segments"]) if replay else (0, [])

    def write(self, buffer: ReplayBuffer, n_new: int) -> dict[str, Any]:
        """
        Write what is new.

        :param buffer: the replay buffer
        :param n_new: steps stored since the last :meth:`commit`
        :return: entry for the manifest
        """
        size = buffer.buffer_size
        count, segments = self.count + n_new, self.segments
        if buffer is not self._buffer or count % size != buffer.pos or (count >= size) != bool(buffer.full):
            # Another buffer than the logged one: start again
            count, segments = buffer.pos + size * bool(buffer.full), []
            first = count - (size if buffer.full else buffer.pos)
        else:
            first = max(self.count - self.n_changed, count - size, 0)
        segments = [segment for segment in segments if segment["last"] > count - size]
        new: list[dict[str, Any]] = []
        self._new_images = []
        n_steps = max(1, SEGMENT_BYTES // _bytes_of_a_step(buffer))
        for begin in range(first, count, n_steps):
            end = min(begin + n_steps, count)
            arrays = _rows(buffer, _slots(buffer, begin, end))
            if isinstance(buffer, FrameReplayBuffer):
                images = self._unsaved_images(buffer, segments, arrays if end < count else None)
                arrays |= {"images": buffer.planes.images[images], "image_numbers": images}
            content = safetensors.numpy.save(arrays)
            # Named by content: a file of the same steps of another buffer belongs to another checkpoint
            name = f"{self.prefix}_{hashlib.sha256(content).hexdigest()[:8]}_{begin}_{end}.safetensors"
            segment = {"file": name, "first": begin, "last": end, **write_file(self.folder / name, content)}
            new.append(segment)
            if isinstance(buffer, FrameReplayBuffer):
                self._new_images.append((images, _file_number(segment)))
        return {"size": size, "count": count, "segments": [*segments, *new]}

    def _unsaved_images(
        self, buffer: FrameReplayBuffer, segments: list[dict[str, Any]], arrays: dict[str, np.ndarray] | None
    ) -> np.ndarray:
        """
        Indices of the images for the next file. With ``arrays``, the stacks of that file, these are the images of the stacks.
        With None, for the last file, these are all images that are in no kept file.
        """
        stacks = arrays and [arrays["observations"].ravel(), arrays["next_observations"].ravel()]
        images = buffer.planes.unsaved(
            [_file_number(segment) for segment in segments], np.unique(np.concatenate(stacks)) if stacks else None
        )
        for written, _ in self._new_images:
            images = np.setdiff1d(images, written, assume_unique=True)
        return images

    def commit(self, buffer: ReplayBuffer, replay: dict[str, Any]) -> None:
        """Record that the checkpoint for which :meth:`write` returned ``replay`` is complete."""
        self.count, self.segments, self._buffer, self.n_changed = replay["count"], replay["segments"], buffer, 0
        if isinstance(buffer, FrameReplayBuffer):
            for images, file in self._new_images:
                buffer.planes.saved_in[images] = file


def _file_number(segment: dict[str, Any]) -> int:
    """A number for the content of a file: several folders may hold the same buffer in different files."""
    return int(segment["sha256"][:15], 16)


def slot_arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, Any]]:
    """
    The arrays and tensors of SB3's and this package's buffers that have a row for each slot, by name; images by their numbers.
    """
    return ((name, array) for name, array in _row_arrays(buffer) if name.partition("/")[0] in _STEP_ARRAYS)


def _added_arrays(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """
    The arrays with a row for each slot that a class of the user adds, as they are written: any row may change at any time,
    such as the weights of earlier transitions. Without those that cannot be written, such as arrays of objects.
    """
    own = {name for name, _ in slot_arrays(buffer)}
    return {name: _as_written(array) for name, array in _row_arrays(buffer) if name not in own and _is_storable(array)}


def _is_storable(array: Any) -> bool:
    return _is_common(array) or (isinstance(array, np.ndarray) and not array.dtype.hasobject)


def _is_common(array: Any) -> bool:
    return str(array.dtype).removeprefix("torch.") in _COMMON_DTYPES


def _row_arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, Any]]:
    for name, value in vars(buffer).items():
        if name in _HINDSIGHT_ARRAYS:
            continue
        for key, array in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(array, Stacks):
                array = array.index
            elif isinstance(array, TensorOnDevice):
                array = array.tensor
            if isinstance(array, (np.ndarray, th.Tensor)) and array.shape[:1] == (buffer.buffer_size,):
                yield name if key is None else f"{name}/{key}", array


def _slots(buffer: ReplayBuffer, first: int, last: int) -> np.ndarray:
    # With optimize_memory_usage, the next slot holds the next observation
    return np.arange(first, last + bool(getattr(buffer, "optimize_memory_usage", False))) % buffer.buffer_size


def _rows(buffer: ReplayBuffer, slots: np.ndarray) -> dict[str, np.ndarray]:
    return {name: _as_written(array[slots]) for name, array in slot_arrays(buffer)}


def _as_written(rows: Any) -> np.ndarray:
    if isinstance(rows, th.Tensor):
        return rows.cpu().numpy()
    return rows if _is_common(rows) else np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1)


def _as_stored(rows: np.ndarray, target: Any) -> Any:
    """The counterpart of :func:`_as_written`."""
    if isinstance(target, th.Tensor):
        return th.as_tensor(rows, device=target.device)
    if _is_common(target):
        return rows
    return np.frombuffer(rows.tobytes(), target.dtype).reshape(len(rows), *target.shape[1:])


def _bytes_of_a_step(buffer: ReplayBuffer) -> int:
    size = sum(array[0].nbytes for _, array in slot_arrays(buffer))
    return size + (buffer.planes.images[0].nbytes * buffer.n_envs if isinstance(buffer, FrameReplayBuffer) else 0)


def buffer_state(buffer: ReplayBuffer) -> dict[str, Any]:
    """The state of the buffer that is not in the segments, by name."""
    values: dict[str, Any] = {"pos": buffer.pos, "full": buffer.full}
    if isinstance(buffer, HerReplayBuffer):
        names = ("ep_start", "ep_length", "_current_ep_start", *(["infos"] if buffer.copy_info_dict else []))
        values |= {name: vars(buffer)[name] for name in names}
    if isinstance(buffer, FrameReplayBuffer):
        values["frame_channels"] = buffer.planes.frame_channels
    return {**values, _ADDED: _added_arrays(buffer)}


def fill_slots(buffer: ReplayBuffer, folder: Path, replay: dict[str, Any]) -> None:
    """
    Fill a buffer with the transitions of a checkpoint. :func:`set_buffer_state` must follow.

    :param folder: of the segments
    :param replay: entry of the manifest
    :raises ValueError: if the buffer has another size
    """
    if buffer.buffer_size != replay["size"]:
        raise ValueError(f"buffer_size must be as it was ({replay['size']} slots), got {buffer.buffer_size} slots")
    targets = dict(slot_arrays(buffer))
    for segment in replay["segments"]:
        arrays = safetensors.numpy.load_file(folder / segment["file"])
        if isinstance(buffer, FrameReplayBuffer):
            buffer.planes.load(arrays.pop("image_numbers"), arrays.pop("images"), _file_number(segment))
        slots = _slots(buffer, segment["first"], segment["last"])
        for name, rows in arrays.items():
            targets[name][slots] = _as_stored(rows, targets[name])


def set_buffer_state(buffer: ReplayBuffer, values: dict[str, Any]) -> None:
    """The counterpart of :func:`buffer_state`. Raises DamagedCheckpoint if images are missing."""
    added, targets = values[_ADDED], dict(_row_arrays(buffer))
    for name, rows in added.items():
        targets[name][:] = _as_stored(rows, targets[name])
    vars(buffer).update({name: value for name, value in values.items() if name not in ("frame_channels", _ADDED)})
    if isinstance(buffer, FrameReplayBuffer):
        planes, arrays = buffer.planes, dict(slot_arrays(buffer))
        planes.frame_channels = values["frame_channels"]
        indices = [arrays["observations"], arrays["next_observations"]]
        used = np.unique(np.concatenate(indices, axis=None))
        if not planes.saved_in[used[used > 0]].all():
            raise DamagedCheckpoint("images of the replay buffer are in none of its files")
        planes.finish_loading(indices, indices[1][buffer.pos - 1])


def end_trajectory(buffer: ReplayBuffer) -> None:
    """Mark the latest transitions as truncated: their episodes do not continue."""
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()
    elif buffer.pos > 0 or buffer.full:
        buffer.dones[buffer.pos - 1] = 1
        if buffer.handle_timeout_termination:
            buffer.timeouts[buffer.pos - 1] = 1
