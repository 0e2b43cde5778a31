"""
Models as files that nothing in them can make run: one safetensors file, and ONNX for acting without Python.

SB3's ``save`` pickles what is not plain data, so that ``load`` runs whatever code the file holds. An exported file holds
tensors and a JSON document. Reading it unpickles nothing, imports nothing, and turns names of classes into classes by
looking them up in a table.

The document is the value of ``sb3_mirl`` in the ``__metadata__`` of the file; its fields are :data:`FIELDS` and, in newer
files, :data:`NEWER_FIELDS`. Its size and depth are limited, so that a small file cannot take much memory. In it, a
constructor argument is plain JSON, or an object with one key that says what it is: ``{"tuple": [...]}``, ``{"dict": {...}}``,
``{"number": "inf"}``, ``{"array": {...}}``, ``{"class": "torch.nn.ReLU"}``,
``{"schedule": {"kind": "constant", "value": 1e-3}}``. Tensors are named ``policy.`` and ``optimizer.`` and their name in
the ``state_dict``.
"""

import copy
import inspect
import json
import logging
import math
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import safetensors
import safetensors.torch
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3.common import torch_layers
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, TrainFreq
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule, check_for_correct_spaces
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer

from sb3_mirl.common import buffers, learning_curve
from sb3_mirl.common.files import write_whole
from sb3_mirl.common.inputs import check_argument, is_class
from sb3_mirl.common.text import printable
from sb3_mirl.mirl import operators, policies
from sb3_mirl.mirl.policies import MIRLPolicy

if TYPE_CHECKING:
    from sb3_mirl.mirl.mirl import MIRL

FORMAT, VERSION = "sb3_mirl", 1
SUFFIX = ".safetensors"

#: Bytes of the header of a file, which holds the document and the names and shapes of the tensors
LARGEST_HEADER = 2**22
#: Levels of lists and objects in the document
DEEPEST = 32
#: Values in a field of the document, without the elements of arrays; building a thousand layers takes a second
MOST_VALUES = {"arguments": 1_000, "observation_space": 5_000, "action_space": 5_000}
MOST_OTHER_VALUES = 20_000
#: Elements of all arrays and spaces that the document describes: one number may stand for all elements of one
MOST_ELEMENTS = 2**23
#: Axes of an array, a NumPy limit
MOST_AXES = 32
MOST_ENVS = 2**16

# The first two bytes of files that are taken for exports by mistake, or on purpose
MAGIC = {
    b"PK": "a zip of SB3's save, for load()",
    **{bytes([0x80, protocol]): "a pickle, which would run code when loaded" for protocol in range(2, 6)},
}

#: What the document holds, and the JSON type of each
FIELDS: dict[str, tuple[type, ...]] = {
    "format": (str,),
    "version": (int,),
    "algorithm": (str,),
    "arguments": (dict,),
    "observation_space": (dict,),
    "action_space": (dict,),
    "action_names": (list, type(None)),
    "training": (dict,),
    "optimizer": (dict,),
    "versions": (dict,),
}

#: What the document of a newer file may hold beside them: the frozen parameters, and the returns of the run
NEWER_FIELDS: dict[str, tuple[type, ...]] = {"frozen": (list,), "learning_curve": (dict,)}

#: The state of training: its name in the file, the model's attribute, and its type
TRAINING: dict[str, tuple[str, type]] = {
    "num_timesteps": ("num_timesteps", int),
    "total_timesteps": ("_total_timesteps", int),
    "n_updates": ("_n_updates", int),
    "n_episodes": ("_episode_num", int),
    "n_calls": ("_n_calls", int),
    "n_envs": ("n_envs", int),
    "progress_remaining": ("_current_progress_remaining", float),
    "exploration_rate": ("exploration_rate", float),
}

#: What ``learn`` made of arguments that are ``"auto"``: numbers, None before the first call; older files have none
RESOLVED = ("resolved_prior_lr", "resolved_beta_lr")

#: The dtypes of arrays and spaces that a file may name
DTYPES = {
    np.dtype(scalar).name: np.dtype(scalar)
    for scalar in (
        np.bool_,
        *(np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, np.float32, np.float64),
    )
}

#: Of tensors: torch's, by the names that safetensors has for them
TENSOR_DTYPES = {
    "BOOL": th.bool,
    "U8": th.uint8,
    "I8": th.int8,
    "I16": th.int16,
    "I32": th.int32,
    "I64": th.int64,
    "F16": th.float16,
    "BF16": th.bfloat16,
    "F32": th.float32,
    "F64": th.float64,
    "U16": th.uint16,
    "U32": th.uint32,
    "U64": th.uint64,
    "C64": th.complex64,
}

# Constructor arguments that are no part of a model: where it runs, and where this machine's logs are. A file from elsewhere
# must not choose where learn() writes
NOT_EXPORTED = ("self", "env", "device", "tensorboard_log", "_init_setup_model")

#: What an argument that is a class must be a subclass of
KINDS: dict[str, type] = {
    "policy": MIRLPolicy,
    "activation_fn": th.nn.Module,
    "features_extractor_class": torch_layers.BaseFeaturesExtractor,
    "optimizer_class": th.optim.Optimizer,
    "replay_buffer_class": ReplayBuffer,
}


class ProportionalSchedule:
    """
    A schedule proportional to the remaining progress, as rl-zoo3's ``SimpleLinearSchedule``, which needs rl-zoo3.

    :param initial_value: its value at the beginning
    """

    def __init__(self, initial_value: float) -> None:
        self.initial_value = initial_value

    def __call__(self, progress_remaining: float) -> float:
        return progress_remaining * self.initial_value

    def __repr__(self) -> str:
        return f"ProportionalSchedule(initial_value={self.initial_value})"


# kind in the file: the class, and the attributes that are its constructor's arguments
SCHEDULES: dict[str, tuple[type, tuple[str, ...]]] = {
    "constant": (ConstantSchedule, ("val",)),
    "linear": (LinearSchedule, ("start", "end", "end_fraction")),
    "proportional": (ProportionalSchedule, ("initial_value",)),
}


def _subclasses_in(module: Any, name: str, kind: type) -> dict[str, type]:
    return {f"{name}.{key}": value for key, value in vars(module).items() if is_class(value, kind)}


#: The classes that a file may name: constructors that only compute
CLASSES: dict[str, type] = {
    **_subclasses_in(th.nn, "torch.nn", th.nn.Module),
    **_subclasses_in(th.optim, "torch.optim", th.optim.Optimizer),
    **_subclasses_in(torch_layers, "stable_baselines3.common.torch_layers", torch_layers.BaseFeaturesExtractor),
    **{f"stable_baselines3.common.buffers.{one.__name__}": one for one in (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)},
    "stable_baselines3.her.HerReplayBuffer": HerReplayBuffer,
    **_subclasses_in(policies, "sb3_mirl.mirl.policies", MIRLPolicy),
    "sb3_mirl.common.buffers.FrameReplayBuffer": buffers.FrameReplayBuffer,
    "sb3_mirl.common.buffers.DeviceReplayBuffer": buffers.DeviceReplayBuffer,
}


# ---- constructor arguments as JSON -----------------------------------------------------------------------------------


def _encode(value: Any, where: str) -> Any:
    """
    :param value: a constructor argument or a part of one
    :param where: its name in error messages
    :return: what JSON can write
    :raises ValueError: if it is not data
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        return {"array": {"dtype": value.dtype.name, "shape": list(value.shape), "values": _numbers(value)}}
    if is_class(value):
        return {"class": _class_name(value)}
    if isinstance(value, GoalSelectionStrategy):
        return value.name.lower()  # which HerReplayBuffer takes as well
    return _encode_schedule(value, where)


def _encode_schedule(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, FloatSchedule):
        value = value.value_schedule
    if (type(value).__module__, type(value).__name__) == ("rl_zoo3.utils", "SimpleLinearSchedule"):
        value = ProportionalSchedule(value.initial_value)
    for kind, (schedule, attributes) in SCHEDULES.items():
        if type(value) is schedule:
            return {"schedule": {"kind": kind, **{name: _encode(getattr(value, name), where) for name in attributes}}}
    name = where.partition("[")[0]
    raise ValueError(
        f"{where} is {value!r}, which cannot be written as data. Numbers, text, lists, tuples, dicts, arrays, classes and the "
        f"schedules ConstantSchedule and LinearSchedule of stable_baselines3.common.utils can. To write another value in its "
        f"place: export(path, {name}=...)"
    )


def _decode(value: Any, where: str, classes: dict[str, Any]) -> Any:
    """
    The inverse of :func:`_encode`, for a value whose depth was checked.

    :param value: from the file
    :param where: its name in error messages
    :param classes: those that may be named
    :raises ValueError: for anything that :func:`_encode` does not write
    """
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, list):
        return [_decode(item, f"{where}[{i}]", classes) for i, item in enumerate(value)]
    kind, content = next(iter(value.items())) if len(value) == 1 else (None, None)
    if kind == "tuple" and isinstance(content, list):
        return tuple(_decode(content, where, classes))
    if kind == "dict" and isinstance(content, dict):
        return {key: _decode(item, f"{where}[{key!r}]", classes) for key, item in content.items()}
    if kind == "number" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "array" and isinstance(content, dict):
        return _array(content, where)
    if kind == "class" and isinstance(content, str):
        return _find_class(content, where, classes)
    if kind == "schedule" and isinstance(content, dict):
        return _decode_schedule(content, where, classes)
    raise ValueError(
        f"{where}: the file has {_shortened(value)}; "
        "an object must have one key, of tuple, dict, number, array, class and schedule"
    )


def _decode_schedule(content: dict[str, Any], where: str, classes: dict[str, Any]) -> Any:
    schedule, attributes = SCHEDULES.get(str(content.get("kind")), (None, ()))
    values = [content.get(name) for name in attributes]
    numbers = [_decode(value, where, classes) if isinstance(value, dict) else value for value in values]
    fields_fit = content.keys() == {"kind", *attributes}
    if schedule is None or not fields_fit or not all(type(one) in (int, float) for one in numbers):
        known = {kind: attributes for kind, (_, attributes) in SCHEDULES.items()}
        raise ValueError(f"{where}: the file has the schedule {_shortened(content)}; known are {known}, with numbers")
    return schedule(*numbers)


def _class_name(cls: type) -> str:
    for name, known in CLASSES.items():
        if known is cls:
            return name
    return f"{cls.__module__}.{cls.__qualname__}"


def _find_class(name: str, where: str, classes: dict[str, Any]) -> Any:
    if name not in classes:
        raise ValueError(
            f"{where}: the file names {_shortened(name)}, which is not among the classes of torch.nn, torch.optim, "
            f"stable_baselines3 and sb3_mirl that a file may name; nothing was imported. If it is a class of yours: "
            f"load_exported(path, custom_objects={{{_shortened(name)}: ...}})"
        )
    kind = KINDS.get(where.rpartition("[")[2].strip("']"))
    found = classes[name]
    if kind is not None and not is_class(found, kind):
        raise ValueError(f"{where}: must be a subclass of {kind.__name__}, the file names {name!r}")
    return found


def _numbers(array: np.ndarray) -> Any:
    """The elements, or the only one if all are equal: an image's bounds. Infinities as text, which JSON can write."""
    flat = array.ravel()
    if (
        flat.size
        and (flat == flat[0]).all()
        and not (array.dtype.kind == "f" and (np.signbit(flat) != np.signbit(flat[0])).any())
    ):
        return _number(flat[0].item())
    return [_number(value) for value in flat.tolist()]


def _number(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _array(content: dict[str, Any], where: str) -> np.ndarray:
    """The array of which :func:`_encode` and :func:`_encode_space` write dtype, shape and values."""
    if content.keys() != {"dtype", "shape", "values"}:
        raise ValueError(f"{where}: an array must have dtype, shape and values, the file has {sorted(content)}")
    try:
        dtype, shape, values = _dtype(content["dtype"]), tuple(content["shape"]), content["values"]
        n_elements = _n_elements(content["shape"])
        if isinstance(values, list) and len(values) != n_elements:
            raise ValueError(f"{len(values)} values")
        # Element by element in its own type: through float64 the largest int64 would change
        flat = [dtype.type(_plain(value)) for value in values] if isinstance(values, list) else dtype.type(_plain(values))
        return np.array(flat, dtype=dtype).reshape(shape) if isinstance(values, list) else np.full(shape, flat, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: the file has no array in {_shortened(content)} ({error})") from error


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"dtype must be one of {[*DTYPES]}, got {_shortened(name)}")
    return DTYPES[name]


def _n_elements(shape: Any) -> int:
    """Of an array, which is not made before this was called."""
    fits = isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(axis) is int and axis >= 0 for axis in shape)
    if not fits or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(
            f"a shape must have at most {MOST_AXES} axes, integers >= 0, and at most {MOST_ELEMENTS} elements, "
            f"got {_shortened(shape)}"
        )
    return math.prod(shape)


def _plain(value: Any) -> Any:
    if value in ("inf", "-inf", "nan") or type(value) in (int, float, bool):
        return float(value) if isinstance(value, str) else value
    raise ValueError(f"{_shortened(value)} is not a number")


# ---- spaces ------------------------------------------------------------------------------------------------------------


def _encode_space(space: spaces.Space, where: str) -> dict[str, Any]:
    """
    :param space: a Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them
    :param where: its name in error messages
    :raises ValueError: if it is another
    """
    dtype = space.dtype.name if space.dtype is not None else ""
    if not isinstance(space, spaces.Dict) and dtype not in DTYPES:
        raise ValueError(f"{where} must have one of the dtypes {[*DTYPES]}, got {space!r}")
    if type(space) is spaces.Box:
        shape = list(space.shape)
        return {"Box": {"dtype": dtype, "shape": shape, "low": _numbers(space.low), "high": _numbers(space.high)}}
    if type(space) is spaces.Discrete:
        return {"Discrete": {"dtype": dtype, "n": int(space.n), "start": int(space.start)}}
    if type(space) is spaces.MultiDiscrete:
        shape = list(space.nvec.shape)
        return {
            "MultiDiscrete": {"dtype": dtype, "shape": shape, "nvec": _numbers(space.nvec), "start": _numbers(space.start)}
        }
    if type(space) is spaces.MultiBinary:
        return {"MultiBinary": {"n": space.n if isinstance(space.n, int) else list(space.n)}}
    if type(space) is spaces.Dict and all(isinstance(key, str) for key in space.spaces):
        # An array, because the order counts
        return {"Dict": [[key, _encode_space(part, f"{where}[{key!r}]")] for key, part in space.spaces.items()]}
    raise ValueError(f"{where} must be a Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these, got {space!r}")


_SPACE_FIELDS = {
    "Box": {"dtype", "shape", "low", "high"},
    "Discrete": {"dtype", "n", "start"},
    "MultiDiscrete": {"dtype", "shape", "nvec", "start"},
    "MultiBinary": {"n"},
}


def _decode_space(value: Any, where: str) -> spaces.Space:
    kind, content = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (None, None)
    try:
        if kind == "Dict":
            return spaces.Dict([(str(key), _decode_space(part, f"{where}[{key!r}]")) for key, part in content])  # type: ignore
        if not isinstance(content, dict) or kind not in _SPACE_FIELDS or content.keys() != _SPACE_FIELDS[kind]:
            raise ValueError(f"a space must be a Dict or have the fields of one of {_SPACE_FIELDS}")
        if kind == "MultiBinary":
            _n_elements(content["n"] if isinstance(content["n"], list) else [content["n"]])
            return spaces.MultiBinary(content["n"])
        dtype: Any = _dtype(content["dtype"])
        if kind == "Discrete":
            return spaces.Discrete(content["n"], start=content["start"], dtype=dtype)
        arrays = {
            name: _array({"dtype": dtype.name, "shape": content["shape"], "values": content[name]}, f"{where}.{name}")
            for name in sorted(content.keys() - {"dtype", "shape"})
        }
        return getattr(spaces, kind)(**arrays, dtype=dtype.type)
    except Exception as error:  # Gymnasium raises whatever comes
        raise ValueError(f"{where}: the file has no space in {_shortened(value)} ({printable(error)})") from error


# ---- writing -----------------------------------------------------------------------------------------------------------


def argument_names(algorithm: "type[MIRL]") -> list[str]:
    """The constructor's arguments that a file holds, those of subclasses of MIRL included."""
    names: dict[str, None] = {}
    for cls in algorithm.__mro__:
        if "algorithm" in dir(cls) and "__init__" in vars(cls):
            for name, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and name not in NOT_EXPORTED:
                    names[name] = None
    return [*names]


def _attribute(argument: str) -> str:
    """The attribute in which SB3 keeps a constructor argument."""
    return {"policy": "policy_class", "stats_window_size": "_stats_window_size"}.get(argument, argument)


def export(model: "MIRL", path: str | Path, replaced: dict[str, Any]) -> Path:
    """
    See :meth:`sb3_mirl.MIRL.export`.

    :param model: the model
    :param path: of the file; :data:`SUFFIX` is added if it has no suffix
    :param replaced: constructor arguments to be written in place of the model's
    :return: the path of the file
    :raises ValueError: if something cannot be written as data; the message names it
    """
    names = argument_names(type(model))
    _check_names("export", replaced, names)
    missing = [name for name in names if name not in replaced and not hasattr(model, _attribute(name))]
    if missing:
        raise ValueError(f"{type(model).__name__} has the constructor arguments {missing}, but no attributes of these names")
    arguments = {name: replaced[name] if name in replaced else getattr(model, _attribute(name)) for name in names}
    if isinstance(arguments["train_freq"], TrainFreq):
        arguments["train_freq"] = (arguments["train_freq"].frequency, arguments["train_freq"].unit.value)
    tensors, optimizer = _split_optimizer_state(model.policy.optimizer)
    tensors |= {f"policy.{name}": _tensor(value, name) for name, value in _policy(model).state_dict().items()}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": model.algorithm,
        "arguments": {name: _encode(value, name) for name, value in arguments.items()},
        "observation_space": _encode_space(model.observation_space, "observation_space"),
        "action_space": _encode_space(model.action_space, "action_space"),
        "action_names": model.action_names,
        "training": _training(model),
        "optimizer": optimizer,
        "versions": _versions(),
        "frozen": [name for name, parameter in _policy(model).named_parameters() if not parameter.requires_grad],
        "learning_curve": model.learning_curve,
    }
    path = Path(path)
    path = path if path.suffix else path.with_name(path.name + SUFFIX)
    text = json.dumps(document, allow_nan=False)
    # What reading would refuse must not be written
    _check_document(parse_json(text), path)
    content = safetensors.torch.save(tensors, {FORMAT: text})
    _check_header_size(int.from_bytes(content[:8], "little"), path)
    write_whole(path, content)
    return path


def _training(model: "MIRL") -> dict[str, Any]:
    resolved = {name: getattr(model, name, None) for name in RESOLVED}
    return {
        **{name: kind(getattr(model, attribute)) for name, (attribute, kind) in TRAINING.items()},
        **{name: None if value is None else float(value) for name, value in resolved.items()},
    }


def _policy(model: "MIRL") -> MIRLPolicy:
    """The policy without the wrapper of ``th.compile``, which renames what is in ``state_dict``."""
    return getattr(model.policy, "_orig_mod", model.policy)


def _versions() -> dict[str, str]:
    from sb3_mirl import __version__  # not there yet while sb3_mirl is being imported

    modules = {"stable_baselines3": stable_baselines3, "torch": th, "gymnasium": gymnasium, "numpy": np}
    others = {name: str(module.__version__) for name, module in modules.items()}
    return {"sb3_mirl": __version__, **others, "python": platform.python_version()}


def _split_optimizer_state(optimizer: th.optim.Optimizer) -> tuple[dict[str, th.Tensor], dict[str, Any]]:
    """The tensors of the optimiser's ``state_dict``, by name in the file, and what else there is, for JSON."""
    state_dict = optimizer.state_dict()
    tensors: dict[str, th.Tensor] = {}
    state: dict[str, dict[str, Any]] = {}
    for index, entries in state_dict["state"].items():
        if not entries:
            continue  # made by merely looking at the state
        plain = state[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, th.Tensor):
                tensors[f"optimizer.{index}.{key}"] = _tensor(value, key)
            else:
                plain[key] = _encode(value, f"the optimiser's {key}")
    groups = [{key: _encode(value, f"the optimiser's {key}") for key, value in g.items()} for g in state_dict["param_groups"]]
    return tensors, {"state": state, "param_groups": groups}


def _tensor(value: Any, name: str) -> th.Tensor:
    if not isinstance(value, th.Tensor):
        raise ValueError(f"{name} of the policy must be a tensor to be exported, got {value!r}")
    # A copy: safetensors refuses tensors that share memory
    return value.detach().cpu().clone(memory_format=th.contiguous_format)


# ---- reading -----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """
    An exported file. Nothing is built from it, and no tensor is read before it is asked for.

    :param path: of the file; :data:`SUFFIX` may be left out
    :return: the document, with the fields and types of :data:`FIELDS`, and safetensors' reader of the tensors
    :raises ValueError: if it is not such a file, or damaged
    :raises OSError: if it is not there, or cannot be read
    """
    path = Path(path)
    if not path.suffix and not path.exists():
        path = path.with_name(path.name + SUFFIX)
    check_regular_file(path)
    try:
        document = _read_document(path)
        with safetensors.safe_open(path, framework="pt") as file:
            yield document, file
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def check_regular_file(path: Path) -> None:
    """Before it is opened: opening a named pipe would wait for a writer."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} must be a file, and is a {'folder' if path.is_dir() else 'pipe, socket or device'}")


def _read_document(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise _damaged(path, f"its header must have at most {LARGEST_HEADER} bytes, and says {length}")
        header = file.read(length)
    try:
        found = parse_json(header.decode())
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise _damaged(path, "its header is no JSON object")
    metadata = found.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(FORMAT), str):
        raise ValueError(
            f"{path} is a safetensors file, but was not written by sb3_mirl's export: no {FORMAT!r} in its metadata"
        )
    try:
        document = parse_json(metadata[FORMAT])
    except ValueError as error:
        raise ValueError(f"{path}: the metadata {FORMAT!r} is not JSON: {error}") from error
    _check_document(document, path)
    return document


def _damaged(path: Path, reason: object) -> ValueError:
    with open(path, "rb") as file:
        kind = MAGIC.get(file.read(2))
    hint = f"; it looks like {kind}" if kind else ""
    return ValueError(f"{path} is not a safetensors file, or damaged: {printable(reason)}{hint}")


def _check_header_size(size: int, path: Path) -> None:
    if size > LARGEST_HEADER:
        raise ValueError(
            f"{path}: the arguments, the bounds of the spaces and the names of the tensors must fit into {LARGEST_HEADER} "
            f"bytes, and take {size}"
        )


def parse_json(text: str) -> Any:
    """
    JSON of a file, more strictly than Python's reader: no NaN and no infinity, no integer of more than 64 bits, no key twice.

    :param text: the JSON
    :raises ValueError: if it is something else, or nested too deeply for Python's reader
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique_keys, parse_int=_integer, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"a key is there twice, among {_shortened([key for key, _ in pairs])}")
    return unique


def _integer(text: str) -> int:
    number = int(text[:21])  # Python refuses thousands of digits by itself, with another message
    if len(text) > 20 or not -(2**63) <= number < 2**64:
        raise ValueError(f"integers must have at most 64 bits, got {text[:40]}")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"numbers must be finite, got {text[:40]}")
    return float(text)


def check_depth(value: Any, deepest: int = DEEPEST) -> None:
    """
    :param value: of JSON
    :param deepest: levels of lists and dicts that it may have
    :raises ValueError: if it has more
    """
    for _ in _containers(value, deepest):
        pass


def _containers(value: Any, deepest: int) -> Iterator[Any]:
    """The lists and dicts in JSON, but for the elements of arrays and the bounds of spaces."""
    if not isinstance(value, (list, dict)):
        return
    if deepest == 0:
        raise ValueError(f"lists and objects must be nested at most {DEEPEST} deep")
    yield value
    numbers_of_array = isinstance(value, dict) and "dtype" in value
    for child in value.values() if isinstance(value, dict) else value:
        if not (numbers_of_array and isinstance(child, list) and not any(isinstance(one, (list, dict)) for one in child)):
            yield from _containers(child, deepest - 1)


def _check_sizes(document: dict[str, Any]) -> None:
    n_elements = 0
    for name, field in document.items():
        n_values, most = 0, MOST_VALUES.get(name, MOST_OTHER_VALUES)
        for container in _containers(field, DEEPEST):
            n_values += len(container)
            if isinstance(container, dict) and "dtype" in container:
                n_elements += _n_elements(container.get("shape", []))
            if n_values > most:
                raise ValueError(f"{_shortened(name)} must have at most {most} values")
            if n_elements > MOST_ELEMENTS:
                raise ValueError(f"arrays and spaces must have at most {MOST_ELEMENTS} elements together")


def _check_document(document: Any, path: Path) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: the format must be {FORMAT!r}, the file has {_shortened(document)}")
    if document.get("version") != VERSION:
        version = _shortened(document.get("version"))
        raise ValueError(f"{path}: this version of sb3_mirl reads format version {VERSION}, got {version}")
    try:
        _check_sizes(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _check_fields(f"{path}", document, FIELDS, NEWER_FIELDS)
    for name, value in document.items():
        types = {**FIELDS, **NEWER_FIELDS}[name]
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(f"{path}: {name} must be {' or '.join(t.__name__ for t in types)}, got {_shortened(value)}")
    _check_training(document["training"], path)
    for name in ("action_names", "versions", "frozen"):
        content = document.get(name)
        values = content.values() if isinstance(content, dict) else content or ()
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{path}: {name} must hold text, got {_shortened(content)}")
    if not learning_curve.is_curve(document.get("learning_curve", learning_curve.new_curve())):
        raise ValueError(f"{path}: learning_curve must be one, got {_shortened(document['learning_curve'])}")


def _check_training(training: dict[str, Any], path: Path) -> None:
    _check_fields(f"{path}: training", training, TRAINING, RESOLVED)
    for name, (_, kind) in TRAINING.items():
        value, largest = training[name], {"n_envs": MOST_ENVS}.get(name, 2**63 if kind is int else 1)
        if type(value) not in (kind, int) or not 0 <= value <= largest:
            raise ValueError(f"{path}: training: {name} must be {kind.__name__} and in range, got {_shortened(value)}")
    if training["n_envs"] < 1:
        raise ValueError(f"{path}: training: n_envs must be at least 1, got {training['n_envs']}")
    for name in RESOLVED:
        value = training.get(name)
        if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
            raise ValueError(f"{path}: training: {name} must be a number in [0, 1] or null, got {_shortened(value)}")


def _check_fields(what: str, given: Any, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    needed, accepted = set(needed), {*needed, *optional}
    if not isinstance(given, dict):
        raise ValueError(f"{what}: must have the fields {sorted(accepted)}, got {_shortened(given)}")
    unknown, missing = sorted(given.keys() - accepted), sorted(needed - given.keys())
    if unknown or missing:
        raise ValueError(
            f"{what}: unknown fields {_shortened(unknown)}, missing fields {_shortened(missing)}; "
            f"accepted are {_shortened(sorted(accepted))}"
        )


def _check_names(function: str, given: dict[str, Any], accepted: Iterable[str]) -> None:
    for name in given:
        if name not in accepted:
            raise ValueError(
                f"{function} has no argument {name!r}; constructor arguments that it takes are {sorted(accepted)}"
            )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def load(
    cls: "type[MIRL]",
    path: str | Path,
    env: GymEnv | None,
    device: th.device | str,
    custom_objects: dict[str, type] | None,
    replaced: dict[str, Any],
) -> "MIRL":
    """
    See :meth:`sb3_mirl.MIRL.load_exported`.

    :param cls: what to build
    :param path: of the file
    :param env: the environment to go on with
    :param device: where the model is to run
    :param custom_objects: classes of the user's, by the names that the file has for them
    :param replaced: constructor arguments to be used in place of the file's
    :return: the model
    :raises ValueError: if the file is refused; the message says what in it and why
    """
    with opened(path) as (document, file):
        if document["algorithm"] != cls.algorithm:
            raise ValueError(
                f"The file holds the algorithm {_shortened(document['algorithm'])}, and {cls.__name__}.load_exported loads "
                f"{cls.algorithm}: load it with the class that exported it"
            )
        arguments = _arguments(cls, document["arguments"], custom_objects or {}, replaced)
        space, action_space = (_decode_space(document[name], name) for name in ("observation_space", "action_space"))
        names = document["action_names"]
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"action_space: must be Discrete, the file has {action_space}")
        # The logger tells them apart by 25 characters
        if names is not None and not len(names) == len({name[:25] for name in names}) == action_space.n:
            raise ValueError(f"action_names must be {action_space.n} that differ, the file has {_shortened(names)}")
        training = dict(document["training"])
        # A number that was resolved from "auto" ends with the argument that it was resolved from
        training |= {name: None for name in RESOLVED if name.removeprefix("resolved_") in replaced}
        if env is not None:
            env = cls._wrap_env(env, check_argument("verbose", arguments, cls.argument_rules))  # type: ignore[arg-type]
            check_for_correct_spaces(env, space, action_space)
            training["n_envs"] = env.num_envs
        attributes = {
            **{_attribute(name): value for name, value in arguments.items() if name != "policy"},
            **{name if name in RESOLVED else TRAINING[name][0]: value for name, value in training.items()},
            "observation_space": space,
            "action_space": action_space,
            "action_names": names,
            "learning_curve": document.get("learning_curve", learning_curve.new_curve()),
        }
        model = _build(cls, arguments["policy"], env, device, attributes, file, trusted=bool(custom_objects))
        _load_tensors(model, file, document["optimizer"])
    _freeze(model, document.get("frozen"))
    return model


def _arguments(
    cls: "type[MIRL]", given: dict[str, Any], custom_objects: dict[str, type], replaced: dict[str, Any]
) -> dict[str, Any]:
    """The constructor's arguments: those of the file, and in place of some those that the caller gave."""
    names = argument_names(cls)
    _check_names("load_exported", replaced, [*names, "tensorboard_log"])
    # A subclass may have arguments with defaults that its parent's files do not know
    required = [name for name in names if name in given or name in argument_names(_base(cls))]
    _check_fields("arguments", given, required)
    arguments = {name: _decode(value, name, {**CLASSES, **custom_objects}) for name, value in given.items()}
    if "policy_kwargs" in replaced and replaced["policy_kwargs"] != arguments["policy_kwargs"]:
        raise ValueError(f"policy_kwargs must be the file's, {arguments['policy_kwargs']}, got {replaced['policy_kwargs']}")
    return arguments | replaced


def _build(
    cls: "type[MIRL]",
    policy: Any,
    env: GymEnv | None,
    device: th.device | str,
    attributes: dict[str, Any],
    file: Any,
    trusted: bool,
) -> "MIRL":
    """The model, with its own random weights."""
    try:
        model = cls(policy=policy, env=env, device=device, _init_setup_model=False)  # type: ignore[arg-type]
        model.__dict__.update(attributes)
        model.check_model_arguments()
        _check_network(model, file, trusted)
        model._setup_model()
    except (ValueError, safetensors.SafetensorError):
        raise
    except Exception as error:  # whatever a constructor makes of arguments that it does not expect
        reason = _shortened(printable(f"{type(error).__name__}: {error}"))
        raise ValueError(f"No model can be built from the file's arguments: {reason}") from error
    return model


def _check_network(model: "MIRL", file: Any, trusted: bool) -> None:
    """
    Whether the file has the weights of the network that its arguments describe: otherwise a small file could ask for a network
    that does not fit into memory. torch's device ``meta`` computes shapes without any.

    :param trusted: whether the policy may be of the user's classes, which need not be able to do without memory
    """
    kwargs = {**copy.deepcopy(model.policy_kwargs), "optimizer_class": th.optim.SGD, "optimizer_kwargs": {}}
    shapes_only: Any = type("ShapesOnly", (model.policy_class,), {"device": th.device("meta")})
    try:
        with th.device("meta"):
            policy = shapes_only(copy.deepcopy(model.observation_space), model.action_space, lambda _: 1.0, **kwargs)
    except Exception:
        if trusted:
            return
        raise
    _check_tensors(file, {f"policy.{name}": value for name, value in policy.state_dict().items()}, "policy.")


def _check_tensors(file: Any, expected: Mapping[str, th.Tensor], prefix: str) -> None:
    """Whether the file has just these tensors, of these shapes and dtypes, among those whose names begin with ``prefix``."""
    names = {name for name in file.keys() if name.startswith(prefix)}
    unknown, missing = sorted(names - expected.keys()), sorted(expected.keys() - names)
    if unknown or missing:
        raise ValueError(
            f"Tensors that the model does not have: {_shortened(unknown)}; "
            f"tensors that the file does not have: {_shortened(missing)}"
        )
    for name, value in expected.items():
        given = file.get_slice(name)
        shape, dtype = given.get_shape(), TENSOR_DTYPES.get(given.get_dtype(), given.get_dtype())
        if (shape, dtype) != ([*value.shape], value.dtype):
            raise ValueError(
                f"{name} must be {value.dtype} of shape {tuple(value.shape)}, the file has {dtype} of shape {tuple(shape)}"
            )


def _base(cls: "type[MIRL]") -> "type[MIRL]":
    """MIRL itself, which this module cannot import."""
    return next(item for item in cls.__mro__ if "algorithm" in vars(item))


def _load_tensors(model: "MIRL", file: Any, optimizer: dict[str, Any]) -> None:
    policy = model.policy
    # One step without gradients shows which state the optimiser has, in which shapes; all of it is overwritten below
    for parameter in (parameter for group in policy.optimizer.param_groups for parameter in group["params"]):
        parameter.grad = th.zeros_like(parameter)
    try:
        policy.optimizer.step()
    except Exception as error:  # whatever the optimiser makes of its settings
        reason = _shortened(printable(error))
        raise ValueError(f"The file's optimizer_kwargs do not make an optimiser that works: {reason}") from error
    policy.optimizer.zero_grad()
    optimizer_tensors, built = _split_optimizer_state(policy.optimizer)
    _check_fields("optimizer", optimizer, built)
    # Parameters that were frozen, or not used, have none
    _check_fields("optimizer: state", optimizer["state"], (), built["state"])
    expected = {name: value for name, value in optimizer_tensors.items() if name.split(".")[1] in optimizer["state"]}
    expected |= {f"policy.{name}": value for name, value in policy.state_dict().items()}
    _check_tensors(file, expected, "")
    # Copies: the file may go away
    tensors = {name: file.get_tensor(name).clone() for name in expected}
    _check_prior_and_beta(tensors["policy.prior"], tensors["policy.beta"])
    policy.load_state_dict({name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")})
    policy.optimizer.load_state_dict(_optimizer_state(optimizer, built, tensors))


def _freeze(model: "MIRL", frozen: list[str] | None) -> None:
    """Older files do not say which parameters were frozen: None leaves them as the policy's constructor makes them."""
    if frozen is None:
        return
    parameters = dict(_policy(model).named_parameters())
    _check_fields("frozen", dict.fromkeys(frozen), (), parameters)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in frozen)


def _check_prior_and_beta(prior: th.Tensor, beta: th.Tensor) -> None:
    if not bool((prior >= 0).all()) or not abs(prior.sum().item() - 1) <= 1e-6:
        raise ValueError(f"policy.prior must be non-negative numbers that sum to 1, the file has {_shortened(prior.tolist())}")
    if not beta.item() >= 0:
        raise ValueError(f"policy.beta must be at least 0, the file has {beta.item()}")


def _optimizer_state(given: dict[str, Any], built: dict[str, Any], tensors: dict[str, th.Tensor]) -> dict[str, Any]:
    """
    The optimiser's ``state_dict``, from the file.

    :param given: what the file has beside the tensors
    :param built: the same of the optimiser built from the file's arguments
    :param tensors: of the file
    :raises ValueError: where they contradict each other
    """
    groups = given["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(built["param_groups"]):
        raise ValueError(f"optimizer: must have {len(built['param_groups'])} param_groups, the file has {_shortened(groups)}")
    state: dict[int, dict[str, Any]] = {}
    for index, entries in given["state"].items():
        expected = built["state"][index]
        _check_fields(f"optimizer: state[{index}]", entries, expected)
        state[int(index)] = {key: _optimizer_value(key, entries[key], expected[key]) for key in expected}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, position, key = name.split(".", 2)
            state[int(position)][key] = value
    return {"state": state, "param_groups": [*map(_optimizer_group, groups, built["param_groups"])]}


def _optimizer_group(group: Any, expected: dict[str, Any]) -> dict[str, Any]:
    # An older torch may have had fewer settings: they keep their defaults
    if not isinstance(group, dict) or not {"lr", "params"} <= group.keys() <= expected.keys():
        raise ValueError(f"optimizer: a group has the settings {sorted(expected)}, the file has {_shortened(group)}")
    for key, value in group.items():
        # The learning rate follows its schedule, and `fused` the device
        if key not in ("lr", "initial_lr", "fused", "foreach") and value != expected[key]:
            own = _shortened(expected[key])
            raise ValueError(f"optimizer: {key} must be {own} as in optimizer_kwargs, the file has {_shortened(value)}")
    if type(group["lr"]) not in (int, float) or not group["lr"] >= 0:
        raise ValueError(f"optimizer: lr must be a number >= 0, the file has {_shortened(group['lr'])}")
    settings = {**expected, **group, **{key: expected[key] for key in ("fused", "foreach") if key in expected}}
    return {key: _optimizer_value(key, value, expected[key]) for key, value in settings.items()}


def _optimizer_value(key: str, given: Any, expected: Any) -> Any:
    """A number or something else of the optimiser's, which must be of the same type as the optimiser's own."""
    value, own = (_decode(one, f"optimizer: {key}", {}) for one in (given, expected))
    numbers = {type(value), type(own)} <= {int, float}
    if type(value) is not type(own) and not numbers:
        raise ValueError(f"optimizer: {key} must be of the type of {_shortened(own)}, the file has {_shortened(value)}")
    return value


# ---- ONNX --------------------------------------------------------------------------------------------------------------


class _Acting(th.nn.Module):
    """
    What acting computes, with preprocessing, ρ and β inside.

    :param policy: the policy
    :param keys: of Dict observations; empty for others
    """

    def __init__(self, policy: MIRLPolicy, keys: list[str]) -> None:
        super().__init__()
        self.q_net, self.keys, self.first_action = policy.q_net, keys, int(policy.action_space.start)  # type: ignore[attr-defined]
        self.register_buffer("prior", policy.reference_prior.clone())
        # Its limits here, because ONNX's exporter rounds those inside soft_policy to float32: 0 and ∞
        self.register_buffer("beta", policy.beta.clamp(operators.SMALLEST_BETA, operators.LARGEST_BETA))

    def forward(self, *observations: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        observation: Any = dict(zip(self.keys, observations, strict=True)) if self.keys else observations[0]
        q_values = self.q_net(observation)
        probabilities = operators.soft_policy(q_values.double(), self.prior, self.beta)  # type: ignore[arg-type]
        return probabilities.argmax(dim=1) + self.first_action, probabilities, q_values


def export_onnx(model: "MIRL", path: str | Path) -> None:
    """
    Write the policy that acts, argmaxₐ π(a|s), as one ONNX file.

    Inputs are observations with a batch axis of any length, as the environment gives them and in its dtype, images
    channel-first: ``observation``, or for Dict spaces one by the name of each key. Outputs are ``action`` int64 [batch],
    ``probabilities`` π(·|s) float64 [batch, n_actions] and ``q_values`` float32 [batch, n_actions]. Division of images by
    255, one-hot encoding, ρ and β (both in float64) are inside; exploration and ``VecNormalize`` are not.

    :param model: a MIRL, SQL or SQLm
    :param path: of the file, replaced as a whole
    :raises ImportError: without the packages of the extra ``onnx``
    :raises ValueError: if a key of a Dict space has the name of an output
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Writing ONNX needs more packages ({error}): pip install 'sb3-mirl[onnx]'") from error

    outputs = ["action", "probabilities", "q_values"]
    space, policy = model.observation_space, _policy(model)
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    if parts.keys() & set(outputs):
        raise ValueError(f"Keys of the observation space must not have the names of outputs, {outputs}: got {sorted(parts)}")
    # Two observations: torch takes a length of 1 for a constant
    samples = [np.stack([part.sample()] * 2) for part in parts.values()]
    tensors = tuple(th.as_tensor(sample, device=policy.device) for sample in samples)
    policy.set_training_mode(False)
    acting = _Acting(policy, [*parts] if isinstance(space, spaces.Dict) else [])
    with _quiet_exporter():
        program = th.onnx.export(
            acting.eval(),
            tensors,
            dynamo=True,
            input_names=[*parts],
            output_names=outputs,
            dynamic_shapes=(tuple({0: th.export.Dim("batch")} for _ in tensors),),
            verbose=False,
        )
    proto = program.model_proto  # type: ignore[union-attr]
    for key, value in {"algorithm": model.algorithm, "action_names": json.dumps(model.action_names)}.items():
        proto.metadata_props.add(key=f"sb3_mirl.{key}", value=value)
    write_whole(Path(path), proto.SerializeToString())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on torchvision, which has no part in this, and on its own workings."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
