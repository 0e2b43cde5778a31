"""
The state of environments and callbacks as plain data, and back into others that were made in the same way.

:func:`capture` walks through an object's attributes and writes down what it finds by value: numbers, texts, arrays, random
generators, containers, objects of Python classes, and the state of Atari's emulator. :func:`restore` puts that into another
object of the same classes, in place. Nothing is pickled, and no code of the file's choosing runs: pickles of environments
would be both unsafe and wrong, since Gymnasium's ``EzPickle`` makes a new environment of them.

What an object cannot tell (the memory of a C library, a generator that is under way) is left out and reported.
"""

import collections
import csv
import enum
import functools
import io
import logging
import pathlib
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecMonitor

from sb3_mirl.checks import is_class

#: Belongs to the program, not to its state: the object to be restored has its own
_PROGRAM = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    functools.partial,
    staticmethod,
    classmethod,
    weakref.ref,
    io.IOBase,
    logging.Logger,
    pathlib.PurePath,
    np.dtype,
    th.dtype,
    th.device,
    BasePolicy,
    EnvSpec,
    BaseAlgorithm,
    BaseCallback,
    Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    type(csv.writer(io.StringIO())),
)
#: What draws on the screen
_DISPLAY_PACKAGES = ("pygame", "tqdm", "rich", "matplotlib")
#: Of these classes, attributes that are no state: the infos of the latest step, and a table of methods
_PASSING = ((DummyVecEnv, ("buf_infos", "reset_infos")), (VecEnvWrapper, ("class_attributes",)))
_ENVIRONMENTS = (gym.Env, gym.vector.VectorEnv, VecEnv)
#: What counts seconds since its ``t_start``: not those between a checkpoint and the resumption
_TIMED = (Monitor, VecMonitor)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_IMMUTABLE = frozenset({type(None), bool, int, float, str})
_BYTES_OF_A_PYTHON_OBJECT = object.__basicsize__ + 2 * tuple.__itemsize__


class UnknownClass(ValueError):
    """A state has an object of a class that is not there, or of which no objects may be made."""


class State:
    """
    What :func:`capture` found.

    :param tree: of dicts, lists, numbers and texts, as JSON knows them
    :param arrays: uint8 [n], to which the tree refers by number
    :param missing: what could not be captured: where it is, and its type
    """

    def __init__(self, tree: Any, arrays: list[np.ndarray], missing: list[str]) -> None:
        self.tree, self.arrays, self.missing = tree, arrays, missing


def capture(root: Any) -> State:
    """
    The state of an object and of all that it refers to.

    :param root: an environment, or a dict of values by name, of which each is captured whole or not at all
    """
    try:
        return _captured(root)
    except RecursionError:
        return State({"is": "missing"}, [], ["a structure that is nested too deeply"])


def _captured(root: Any) -> State:
    walk = _Capture()
    if type(root) is dict:
        tree = {"is": "dict", "id": -1, "type": "dict", "pairs": [*map(list, walk.entries(root.items(), "").items())]}
    else:
        tree = walk.value(root, "")
    return State(tree, walk.arrays, walk.missing)


def restore(root: Any, state: State) -> Any:
    """
    Puts a state into an object that was made like the captured one.

    :param root: is changed in place
    :param state: from :func:`capture`
    :return: ``root``, or what takes its place if it cannot be changed
    :raises ValueError: if the object is of another class or structure than the captured one
    """
    return _Restore(state, root).value(state.tree, root, "")


class _Capture:
    """One walk. Objects that are met again are written as references, so that what was shared stays shared."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.missing: list[str] = []
        self._dealt_with = 0
        # By id; the objects are kept, since an id is free when its object is gone
        self._seen: dict[int, tuple[int, Any]] = {}
        self._owners: dict[int, tuple[int, Any]] = {}

    def value(self, value: Any, path: str) -> Any:
        if type(value) in _IMMUTABLE:
            return value
        if isinstance(value, _PROGRAM) or _package(value) in _DISPLAY_PACKAGES:
            return {"is": "program"}
        if id(value) in self._seen:
            return {"is": "same", "id": self._seen[id(value)][0]}
        for accepts, name, take, _ in _KINDS:
            if accepts(value):
                number = len(self._seen)
                self._seen[id(value)] = number, value
                return {"is": name, "id": number, **take(self, value, path)}
        self.missing.append(f"{path.lstrip('.') or 'it'} ({_qualified_name(type(value))})")
        return {"is": "missing"}

    def all_entries(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """The values by name."""
        return {name: self.value(value, f"{path}.{name}") for name, value in values}

    def entries(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """The values that can be captured whole, by name. Environments inside of them see to themselves."""
        entries: dict[str, Any] = {}
        for name, value in values:
            node = self.value(value, f"{path}.{name}")
            if len(self.missing) > self._dealt_with:
                node, self._dealt_with = {"is": "missing"}, len(self.missing)
            entries[name] = node
        return entries

    def owner(self, array: np.ndarray) -> int:
        """A number for the memory of an array, which is shared by its views."""
        owner = _owner(array)
        return self._owners.setdefault(id(owner), (len(self._owners), owner))[0]

    def bytes(self, content: Any) -> int:
        self.arrays.append(np.frombuffer(content, dtype=np.uint8))
        return len(self.arrays) - 1


class _Restore:
    """The way back. ``old`` is always what the object to be restored has in the captured value's place, or None."""

    def __init__(self, state: State, root: Any) -> None:
        self.arrays = state.arrays
        self._made: dict[int, Any] = {}
        # By id of what was changed in place, or of its memory: whose state it has got
        self._taken: dict[int, tuple[Any, Any]] = {}
        self._root = root

    def value(self, node: Any, old: Any, path: str) -> Any:
        if not isinstance(node, dict):
            return node
        kind = node["is"]
        if kind in ("program", "missing"):
            return old
        if kind == "time":
            return time.time() - node["elapsed"]
        if kind == "same":
            return self._made.get(node["id"], old)  # where it was first met, more was missing
        for _, name, _, put in _KINDS:
            if name == kind:
                return put(self, node, self._for_itself(node, old), path)
        raise ValueError(f"unknown kind of state {kind!r} at {path}")

    def _for_itself(self, node: dict[str, Any], old: Any) -> Any:
        """
        ``old``, or a copy where another part of the state has been put into it: that which is one object here, and two in the
        state, as when an environment begins with the same array in several places.
        """
        if node["is"] not in _IN_PLACE or isinstance(old, (*_ENVIRONMENTS, type(None))):
            return old
        is_array = isinstance(old, np.ndarray)
        key, part = (_owner(old), node.get("owner", node["id"])) if is_array else (old, node["id"])
        if self._taken.setdefault(id(key), (part, key))[0] == part:
            return old
        if isinstance(old, (list, dict, collections.deque)):
            return old.copy()
        if node["is"] != "object" or not _is_python_object(old):
            return None
        new = object.__new__(type(old))
        for name, attribute in _attributes(old):
            _set_attribute(new, name, attribute)
        return new

    def made(self, node: dict[str, Any], value: Any) -> Any:
        self._made[node["id"]] = value
        return value

    @functools.cached_property
    def packages(self) -> set[str]:
        """Of the classes in the tree that is restored: objects of these may be made anew."""
        found: set[str] = set()
        pending, seen = [self._root], set()
        while pending:
            one = pending.pop()
            if id(one) in seen or isinstance(one, _PROGRAM):
                continue
            seen.add(id(one))
            if isinstance(one, (list, tuple)):
                pending.extend(one)
            elif isinstance(one, dict):
                pending.extend(one.values())
            elif _is_python_object(one):
                found.update(base.__module__.partition(".")[0] for base in type(one).__mro__)
                pending.extend(dict(_attributes(one)).values())
        return found - {"builtins"}


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _package(value: Any) -> str:
    return str(getattr(type(value), "__module__", "")).partition(".")[0]  # types of SWIG have none


def _qualified_name(cls: type) -> str:
    return f"{getattr(cls, '__module__', '')}.{cls.__qualname__}"


def _is_python_object(value: Any) -> bool:
    """Whether its attributes are all there is to it: no object of a C library, nor of a class derived from one."""
    cls = type(value)
    slots = sum(len(_slots(base)) for base in cls.__mro__)
    return hasattr(value, "__dict__") and cls.__basicsize__ <= _BYTES_OF_A_PYTHON_OBJECT + slots * tuple.__itemsize__


def _slots(cls: type) -> list[str]:
    slots = cls.__dict__.get("__slots__", ())
    names = [slot for slot in ([slots] if isinstance(slots, str) else slots) if slot not in ("__dict__", "__weakref__")]
    private = f"_{cls.__name__.lstrip('_')}"  # as Python calls those that begin with two underscores
    return [f"{private}{name}" if name.startswith("__") and not name.endswith("__") else name for name in names]


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for name, attribute in list(vars(value).items()):
        if not any(isinstance(value, cls) and name in names for cls, names in _PASSING):
            yield name, attribute
    for base in type(value).__mro__:
        for slot in _slots(base):
            if hasattr(value, slot):
                yield slot, getattr(value, slot)


# Each kind of object: whether a value is of it, its name, how it is captured, and how it is restored


def _take_object(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    # Of an environment, some attributes are better than none. Half of another object would be broken
    entries = walk.entries if isinstance(value, _ENVIRONMENTS) else walk.all_entries
    attributes = entries(_attributes(value), path)
    if isinstance(value, _TIMED):
        attributes["t_start"] = {"is": "time", "elapsed": time.time() - value.t_start}
    return {"class": _qualified_name(type(value)), "attributes": attributes}


def _put_object(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if _qualified_name(type(old)) != node["class"]:
        cls = _find_class(walk, node["class"], old, path)
        if path == "" or issubclass(cls, _ENVIRONMENTS):
            raise _mismatch(node["class"], old, path)
        old = object.__new__(cls)
    walk.made(node, old)
    before = dict(_attributes(old))
    for name, child in node["attributes"].items():
        if name in before or _told(child):
            _set_attribute(old, name, walk.value(child, before.get(name), f"{path}.{name}"))
    for name in before.keys() & vars(old).keys() - node["attributes"].keys():
        del vars(old)[name]
    return old


def _told(node: Any) -> bool:
    """Whether a value is in the state, rather than only in the object to be restored."""
    return not isinstance(node, dict) or node["is"] not in ("program", "missing")


def _set_attribute(value: Any, name: str, new: Any) -> None:
    """Not setattr, behind which a property may do more."""
    if any(name in _slots(base) for base in type(value).__mro__):
        object.__setattr__(value, name, new)
    else:
        vars(value)[name] = new


def _find_class(walk: _Restore, name: str, old: Any, path: str) -> type:
    """A class that is already there, and belongs to the packages of what is restored or not to Python's own."""
    package = name.partition(".")[0]
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:end]))
        for part in parts[end:]:
            found = getattr(found, part, None)
        if is_class(found) and (package in walk.packages or package not in sys.stdlib_module_names):
            return found
    if isinstance(old, _ENVIRONMENTS):
        raise _mismatch(name, old, path)
    raise UnknownClass(f"at {path.lstrip('.') or 'the top'} there was a {name}, of which no object can be made here")


def _mismatch(name: str, old: Any, path: str) -> ValueError:
    return ValueError(f"at {path.lstrip('.') or 'the top'} the state has a {name}, the object a {_qualified_name(type(old))}")


def _take_space(walk: _Capture, value: spaces.Space, path: str) -> dict[str, Any]:
    # The rest of a space never changes, and is large for images
    names = [name for name in ("_np_random", "spaces") if name in vars(value)]
    return {"attributes": {name: walk.value(vars(value)[name], f"{path}.{name}") for name in names}}


def _put_space(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    walk.made(node, old)
    if isinstance(old, spaces.Space):
        for name, child in node["attributes"].items():
            vars(old)[name] = walk.value(child, vars(old).get(name), f"{path}.{name}")
    return old


def _take_list(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    # A set has no order: neither of the two that are equal is wrong
    items = [one if type(one) in _IMMUTABLE else walk.value(one, f"{path}[{index}]") for index, one in enumerate(value)]
    return {"items": items, **({"maxlen": value.maxlen} if isinstance(value, collections.deque) else {})}


def _restored_items(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> list[Any]:
    before = list(old) if isinstance(old, (list, tuple, collections.deque)) else []
    before += [None] * (len(node["items"]) - len(before))
    return [walk.value(child, before[index], f"{path}[{index}]") for index, child in enumerate(node["items"])]


def _put_list(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    new = walk.made(node, old if type(old) is list else [])
    new[:] = _restored_items(walk, node, old, path)
    return new


def _put_deque(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    same = type(old) is collections.deque and old.maxlen == node["maxlen"]
    new = walk.made(node, old if same else collections.deque(maxlen=node["maxlen"]))
    items = _restored_items(walk, node, old, path)
    new.clear()
    new.extend(items)
    return new


def _put_tuple(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, tuple(_restored_items(walk, node, old, path)))


def _put_set(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, set(_restored_items(walk, node, None, path)))


def _put_frozenset(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, frozenset(_restored_items(walk, node, None, path)))


def _take_namedtuple(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"class": _qualified_name(type(value)), **_take_list(walk, value, path)}


def _put_namedtuple(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls: Any = type(old) if _qualified_name(type(old)) == node["class"] else _find_class(walk, node["class"], old, path)
    return walk.made(node, cls._make(_restored_items(walk, node, old, path)))


def _take_dict(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    pairs = [[walk.value(key, f"{path}.keys()"), walk.value(one, f"{path}[{key!r}]")] for key, one in value.items()]
    return {"type": type(value).__name__, "pairs": pairs}


_DICTS: dict[str, Callable[[], Any]] = {"dict": dict, "OrderedDict": collections.OrderedDict, "Counter": collections.Counter}


def _put_dict(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if type(old).__name__ != node["type"]:
        # The function of a defaultdict is not known
        old = _DICTS.get(node["type"], collections.OrderedDict)()
    walk.made(node, old)
    before = dict(old)
    pairs = [(walk.value(key, None, path), child) for key, child in node["pairs"]]
    new = [
        (key, walk.value(child, before.get(key), f"{path}[{key!r}]")) for key, child in pairs if key in before or _told(child)
    ]
    old.clear()
    for key, value in new:
        old[key] = value
    return old


def _take_array(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    array = np.asarray(value)
    content = walk.bytes(np.ascontiguousarray(array).tobytes())
    node = {"dtype": array.dtype.str, "shape": array.shape, "scalar": isinstance(value, np.generic), "content": content}
    return {**node, "owner": walk.owner(array)}


def _put_array(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    array = walk.arrays[node["content"]].view(np.dtype(node["dtype"])).reshape(node["shape"])
    if node["scalar"]:
        return walk.made(node, array.reshape(-1)[0])
    if isinstance(old, np.ndarray) and (old.dtype, old.shape) == (array.dtype, array.shape) and old.flags.writeable:
        np.copyto(old, array)
        return walk.made(node, old)
    return walk.made(node, array.copy())


def _take_objects(walk: _Capture, value: np.ndarray, path: str) -> dict[str, Any]:
    return {"shape": value.shape, **_take_list(walk, value.ravel(), path)}


def _put_objects(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = list(old.ravel()) if isinstance(old, np.ndarray) else None
    new = np.empty(len(node["items"]), dtype=object)
    new[:] = _restored_items(walk, node, before, path)
    return walk.made(node, new.reshape(node["shape"]))


def _take_tensor(walk: _Capture, value: th.Tensor, path: str) -> dict[str, Any]:
    content = value.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy().tobytes()
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": tuple(value.shape), "content": walk.bytes(content)}


def _put_tensor(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    content = th.as_tensor(walk.arrays[node["content"]].copy())
    tensor = content.view(getattr(th, node["dtype"])).reshape(node["shape"])
    if isinstance(old, th.Tensor) and (old.dtype, old.shape) == (tensor.dtype, tensor.shape):
        with th.no_grad():
            old.copy_(tensor)
        return walk.made(node, old)
    return walk.made(node, tensor)


def _take_module(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.state_dict(), path)}


def _put_module(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not isinstance(old, (th.nn.Module, th.optim.Optimizer)):
        raise UnknownClass(f"at {path.lstrip('.')} there was a network or an optimiser, of which none can be made here")
    # Not over those that it has, which load_state_dict compares them with
    old.load_state_dict(walk.value(node["state"], None, path))
    return walk.made(node, old)


def _take_bytes(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.bytes(value)}


def _put_bytes(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, walk.arrays[node["content"]].tobytes())


def _put_bytearray(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, bytearray(walk.arrays[node["content"]].tobytes()))


def _take_complex(walk: _Capture, value: complex, path: str) -> dict[str, Any]:
    return {"real": value.real, "imag": value.imag}


def _put_complex(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, complex(node["real"], node["imag"]))


def _take_generator(walk: _Capture, value: np.random.Generator, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.bit_generator.state, path)}


def _put_generator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    state = walk.value(node["state"], None, path)
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"at {path.lstrip('.')} the state has a generator {name!r}, which is none of {_BIT_GENERATORS}")
    if not isinstance(old, np.random.Generator) or type(old.bit_generator).__name__ != name:
        old = np.random.Generator(getattr(np.random, name)())
    old.bit_generator.state = state
    return walk.made(node, old)


def _take_random_state(walk: _Capture, value: np.random.RandomState, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.get_state(legacy=False), path)}


def _put_random_state(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    old = old if isinstance(old, np.random.RandomState) else np.random.RandomState()
    old.set_state(walk.value(node["state"], None, path))
    return walk.made(node, old)


def _take_random(walk: _Capture, value: random.Random, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.getstate(), path)}


def _put_random(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    old = old if isinstance(old, random.Random) else random.Random()
    old.setstate(walk.value(node["state"], None, path))
    return walk.made(node, old)


def _take_enum(walk: _Capture, value: enum.Enum, path: str) -> dict[str, Any]:
    flags = {"flags": int(value.value)} if isinstance(value, enum.Flag) else {}  # those that are combined have no name
    return {"class": _qualified_name(type(value)), "name": value.name, **flags}


def _put_enum(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    module, _, name = node["class"].rpartition(".")
    cls = type(old) if _qualified_name(type(old)) == node["class"] else getattr(sys.modules.get(module), name, None)
    if not is_class(cls, enum.Enum):
        raise ValueError(f"at {path.lstrip('.')} the state has a {node['class']}, which is not an enumeration here")
    return walk.made(node, cls(node["flags"]) if "flags" in node else cls[node["name"]])


def _take_file(walk: _Capture, value: ResultsWriter, path: str) -> dict[str, Any]:
    value.file_handler.flush()
    with open(value.file_handler.name, "rb") as file:
        return {"content": walk.bytes(file.read())}


def _put_file(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if isinstance(old, ResultsWriter):  # it has begun a new file of the same name
        replace_content(old.file_handler, walk.arrays[node["content"]].tobytes())
    return walk.made(node, old)


def replace_content(file: IO[Any], content: bytes) -> None:
    """Makes an open file hold this, and go on thereafter."""
    file.seek(0)
    file.truncate()
    file.write(content.decode())
    file.flush()


def _is_emulator(value: Any) -> bool:
    return _package(value) == "ale_py" and hasattr(value, "cloneSystemState")


def _take_emulator(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.bytes(value.cloneSystemState().__getstate__())}


def _put_emulator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    import ale_py

    if not _is_emulator(old):
        raise ValueError(f"at {path.lstrip('.')} the state has an Atari emulator, the object a {_qualified_name(type(old))}")
    state = ale_py.ALEState.__new__(ale_py.ALEState)
    state.__setstate__(walk.arrays[node["content"]].tobytes())
    old.restoreSystemState(state)
    return walk.made(node, old)


class _StateMethods:
    """
    Teaches the process in which it is unpickled, a worker of ``SubprocVecEnv``, two more methods of environments. Workers
    call methods of their environment, and nothing else.
    """

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _teach_state_methods, ()


def _teach_state_methods() -> None:
    gym.Env.capture_state = capture  # type: ignore[attr-defined]
    gym.Env.restore_state_ = _restore_in_worker  # type: ignore[attr-defined]


def _restore_in_worker(env: gym.Env, state: State) -> ValueError | None:
    """An exception would end the worker, without a word of it in the main process."""
    try:
        restore(env, state)
    except ValueError as error:
        return error
    return None


def _take_workers(walk: _Capture, value: SubprocVecEnv, path: str) -> dict[str, Any]:
    value.set_attr("_sb3_mirl", _StateMethods())
    children = []
    for index, state in enumerate(value.env_method("capture_state")):
        walk.missing += [f"{path}.envs[{index}].{one}" for one in state.missing]
        children.append({"tree": state.tree, "first": len(walk.arrays), "count": len(state.arrays)})
        walk.arrays += state.arrays
    # With which the next reset begins, if there was none yet
    names = ("_seeds", "_options")
    return {"children": children, "attributes": walk.entries([(name, getattr(value, name)) for name in names], path)}


def _put_workers(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not isinstance(old, SubprocVecEnv) or old.num_envs != len(node["children"]):
        raise ValueError(f"at {path.lstrip('.')} the state has a SubprocVecEnv of {len(node['children'])}, the object {old}")
    old.set_attr("_sb3_mirl", _StateMethods())
    for index, child in enumerate(node["children"]):
        arrays = walk.arrays[child["first"] : child["first"] + child["count"]]
        error = old.env_method("restore_state_", State(child["tree"], arrays, []), indices=[index])[0]
        if error is not None:
            raise type(error)(f"{path.lstrip('.')}.envs[{index}]: {error}")
    walk.made(node, old)
    for name, child in node["attributes"].items():
        vars(old)[name] = walk.value(child, vars(old)[name], f"{path}.{name}")
    return old


#: Kinds of which an object that is there may be changed in place
_IN_PLACE = ("array", "tensor", "list", "deque", "dict", "generator", "random_state", "random", "object")


def _of(*types_: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types_


def _kind_of(*types_: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types_)


def _is_plain_array(value: Any) -> bool:
    return isinstance(value, np.generic) or (
        type(value) is np.ndarray and not value.dtype.hasobject and not value.dtype.fields
    )


_KINDS: list[tuple[Callable[[Any], bool], str, Callable[..., dict[str, Any]], Callable[..., Any]]] = [
    (_kind_of(enum.Enum), "enum", _take_enum, _put_enum),
    (_is_plain_array, "array", _take_array, _put_array),
    (lambda value: type(value) is np.ndarray and value.dtype == object, "objects", _take_objects, _put_objects),
    (_kind_of(th.Tensor), "tensor", _take_tensor, _put_tensor),
    (_kind_of(th.nn.Module, th.optim.Optimizer), "module", _take_module, _put_module),
    (_of(list), "list", _take_list, _put_list),
    (_of(tuple), "tuple", _take_list, _put_tuple),
    (lambda value: isinstance(value, tuple) and hasattr(value, "_fields"), "namedtuple", _take_namedtuple, _put_namedtuple),
    (_of(collections.deque), "deque", _take_list, _put_deque),
    (_of(set), "set", _take_list, _put_set),
    (_of(frozenset), "frozenset", _take_list, _put_frozenset),
    (_of(dict, collections.OrderedDict, collections.defaultdict, collections.Counter), "dict", _take_dict, _put_dict),
    (_of(bytes), "bytes", _take_bytes, _put_bytes),
    (_of(bytearray), "bytearray", _take_bytes, _put_bytearray),
    (_of(complex), "complex", _take_complex, _put_complex),
    (_kind_of(np.random.Generator), "generator", _take_generator, _put_generator),
    (_kind_of(np.random.RandomState), "random_state", _take_random_state, _put_random_state),
    (_kind_of(random.Random), "random", _take_random, _put_random),
    (_kind_of(ResultsWriter), "file", _take_file, _put_file),
    (_kind_of(SubprocVecEnv), "workers", _take_workers, _put_workers),
    (_is_emulator, "emulator", _take_emulator, _put_emulator),
    (_kind_of(spaces.Space), "space", _take_space, _put_space),
    (_is_python_object, "object", _take_object, _put_object),
]
