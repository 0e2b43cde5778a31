"""
Values of constructor arguments as JSON.

A value is plain JSON, or an object whose only key names its kind: ``{"tuple": [...]}``, ``{"dict": {...}}``,
``{"number": "inf"}``, ``{"array": {"dtype": ..., "shape": ..., "values": ...}}``, ``{"class": "torch.nn.ReLU"}``,
``{"schedule": {"kind": "constant", "val": 1e-3}}``. Classes are looked up by name in a table; nothing is imported.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common import torch_layers
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.dqn import policies
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer

from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer
from sb3_mirl.common.inputs import is_class
from sb3_mirl.common.text import shortened

#: Elements of all arrays and spaces of a file: one number may stand for all elements of an array
MAX_ELEMENTS = 2**23
#: Axes of an array, NumPy's limit
MAX_AXES = 32
#: The dtypes of arrays and spaces
DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
#: Arguments that are classes, and what each must be a subclass of
CLASS_ARGUMENTS: dict[str, type] = {
    "activation_fn": th.nn.Module,
    "features_extractor_class": torch_layers.BaseFeaturesExtractor,
    "optimizer_class": th.optim.Optimizer,
    "replay_buffer_class": ReplayBuffer,
}


def subclasses_in(module: Any, name: str, kind: type) -> dict[str, type]:
    """The subclasses of ``kind`` in a module, by full name; ``name`` is that of the module."""
    return {f"{name}.{key}": value for key, value in vars(module).items() if is_class(value, kind)}


#: The classes that any file may name: their constructors have no side effects
CLASSES: dict[str, type] = {
    **subclasses_in(th.nn, "torch.nn", th.nn.Module),
    **subclasses_in(th.optim, "torch.optim", th.optim.Optimizer),
    **subclasses_in(torch_layers, "stable_baselines3.common.torch_layers", torch_layers.BaseFeaturesExtractor),
    **subclasses_in(policies, "stable_baselines3.dqn.policies", policies.DQNPolicy),
    **{f"stable_baselines3.common.buffers.{cls.__name__}": cls for cls in (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)},
    "stable_baselines3.her.HerReplayBuffer": HerReplayBuffer,
    **{f"sb3_mirl.common.buffers.{cls.__name__}": cls for cls in (FrameReplayBuffer, DeviceReplayBuffer)},
}


class ProportionalSchedule:
    """
    A schedule proportional to the remaining progress: rl-zoo3's ``SimpleLinearSchedule``, without the need for rl-zoo3.

    :param initial_value: its value at the beginning
    """

    def __init__(self, initial_value: float) -> None:
        self.initial_value = initial_value

    def __call__(self, progress_remaining: float) -> float:
        """The value at ``progress_remaining``, which goes from 1 to 0."""
        return progress_remaining * self.initial_value


#: Kinds of schedules: the class, and the attributes that are its constructor's arguments
SCHEDULES: dict[str, tuple[type, tuple[str, ...]]] = {
    "constant": (ConstantSchedule, ("val",)),
    "linear": (LinearSchedule, ("start", "end", "end_fraction")),
    "proportional": (ProportionalSchedule, ("initial_value",)),
}


# ---- writing ---------------------------------------------------------------------------------------------------------


def encode(value: Any, where: str) -> Any:
    """
    :param value: a constructor argument or a part of one
    :param where: its name in error messages
    :return: JSON
    :raises ValueError: if it is not data
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        return {"array": {"dtype": value.dtype.name, "shape": list(value.shape), "values": array_values(value)}}
    if is_class(value):
        full_name = f"{value.__module__}.{value.__qualname__}"
        return {"class": next((name for name, known in CLASSES.items() if known is value), full_name)}
    if isinstance(value, GoalSelectionStrategy):
        return value.name.lower()  # which HerReplayBuffer accepts as well
    return _encode_schedule(value, where)


def _encode_schedule(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, FloatSchedule):
        value = value.value_schedule
    if (type(value).__module__, type(value).__name__) == ("rl_zoo3.utils", "SimpleLinearSchedule"):
        value = ProportionalSchedule(value.initial_value)
    for kind, (schedule, attributes) in SCHEDULES.items():
        if type(value) is schedule:
            return {"schedule": {"kind": kind, **{name: encode(getattr(value, name), where) for name in attributes}}}
    raise ValueError(
        f"{where} is {value!r}, which cannot be written as data. Accepted are numbers, text, lists, tuples, dicts, arrays, "
        "classes, and ConstantSchedule and LinearSchedule of stable_baselines3.common.utils. To write another value instead: "
        f"export(path, {where.partition('[')[0]}=...)"
    )


def array_values(array: np.ndarray) -> Any:
    """The elements in a list, or a single number if all are equal, as the bounds of images are."""
    flat = array.ravel()
    # Compared as bytes, because -0.0 == 0.0
    is_constant = flat.size > 0 and flat.tobytes() == flat[:1].tobytes() * flat.size
    values = flat[:1].tolist() if is_constant else flat.tolist()
    values = [str(value) if isinstance(value, float) and not math.isfinite(value) else value for value in values]
    return values[0] if is_constant else values


# ---- reading ---------------------------------------------------------------------------------------------------------


def decode(value: Any, where: str, classes: Mapping[str, Any]) -> Any:
    """
    The inverse of :func:`encode`.

    :param value: JSON of a file, whose depth was checked
    :param where: its name in error messages
    :param classes: those that may be named, by full name
    :raises ValueError: for anything that :func:`encode` does not write
    """
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, list):
        return [decode(item, f"{where}[{i}]", classes) for i, item in enumerate(value)]
    kind, content = next(iter(value.items())) if len(value) == 1 else (None, None)
    if kind == "tuple" and isinstance(content, list):
        return tuple(decode(content, where, classes))
    if kind == "dict" and isinstance(content, dict):
        return {key: decode(item, f"{where}[{key!r}]", classes) for key, item in content.items()}
    if kind == "number" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "array" and isinstance(content, dict):
        return decode_array(content, where)
    if kind == "class" and isinstance(content, str):
        return _find_class(content, where, classes)
    if kind == "schedule" and isinstance(content, dict):
        return _decode_schedule(content, where, classes)
    raise ValueError(
        f"{where}: the file has {shortened(value)}; an object must have one key: tuple, dict, number, array, class or schedule"
    )


def _decode_schedule(content: dict[str, Any], where: str, classes: Mapping[str, Any]) -> Any:
    schedule, attributes = SCHEDULES.get(str(content.get("kind")), (None, ()))
    values = [content.get(name) for name in attributes]
    numbers = [decode(value, where, classes) if isinstance(value, dict) else value for value in values]
    has_fields = content.keys() == {"kind", *attributes}
    if schedule is None or not has_fields or not all(type(number) in (int, float) for number in numbers):
        known = {kind: attributes for kind, (_, attributes) in SCHEDULES.items()}
        raise ValueError(f"{where}: the file has the schedule {shortened(content)}; known are {known}, with numbers")
    return schedule(*numbers)


def _find_class(name: str, where: str, classes: Mapping[str, Any]) -> Any:
    if name not in classes:
        raise ValueError(
            f"{where}: the file names {shortened(name)}, which is not among the classes of torch.nn, torch.optim, "
            "stable_baselines3 and sb3_mirl that a file may name; nothing was imported. If it is a class of yours: "
            f"load_exported(path, custom_objects={{{shortened(name)}: ...}})"
        )
    kind = CLASS_ARGUMENTS.get(where.rpartition("[")[2].strip("']"))
    if kind is not None and not is_class(classes[name], kind):
        raise ValueError(f"{where}: must be a subclass of {kind.__name__}, the file names {name!r}")
    return classes[name]


def decode_array(content: dict[str, Any], where: str) -> np.ndarray:
    """The array whose dtype, shape and values :func:`encode` wrote; raises ValueError if it is not an array."""
    if content.keys() != {"dtype", "shape", "values"}:
        raise ValueError(f"{where}: an array must have dtype, shape and values, the file has {sorted(content)}")
    try:
        dtype, n_elements, values = decode_dtype(content["dtype"]), count_elements(content["shape"]), content["values"]
        if not isinstance(values, list):
            return np.full(content["shape"], _element(values, dtype), dtype=dtype)
        if len(values) != n_elements:
            raise ValueError(f"{len(values)} values")
        return np.array([_element(value, dtype) for value in values], dtype=dtype).reshape(content["shape"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: the file has no array in {shortened(content)} ({error})") from error


def _element(value: Any, dtype: np.dtype) -> Any:
    # Each in its own type: float64 cannot hold the largest int64
    if value in ("inf", "-inf", "nan"):
        return dtype.type(float(value))
    if type(value) not in (int, float, bool):
        raise ValueError(f"{shortened(value)} is not a number")
    return dtype.type(value)


def decode_dtype(name: Any) -> np.dtype:
    """The dtype of this name; raises ValueError if it is not one of :data:`DTYPES`."""
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"dtype must be one of {[*DTYPES]}, got {shortened(name)}")
    return DTYPES[name]


def count_elements(shape: Any) -> int:
    """The number of elements of an array with this shape; raises ValueError if the shape is not valid or too large."""
    is_shape = isinstance(shape, list) and len(shape) <= MAX_AXES and all(type(axis) is int and axis >= 0 for axis in shape)
    if not is_shape or math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(
            f"a shape must have at most {MAX_AXES} axes, integers >= 0, and at most {MAX_ELEMENTS} elements, "
            f"got {shortened(shape)}"
        )
    return math.prod(shape)
