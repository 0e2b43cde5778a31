"""
The state of environments and callbacks as plain data, and back into others that were made in the same way.

:func:`capture` walks through an object's attributes and writes down what it finds by value: numbers, texts, arrays, random
generators, containers, networks, objects of Python classes, and the state of Atari's emulator. :func:`restore` puts that into
another object of the same classes, in place. Nothing is pickled, and no code of the file's choosing runs: pickles of
environments would be both unsafe and wrong, since Gymnasium's ``EzPickle`` makes a new environment of them.

What an object cannot tell (the memory of a C library, a generator that is under way) is left out and reported by name, both
when the state is captured and when it is restored. Neither raises because of it.
"""

import ast
import collections
import contextlib
import copy
import csv
import datetime
import decimal
import enum
import fractions
import functools
import io
import logging
import operator
import pathlib
import random
import re
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import IO, Any, Literal

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecMonitor

from sb3_mirl.common.inputs import is_class

#: Belongs to the program, not to its state: the object to be restored has its own
_PROGRAM = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.GenericAlias,
    type(functools.lru_cache(len)),
    type(...),
    type(NotImplemented),
    operator.itemgetter,
    operator.attrgetter,
    operator.methodcaller,
    staticmethod,
    classmethod,
    property,
    random.SystemRandom,
    re.Pattern,
    io.IOBase,
    logging.Logger,
    pathlib.PurePath,
    np.ufunc,
    np.dtype,
    th.dtype,
    th.device,
    EnvSpec,
    KVWriter,
    Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    type(csv.writer(io.StringIO())),
)
#: What draws on the screen, or writes logs
_OUTPUT_MODULES = tuple(
    "pygame.surface pygame.display pygame.window pygame.time pygame.font pygame.mixer pygame.color tqdm rich matplotlib "
    "tensorboard tensorboardX torch.utils.tensorboard wandb mlflow".split()
)
#: What stands for something outside of the object: processes, connections, files
_RESOURCE_MODULES = ("subprocess", "multiprocessing", "concurrent", "asyncio", "socket", "ssl", "selectors", "tempfile")
#: Of these classes, attributes that are no state
_PASSING: tuple[tuple[type, Collection[str]], ...] = (
    (DummyVecEnv, frozenset({"buf_infos", "reset_infos"})),  # of the latest step
    (VecEnvWrapper, frozenset({"class_attributes"})),  # a table of methods
    (BaseCallback, frozenset({"locals", "globals", "parent"})),
    (BaseAlgorithm, frozenset({"replay_buffer", "rollout_buffer"})),  # see _take_object
    # Hooks, mostly
    (th.nn.Module, vars(th.nn.Module()).keys() - {"training", "_parameters", "_buffers", "_modules"}),
    (th.optim.Optimizer, frozenset(vars(th.optim.SGD([th.zeros(1)], 1.0)))),  # see _take_optimizer
)
_ENVIRONMENTS = (gym.Env, gym.vector.VectorEnv, VecEnv)
#: What counts seconds since its ``t_start``: not those between a checkpoint and the resumption
_TIMED = (Monitor, VecMonitor)
_BIT_GENERATORS = {
    one.__name__: one for one in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}
_IMMUTABLE = frozenset({type(None), bool, int, float, str})
#: Python refuses to write longer integers in decimals
_BITS_OF_A_LONG_INTEGER = 10_000
_MAX_DEPTH = 300
_BYTES_OF_A_POINTER = tuple.__itemsize__
#: Containers of the program that are longer are data, of which no part is looked for by its name
_LONGEST_CONSTANT = 1000


class StateMismatch(ValueError):
    """The object to be restored has other environments than the captured one."""


class UnknownClass(ValueError):
    """A state has an object of a class that is not there, or of which no objects may be made."""


class State:
    """
    What :func:`capture` found.

    :param tree: of dicts, lists, numbers and texts, as JSON knows them
    :param arrays: uint8 [n], to which the tree refers by number
    :param missing: what could not be captured: where it is, and its type. :func:`restore` adds what it could not restore
    """

    def __init__(self, tree: Any, arrays: list[np.ndarray], missing: list[str]) -> None:
        self.tree, self.arrays, self.missing = tree, arrays, missing


def capture(root: Any, own: Mapping[str, Any] | None = None) -> State:
    """
    The state of an object and of all that it refers to.

    :param root: an environment, or a dict of values by name, of which each is captured whole or not at all
    :param own: objects of the program by name, the model of the run above all: of them only the name is written
    """
    walk = _Capture(own or {})
    try:
        tree = {"is": "entries", "entries": walk.entries(root.items(), "")} if type(root) is dict else walk.value(root, "")
    except RecursionError:
        return State({"is": "missing"}, [], [f"it ({_qualified_name(type(root))}, nested too deeply)"])
    return State(tree, walk.arrays, walk.missing)


def restore(root: Any, state: State, own: Mapping[str, Any] | None = None) -> Any:
    """
    Puts a state into an object that was made like the captured one.

    :param root: is changed in place
    :param state: from :func:`capture`. What cannot be restored is added to its ``missing``, and stays as it is in ``root``
    :param own: what takes the place of the objects of these names
    :return: ``root``, or what takes its place if it cannot be changed
    :raises StateMismatch: if the object has other environments than the captured one
    :raises UnknownClass: if ``root``, which is neither a dict nor an environment, cannot be restored
    """
    walk = _Restore(state, root, own or {})
    if type(root) is dict and state.tree["is"] == "entries":
        for name, value in walk.entries(state.tree["entries"], dict(root), ""):
            root[name] = value
    else:
        root = walk.value(state.tree, root, "")
    walk.check_references()
    return root


class _Capture:
    """One walk. Objects that are met again are written as references, so that what was shared stays shared."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.arrays: list[np.ndarray] = []
        self.missing: list[str] = []
        self._own = {id(one): name for name, one in own.items()}
        self._constants = _Constants()
        self.dealt_with = self._depth = self._count = 0
        # By id; the objects are kept, since an id is free when its object is gone
        self._seen: dict[int, tuple[int, Any]] = {}
        self._owners: dict[int, tuple[int, Any]] = {}

    def value(self, value: Any, path: str) -> Any:
        cls: Any = type(value)
        if cls in _IMMUTABLE:
            if cls is int and value.bit_length() > _BITS_OF_A_LONG_INTEGER:
                return {"is": "long", "hex": hex(value)}
            return value
        if id(value) in self._own:
            return {"is": "own", "name": self._own[id(value)]}
        if id(value) in self._seen:
            return {"is": "same", "id": self._seen[id(value)][0]}
        if _is_program(cls):
            return {"is": "program", "name": _program_name(value)}
        if _is_in(cls, _OUTPUT_MODULES):
            return {"is": "output"}
        return self._take(value, path)

    def _take(self, value: Any, path: str) -> dict[str, Any]:
        if self._depth >= _MAX_DEPTH:
            raise RecursionError
        self._constants.add(type(value))
        number, self._count = self._count, self._count + 1
        self._seen[id(value)] = number, value
        self._depth += 1
        try:
            kind, take = next(((name, take) for accepts, name, take, _ in _KINDS if accepts(value)), ("", None))
            if take is None:
                return self.leave_out(value, path)
            node = {"is": kind, "id": number, **take(self, value, path)}
        except RecursionError:
            raise
        except Exception as error:  # of code in the object
            return self.leave_out(value, path, f": {type(error).__name__}: {error}")
        finally:
            self._depth -= 1
        if constant := self._constants.names.get(id(value)):
            node["constant"] = constant
        return node

    def leave_out(self, value: Any, path: str, why: str = "") -> dict[str, Any]:
        self.missing.append(f"{path.lstrip('.') or 'it'} ({_qualified_name(type(value))}{why})")
        return {"is": "missing"}

    def all_entries(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """The values by name."""
        return {name: self.value(value, f"{path}.{name}") for name, value in values}

    def entries(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """The values that can be captured whole, by name. Environments inside of them see to themselves."""
        entries: dict[str, Any] = {}
        for name, value in values:
            count = self._count
            try:
                node = self.value(value, f"{path}.{name}")
            except RecursionError:
                node = self.leave_out(value, f"{path}.{name}", ", nested too deeply")
            if len(self.missing) > self.dealt_with:
                del self.missing[self.dealt_with + 1 :]  # one reason is enough
                node, self.dealt_with = {"is": "missing"}, len(self.missing)
                # What is a part of it and of another value is captured there
                self._seen = {key: seen for key, seen in self._seen.items() if seen[0] < count}
            entries[name] = node
        return entries

    def owner(self, array: np.ndarray | th.Tensor) -> int:
        """A number for the memory of an array, which is shared by its views."""
        return self._owners.setdefault(_memory(array), (len(self._owners), array))[0]

    def bytes(self, content: Any) -> int:
        self.arrays.append(np.frombuffer(content, dtype=np.uint8))
        return len(self.arrays) - 1


class _Restore:
    """The way back. ``old`` is always what the object to be restored has in the captured value's place, or None."""

    def __init__(self, state: State, root: Any, own: Mapping[str, Any]) -> None:
        self.arrays, self.missing, self.own = state.arrays, state.missing, own
        self.references: list[tuple[str, weakref.ref[Any]]] = []
        self._made: dict[int, Any] = {}
        self._under_way: set[int] = set()
        self._tree = state.tree
        self._packages: set[str] = set()
        self._constants = _Constants()
        self._look_through(root)
        # By id of what was changed in place, or of its memory: whose state it has got
        self._taken: dict[int, tuple[Any, Any]] = {
            _memory(one): (("constant", name), one) for name, one in self._constants.objects.items()
        }

    def value(self, node: Any, old: Any, path: str) -> Any:
        if not isinstance(node, dict):
            return node
        kind = node["is"]
        if kind in ("missing", "output"):
            return old
        if kind == "own":
            if old is None and node["name"] not in self.own:
                raise UnknownClass(f"at {_place(path)} there was the {node['name']} of the run")
            return self.own.get(node["name"], old)
        if kind == "program":
            if _program_name(old) != node["name"]:
                raise UnknownClass(f"at {_place(path)} there was {node['name']}, which is a part of the program")
            return old
        if kind == "time":
            return time.time() - node["elapsed"]
        if kind == "long":
            return int(node["hex"], 16)
        if kind == "same":
            if node["id"] in self._made:
                return self._made[node["id"]]
            node = self._nodes[node["id"]]  # what it was first met in cannot be restored
            kind = node["is"]
        put = next((put for _, name, _, put in _KINDS if name == kind), None)
        if put is None or node["id"] in self._under_way:
            raise UnknownClass(f"at {_place(path)} there was a {'value that contains itself' if put else kind}")
        self._under_way.add(node["id"])
        try:
            return put(self, node, self._for_itself(node, old), path)
        finally:
            self._under_way.remove(node["id"])

    @functools.cached_property
    def _nodes(self) -> dict[int, dict[str, Any]]:
        """The nodes of the tree by their numbers."""
        found: dict[int, dict[str, Any]] = {}
        pending = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                if "id" in node and node["is"] != "same":
                    found[node["id"]] = node
                if node.get("is") != "workers":  # of which each has its own numbers
                    pending.extend(node.values())
            elif isinstance(node, (list, tuple)):
                pending.extend(node)
        return found

    def entries(self, nodes: dict[str, Any], before: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        """The values that can be restored, by name. The others are reported."""
        for name, node in nodes.items():
            try:
                value = self.value(node, before.get(name), f"{path}.{name}")
            except StateMismatch:
                raise
            except UnknownClass as error:
                self.missing.append(str(error))
            except Exception as error:  # of a library that does not accept the state
                self.missing.append(f"{_place(f'{path}.{name}')} ({type(error).__name__}: {error})")
            else:
                if name in before or _told(node) or value is not None:
                    yield name, value

    def _for_itself(self, node: dict[str, Any], old: Any) -> Any:
        """
        ``old``, or a copy where another part of the state has been put into it: that which is one object here, and two in the
        state, as when an environment begins with the same array in several places. What classes and modules hold, such as the
        position in which each episode starts, is changed only where it was a part of the state under the same name.
        """
        if "constant" in node:
            named = self._constants.objects.get(node["constant"])
            old = named if type(named) is type(old) or old is None else old
        if node["is"] not in _IN_PLACE or _is(old, (*_ENVIRONMENTS, type(None))):
            return old
        part = ("constant", node["constant"]) if "constant" in node else node.get("owner", ("object", node["id"]))
        # What is compared by its value is not changed either: a dict may have it as a key
        is_a_key = node["is"] == "object" and type(old).__hash__ not in (None, object.__hash__)
        if self._taken.setdefault(_memory(old), (part, old))[0] == part and not is_a_key:
            return old
        if type(old) in (list, dict, collections.OrderedDict, collections.defaultdict, collections.Counter, collections.deque):
            return old.copy()
        if _is(old, np.ndarray) or node["is"] != "object" or _base(type(old)) is not object:
            return None
        new = object.__new__(type(old))
        for name, attribute in vars(old).items() if hasattr(old, "__dict__") else ():
            vars(new)[name] = attribute
        for name, attribute in _slot_attributes(old):
            object.__setattr__(new, name, attribute)
        return new

    def made(self, node: dict[str, Any], value: Any) -> Any:
        self._made[node["id"]] = value
        return value

    def check_references(self) -> None:
        """Reports weak references whose objects nothing else holds."""
        self._made.clear()
        self._taken.clear()
        self.missing += [f"{_place(path)} (a weak reference)" for path, reference in self.references if reference() is None]

    def _look_through(self, root: Any) -> None:
        """Finds the packages of the classes in the tree that is restored: objects of these may be made anew."""
        pending, seen = [root], set()
        while pending:
            one = pending.pop()
            if id(one) in seen or _is(one, _PROGRAM):
                continue
            seen.add(id(one))
            if type(one) in (list, tuple, collections.deque):
                pending.extend(one)
            elif _is(one, dict):
                pending.extend(dict.values(one))
            elif _is_python_object(one):
                self._constants.add(type(one))
                self._packages.update(_module(base).partition(".")[0] for base in type(one).__mro__)
                with contextlib.suppress(Exception):  # of code in the object
                    pending.extend(attribute for _, attribute in _attributes(one))

    def find_class(self, name: str, old: Any, path: str) -> type:
        """A class that is already there, and belongs to the packages of what is restored or not to Python's own."""
        for one in (old, *self.own.values()):
            if _qualified_name(type(one)) == name:
                return type(one)
        package = name.partition(".")[0]
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            found: Any = sys.modules.get(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part, None)
            own = package in self._packages and package != "builtins"
            others = own or package not in sys.stdlib_module_names
            if is_class(found) and (others or found in _HARMLESS or issubclass(found, enum.Enum)):
                return found
        raise UnknownClass(f"at {_place(path)} there was a {name}, of which no object can be made here")


class _Constants:
    """
    What classes and modules hold that can be changed, by id and by name: ``START`` in ``class Maze(gym.Env): START = ...``.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.objects: dict[str, Any] = {}
        self._done: set[Any] = set()

    def add(self, cls: type) -> None:
        """Looks through a class, those that it is derived from, and their modules."""
        for base in () if cls in self._done else cls.__mro__:
            if base in self._done or _module(base) == "builtins":
                continue
            self._done.add(base)
            self._add(dict(vars(base)), _qualified_name(base), 0)
            module = sys.modules.get(_module(base))
            if module is not None and module not in self._done:
                self._done.add(module)
                self._add(dict(vars(module)), _module(base), 0)

    def _add(self, value: Any, name: str, depth: int) -> None:
        cls: Any = type(value)
        if cls in _IMMUTABLE or _is_program(cls) or id(value) in self.names or issubclass(cls, (*_ENVIRONMENTS, enum.Enum)):
            return
        if depth > 0 and cls is not tuple:
            self.names[id(value)] = name
            self.objects[name] = value
        if depth < 4 and cls in (dict, list, tuple, collections.deque) and (depth == 0 or len(value) <= _LONGEST_CONSTANT):
            for key, one in value.items() if cls is dict else enumerate(value):
                if type(key) in (int, str) and not str(key).startswith("__"):
                    self._add(one, f"{name}.{key}", depth + 1)


def _memory(value: Any) -> int:
    """A number that an array or a tensor shares with its views, and any other object with none."""
    if _is(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        return -int(value.__array_interface__["data"][0]) or id(value)
    if type(value) in (th.Tensor, th.nn.Parameter) and value.layout is th.strided:
        return -value.untyped_storage().data_ptr() or id(value)
    return id(value)


def _is(value: Any, classes: type | tuple[type, ...]) -> bool:
    """isinstance() that does not believe what a proxy says of its class."""
    return issubclass(type(value), classes)


@functools.lru_cache(maxsize=10_000)  # some of them are slow to ask
def _is_program(cls: Any) -> bool:
    return issubclass(cls, _PROGRAM)


def _module(cls: type) -> str:
    return str(getattr(cls, "__module__", ""))  # types of SWIG have none


def _is_in(cls: type, modules: tuple[str, ...]) -> bool:
    return f"{_module(cls)}.".startswith(tuple(f"{module}." for module in modules))


def _qualified_name(cls: type) -> str:
    return f"{_module(cls)}.{cls.__qualname__}"


def _place(path: str) -> str:
    return path.lstrip(".") or "the top"


def _program_name(value: Any) -> str:
    if _is(value, (np.dtype, th.dtype, types.GenericAlias)):
        return str(value)
    if _is(value, re.Pattern):
        return f"the pattern {value.pattern!r}"
    if _is(value, (type, *_FUNCTIONS)):
        return f"{getattr(value, '__module__', None) or ''}.{value.__qualname__}".lstrip(".")
    return _qualified_name(type(value))


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType)

#: Classes of Python and C of which Python classes are derived, and how to get their part of an object
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes(bytes.__iter__(value)),
    bytearray: lambda value: bytearray(bytearray.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    collections.deque: lambda value: collections.deque(collections.deque.__iter__(value), value.maxlen),
    collections.OrderedDict: lambda value: collections.OrderedDict(collections.OrderedDict.items(value)),
    collections.defaultdict: lambda value: collections.defaultdict(value.default_factory, dict.items(value)),
    dict: lambda value: dict(dict.items(value)),
    types.SimpleNamespace: lambda value: None,
    object: lambda value: None,
}


_PLAIN = _BASES.keys() - {types.SimpleNamespace}
#: Py_TPFLAGS_HEAPTYPE
_DEFINED_AT_RUN_TIME = 1 << 9


def _base(cls: type) -> type:
    return next(base for base in cls.__mro__ if base in _BASES)


@functools.lru_cache(maxsize=10_000)
def _adds_attributes_only(cls: Any) -> bool:
    """Whether objects of a class have no memory of a C library besides that of :data:`_BASES`. As Python's pickle asks."""
    base = _base(cls)
    size = base.__basicsize__ + _BYTES_OF_A_POINTER * sum(len(_slots(one)) for one in cls.__mro__)
    for offset, of_base in ((cls.__dictoffset__, base.__dictoffset__), (cls.__weakrefoffset__, base.__weakrefoffset__)):
        inside = offset > 0 or (cls.__itemsize__ > 0 and offset == -_BYTES_OF_A_POINTER)
        size += _BYTES_OF_A_POINTER * (inside and not of_base)
    if cls.__basicsize__ > size or cls.__itemsize__ != base.__itemsize__:
        return False
    is_of_python = all(one in _BASES or one.__flags__ & _DEFINED_AT_RUN_TIME for one in cls.__mro__)
    if not is_of_python or hasattr(cls, "n_sequence_fields"):  # time.struct_time, say
        return False
    return not any(_is_in(one, _RESOURCE_MODULES) for one in cls.__mro__) and not issubclass(cls, threading.Thread)


def _is_python_object(value: Any) -> bool:
    """Whether its attributes are all there is to it: no object of a C library, nor of a class derived from one."""
    cls: Any = type(value)
    return _base(cls) is object and _adds_attributes_only(cls)


def _is_of_a_subclass(value: Any) -> bool:
    cls: Any = type(value)
    return cls not in _PLAIN and _adds_attributes_only(cls)


def _slots(cls: type) -> list[str]:
    slots = cls.__dict__.get("__slots__", ())
    names = [slot for slot in ([slots] if isinstance(slots, str) else slots) if slot not in ("__dict__", "__weakref__")]
    private = f"_{cls.__name__.lstrip('_')}"  # as Python calls those that begin with two underscores
    return [f"{private}{name}" if name.startswith("__") and not name.endswith("__") else name for name in names]


def _slot_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for base in type(value).__mro__:
        for slot in _slots(base):
            if hasattr(value, slot):
                yield slot, getattr(value, slot)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    passing = {name for cls, names in _PASSING if _is(value, cls) for name in names}
    for name, attribute in list(vars(value).items()) if hasattr(value, "__dict__") else ():
        if name not in passing:
            yield name, attribute
    yield from _slot_attributes(value)


# Each kind of object: whether a value is of it, its name, how it is captured, and how it is restored


def _take_object(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    # Of an environment, some attributes are better than none. Half of another object would be broken
    entries = walk.entries if _is(value, _ENVIRONMENTS) else walk.all_entries
    attributes = entries(_attributes(value), path)
    if _is(value, _TIMED):
        attributes["t_start"] = {"is": "time", "elapsed": time.time() - value.t_start}
    if _is(value, BaseAlgorithm):  # one that only acts has empty buffers, for a million transitions
        for name in ("replay_buffer", "rollout_buffer"):
            buffer = getattr(value, name, None)
            if buffer is not None and buffer.size() > 0:
                walk.leave_out(buffer, f"{path}.{name}")
    return {"class": _qualified_name(type(value)), "attributes": attributes}


def _put_object(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if _qualified_name(type(old)) != node["class"]:
        old = _new_object(walk, node["class"], old, path)
    walk.made(node, old)
    before = dict(_attributes(old))
    if _is(old, _ENVIRONMENTS):
        new = walk.entries(node["attributes"], before, path)
    else:
        new = _all_entries(walk, node["attributes"], before, path)
    for name, value in new:
        _set_attribute(old, name, value)
    for name in before.keys() - node["attributes"].keys():
        _remove_attribute(old, name)
    return old


def _new_object(walk: _Restore, name: str, old: Any, path: str) -> Any:
    mismatch = StateMismatch(f"at {_place(path)} the state has a {name}, the object a {_qualified_name(type(old))}")
    try:
        cls = walk.find_class(name, None, path)
    except UnknownClass:
        if _is(old, _ENVIRONMENTS):
            raise mismatch from None
        raise
    if path == "" or issubclass(cls, _ENVIRONMENTS):
        raise mismatch
    if issubclass(cls, th.nn.Module):  # a copy of the model's policy, as self-play keeps them
        for one in walk.own.values():
            if type(one) is cls:
                return copy.deepcopy(one)
    if any(issubclass(cls, passing) for passing, _ in _PASSING):
        raise UnknownClass(f"at {_place(path)} there was a {name}, of which there is none here whose state it could be")
    base: Any = _base(cls)
    return base.__new__(cls)


def _all_entries(walk: _Restore, nodes: dict[str, Any], before: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, node in nodes.items():
        value = walk.value(node, before.get(name), f"{path}.{name}")
        if name in before or _told(node) or value is not None:
            yield name, value


def _told(node: Any) -> bool:
    """Whether a value is in the state, rather than only in the object to be restored."""
    return not isinstance(node, dict) or node["is"] not in ("program", "missing", "output", "own")


def _set_attribute(value: Any, name: str, new: Any) -> None:
    """Not setattr, behind which a property may do more."""
    if any(name in _slots(base) for base in type(value).__mro__):
        object.__setattr__(value, name, new)
    else:
        vars(value)[name] = new


def _remove_attribute(value: Any, name: str) -> None:
    if hasattr(value, "__dict__") and name in vars(value):
        del vars(value)[name]
    else:
        object.__delattr__(value, name)


def _take_subclass(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    cls = type(value)
    content = walk.value(_BASES[_base(cls)](value), path)
    return {"class": _qualified_name(cls), "base": content, "attributes": walk.all_entries(_attributes(value), path)}


def _put_subclass(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    """An object of a Python class that is derived from a class of Python's own, such as a list."""
    cls: Any = walk.find_class(node["class"], old, path)
    base: Any = _base(cls)
    if base is object or not _adds_attributes_only(cls):
        raise UnknownClass(f"at {_place(path)} there was a {node['class']}, which is another class here")
    same = type(old) is cls
    if hasattr(base, "clear") or base is types.SimpleNamespace:  # it can be changed
        new = walk.made(node, old if same else base.__new__(cls))
        content = walk.value(node["base"], _BASES[base](old) if same else None, path)
        if base is collections.deque:
            base.__init__(new, (), content.maxlen)
        elif base is not types.SimpleNamespace:
            base.clear(new)
        if base is collections.defaultdict:
            new.default_factory = content.default_factory
        if content is not None:
            (base.extend if hasattr(base, "extend") else base.update)(new, content)
    else:
        content = walk.value(node["base"], _BASES[base](old) if same else None, path)
        new = walk.made(node, base.__new__(cls, content))
    for name, value in _all_entries(walk, node["attributes"], dict(_attributes(old)) if same else {}, path):
        _set_attribute(new, name, value)
    return new


def _take_space(walk: _Capture, value: spaces.Space, path: str) -> dict[str, Any]:
    # The rest of a space seldom changes, and is large for images
    names = [name for name in ("_np_random", "spaces") if name in vars(value)]
    return {"space": _describe(value), "attributes": walk.all_entries([(name, vars(value)[name]) for name in names], path)}


def _put_space(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not _is(old, spaces.Space) or _describe(old) != node["space"]:
        raise UnknownClass(f"at {_place(path)} there was the space {node['space']}, which is another one here")
    walk.made(node, old)
    vars(old).update(_all_entries(walk, node["attributes"], vars(old), path))
    return old


def _describe(space: spaces.Space) -> str:
    return _qualified_name(type(space)) if type(space).__repr__ is object.__repr__ else repr(space)


def _take_list(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    # A set has no order: neither of the two that are equal is wrong
    items = [one if type(one) in _SHORT else walk.value(one, f"{path}[{index}]") for index, one in enumerate(value)]
    return {"items": items, **({"maxlen": value.maxlen} if _is(value, collections.deque) else {})}


_SHORT = _IMMUTABLE - {int}


def _restored_items(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> list[Any]:
    before = list(old) if _is(old, (list, tuple, collections.deque)) else []
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
    new = walk.made(node, old if type(old) is set else set())
    items = _restored_items(walk, node, None, path)
    new.clear()
    new.update(items)
    return new


def _put_frozenset(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, frozenset(_restored_items(walk, node, None, path)))


def _take_dict(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    pairs = []
    for index, (key, one) in enumerate(value.items()):
        pairs.append([walk.value(key, f"{path}.keys()[{index}]"), walk.value(one, _path_of_key(path, key))])
    factory = {"factory": walk.value(value.default_factory, path)} if _is(value, collections.defaultdict) else {}
    return {"type": type(value).__name__, "pairs": pairs, **factory}


def _path_of_key(path: str, key: Any) -> str:
    return f"{path}[{repr(key)[:80] if type(key) in _IMMUTABLE else f'a {type(key).__name__}'}]"


_DICTS: dict[str, Callable[[], Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
}
_FACTORIES = {f"builtins.{one.__name__}": one for one in (bool, int, float, str, list, tuple, dict, set, frozenset)}


def _put_dict(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if type(old).__name__ != node["type"] or type(old) not in _BASES:
        old = _DICTS[node["type"]]()
    walk.made(node, old)
    if node["type"] == "defaultdict":
        factory = node["factory"]
        known = factory is not None and _FACTORIES.get(factory.get("name"))
        old.default_factory = known or walk.value(factory, old.default_factory, f"{path}.default_factory")
    before = dict(old)
    new = []
    for key_node, child in node["pairs"]:
        key = walk.value(key_node, None, path)
        new.append((key, walk.value(child, before.get(key), _path_of_key(path, key))))
    old.clear()
    for key, value in new:
        old[key] = value
    return old


def _take_array(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    array = np.asarray(value)
    order: Literal["F", "C"] = "F" if array.flags.fnc else "C"
    node = {
        "dtype": _dtype_text(array.dtype),
        "shape": array.shape,
        "order": order,
        "content": walk.bytes(array.tobytes(order)),
    }
    return {**node, "scalar": True} if _is(value, np.generic) else {**node, "owner": walk.owner(array)}


def _put_array(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(node["dtype"]))
    array = np.frombuffer(walk.arrays[node["content"]], dtype) if dtype.itemsize else np.zeros(node["shape"], dtype)
    array = array.reshape(node["shape"], order=node["order"])
    if "scalar" in node:
        return walk.made(node, array.reshape(-1)[0].copy())
    if type(old) is np.ndarray and (old.dtype, old.shape) == (array.dtype, array.shape) and old.flags.writeable:
        np.copyto(old, array)
        return walk.made(node, old)
    return walk.made(node, array.copy(order="K"))


def _dtype_text(dtype: np.dtype) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


@functools.lru_cache(maxsize=1000)
def _is_plain_dtype(dtype: np.dtype) -> bool:
    if dtype.hasobject:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it cannot describe it would pickle
        return bool(np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype)


def _is_plain_array(value: Any) -> bool:
    if _is(value, np.generic):
        return type(value) is value.dtype.type and _is_plain_dtype(value.dtype)
    return type(value) is np.ndarray and _is_plain_dtype(value.dtype)


def _take_objects(walk: _Capture, value: np.ndarray, path: str) -> dict[str, Any]:
    return {"shape": value.shape, **_take_list(walk, value.ravel(), path)}


def _put_objects(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = list(old.ravel()) if _is(old, np.ndarray) else None
    new = np.empty(len(node["items"]), dtype=object)
    shaped = walk.made(node, new.reshape(node["shape"]))
    for index, one in enumerate(_restored_items(walk, node, before, path)):
        new[index] = one
    return shaped


def _is_plain_tensor(value: Any) -> bool:
    plain = type(value) in (th.Tensor, th.nn.Parameter) and value.layout is th.strided
    return plain and not value.is_quantized and not value.is_nested and value.device.type != "meta"


def _take_tensor(walk: _Capture, value: th.Tensor, path: str) -> dict[str, Any]:
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    content = plain.view(th.uint8).numpy().tobytes() if plain.numel() else b""
    return {
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": tuple(value.shape),
        "content": walk.bytes(content),
        "device": str(value.device),
        # Of a result of other tensors, it is not known how it was computed
        "requires_grad": value.is_leaf and value.requires_grad,
        "parameter": _is(value, th.nn.Parameter),
        "owner": walk.owner(value),
    }


def _put_tensor(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    tensor = th.empty(node["shape"], dtype=getattr(th, node["dtype"]))
    if tensor.numel():
        tensor = th.as_tensor(walk.arrays[node["content"]].copy()).view(tensor.dtype).reshape(node["shape"])
    cls = th.nn.Parameter if node["parameter"] else th.Tensor
    if type(old) is cls and (old.dtype, old.shape) == (tensor.dtype, tensor.shape) and _is_plain_tensor(old) and old.is_leaf:
        try:
            with th.no_grad():
                old.copy_(tensor)
            return walk.made(node, old.requires_grad_(node["requires_grad"]))
        except RuntimeError:  # several of its elements are one in memory, say
            pass
    if node["parameter"]:  # an optimiser may hold the one that is there
        raise UnknownClass(f"at {_place(path)} there was a parameter of the shape {tuple(node['shape'])}, which is not there")
    if node["device"] != "cpu":
        tensor = tensor.to(old.device if _is(old, th.Tensor) else node["device"])
    return walk.made(node, tensor.requires_grad_(node["requires_grad"]))


def _take_optimizer(walk: _Capture, value: th.optim.Optimizer, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.state_dict(), path), "attributes": walk.all_entries(_attributes(value), path)}


def _put_optimizer(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not _is(old, th.optim.Optimizer):
        raise UnknownClass(f"at {_place(path)} there was an optimiser, of which there is none here whose state it could be")
    walk.made(node, old)
    # Not over those that it has, which load_state_dict compares them with
    old.load_state_dict(walk.value(node["state"], None, path))
    vars(old).update(_all_entries(walk, node["attributes"], vars(old), path))
    return old


def _take_bytes(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.bytes(bytes(value))}


def _put_bytes(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, walk.arrays[node["content"]].tobytes())


def _put_bytearray(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    return walk.made(node, bytearray(walk.arrays[node["content"]].tobytes()))


#: Immutable values that are made of others
_VALUES: dict[str, type] = {
    _qualified_name(one): one
    for one in (
        complex,
        range,
        slice,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        decimal.Decimal,
        fractions.Fraction,
        th.Size,
    )
}
#: The same, where the package is there
_VALUES_OF_PYGAME = ("pygame.rect.Rect", "pygame.rect.FRect", "pygame.math.Vector2", "pygame.math.Vector3")
#: Of Python's own classes, those that objects may be made of
_HARMLESS = (collections.Counter, collections.UserDict, collections.UserList, collections.UserString, types.SimpleNamespace)


def _is_value(value: Any) -> bool:
    name = _qualified_name(type(value))
    return _VALUES.get(name) is type(value) or name in _VALUES_OF_PYGAME


def _take_value(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    arguments = (value.real, value.imag) if _is(value, complex) else value.__reduce_ex__(4)[1]
    return {"class": _qualified_name(type(value)), "arguments": walk.value(arguments, path)}


def _put_value(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    name = node["class"]
    if name not in _VALUES and name not in _VALUES_OF_PYGAME:
        raise ValueError(f"at {_place(path)} the state has a {name} as a value")
    cls = _VALUES.get(name) or walk.find_class(name, old, path)
    return walk.made(node, cls(*walk.value(node["arguments"], None, path)))


def _take_bit_generator(walk: _Capture, value: np.random.BitGenerator, path: str) -> dict[str, Any]:
    seeds: Any = value.seed_seq
    spawned = isinstance(seeds, np.random.SeedSequence) and seeds.n_children_spawned > 0
    return {"state": walk.value(value.state, path), **({"seeds": walk.value(seeds.state, path)} if spawned else {})}


def _put_bit_generator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    state = walk.value(node["state"], None, path)
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(
            f"at {_place(path)} the state has a generator {name!r}, which is none of {', '.join(_BIT_GENERATORS)}"
        )
    new = old if type(old) is _BIT_GENERATORS[name] else _BIT_GENERATORS[name]()
    if "seeds" in node:  # of generators that it has spawned
        seeds = walk.value(node["seeds"], None, path)
        if not isinstance(new.seed_seq, np.random.SeedSequence) or new.seed_seq.state != seeds:
            new = _BIT_GENERATORS[name](np.random.SeedSequence(**seeds))
    new.state = state
    return walk.made(node, new)


def _take_generator(walk: _Capture, value: np.random.Generator, path: str) -> dict[str, Any]:
    return {"bit_generator": walk.value(value.bit_generator, path)}


def _put_generator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = old.bit_generator if type(old) is np.random.Generator else None
    bit_generator = walk.value(node["bit_generator"], before, path)
    return walk.made(node, old if bit_generator is before else np.random.Generator(bit_generator))


def _take_random_state(walk: _Capture, value: np.random.RandomState, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.get_state(legacy=False), path)}


def _is_random_state(value: Any) -> bool:
    return type(value) is np.random.RandomState and value.get_state(legacy=False)["bit_generator"] == "MT19937"


def _put_random_state(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    old = old if _is_random_state(old) else np.random.RandomState()
    old.set_state(walk.value(node["state"], None, path))
    return walk.made(node, old)


def _take_random(walk: _Capture, value: random.Random, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.getstate(), path)}


def _put_random(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    old = old if type(old) is random.Random else random.Random()
    old.setstate(walk.value(node["state"], None, path))
    return walk.made(node, old)


def _take_torch_generator(walk: _Capture, value: th.Generator, path: str) -> dict[str, Any]:
    return {"device": str(value.device), "state": walk.value(value.get_state(), path)}


def _put_torch_generator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    same = type(old) is th.Generator and str(old.device) == node["device"]
    new = old if same else th.Generator(node["device"])
    new.set_state(walk.value(node["state"], None, path))
    return walk.made(node, new)


def _take_enum(walk: _Capture, value: enum.Enum, path: str) -> dict[str, Any]:
    flags = {"flags": int(value.value)} if _is(value, enum.Flag) else {}  # those that are combined have no name
    return {"class": _qualified_name(type(value)), "name": value.name, **flags}


def _put_enum(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls: Any = walk.find_class(node["class"], old, path)
    if not issubclass(cls, enum.Enum) or ("flags" not in node and node["name"] not in cls.__members__):
        raise UnknownClass(f"at {_place(path)} there was {node['class']}.{node['name']}, which is not there")
    return walk.made(node, cls(node["flags"]) if "flags" in node else cls[node["name"]])


def _take_partial(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    names = ("func", "args", "keywords")
    return {"attributes": walk.all_entries([(name, getattr(value, name)) for name in names], path)}


def _put_partial(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = {name: getattr(old, name, None) for name in ("func", "args", "keywords")}
    parts = dict(_all_entries(walk, node["attributes"], before, path))
    return walk.made(node, functools.partial(parts["func"], *parts["args"], **parts["keywords"]))


def _take_reference(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"to": walk.value(value(), path)}


def _put_reference(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = old() if type(old) is weakref.ref else None
    target = walk.value(node["to"], before, path)
    new = weakref.ref(set() if target is None else target)  # that of a set that is gone
    if target is not None:
        walk.references.append((path, new))
    return walk.made(node, new)


def _take_file(walk: _Capture, value: ResultsWriter, path: str) -> dict[str, Any]:
    value.file_handler.flush()
    with open(value.file_handler.name, "rb") as file:
        return {"content": walk.bytes(file.read())}


def _put_file(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if _is(old, ResultsWriter):  # it has begun a new file of the same name
        replace_content(old.file_handler, walk.arrays[node["content"]].tobytes())
    return walk.made(node, old)


def replace_content(file: IO[Any], content: bytes) -> None:
    """Makes an open file hold this, and go on thereafter."""
    file.seek(0)
    file.truncate()
    file.write(content.decode())
    file.flush()


def _is_emulator(value: Any) -> bool:
    return _is_in(type(value), ("ale_py",)) and hasattr(value, "cloneSystemState")


def _take_emulator(walk: _Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.bytes(value.cloneSystemState().__getstate__())}


def _put_emulator(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    import ale_py

    if not _is_emulator(old):
        raise StateMismatch(f"at {_place(path)} the state has an Atari emulator, the object a {_qualified_name(type(old))}")
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


def _restore_in_worker(env: gym.Env, state: State) -> tuple[StateMismatch | None, list[str]]:
    """An exception would end the worker, without a word of it in the main process."""
    try:
        restore(env, state)
    except StateMismatch as error:
        return error, []
    return None, state.missing


def _take_workers(walk: _Capture, value: SubprocVecEnv, path: str) -> dict[str, Any]:
    value.set_attr("_sb3_mirl", _StateMethods())
    children = []
    for index, state in enumerate(value.env_method("capture_state")):
        walk.missing += [f"{path}.envs[{index}].{one}".lstrip(".") for one in state.missing]
        children.append({"tree": state.tree, "first": len(walk.arrays), "count": len(state.arrays)})
        walk.arrays += state.arrays
    walk.dealt_with = len(walk.missing)
    # With which the next reset begins, if there was none yet
    names = ("_seeds", "_options")
    return {"children": children, "attributes": walk.entries([(name, getattr(value, name)) for name in names], path)}


def _put_workers(walk: _Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not _is(old, SubprocVecEnv) or old.num_envs != len(node["children"]):
        raise StateMismatch(f"at {_place(path)} the state has a SubprocVecEnv of {len(node['children'])}, the object {old}")
    old.set_attr("_sb3_mirl", _StateMethods())
    for index, child in enumerate(node["children"]):
        place = f"{path}.envs[{index}]".lstrip(".")
        arrays = walk.arrays[child["first"] : child["first"] + child["count"]]
        error, missing = old.env_method("restore_state_", State(child["tree"], arrays, []), indices=[index])[0]
        if error is not None:
            raise StateMismatch(f"{place}: {error}")
        walk.missing += [f"{place}: {one}" for one in missing]
    walk.made(node, old)
    vars(old).update(walk.entries(node["attributes"], vars(old), path))
    return old


#: Kinds of which an object that is there may be changed in place
_IN_PLACE = frozenset(
    "array tensor list deque dict set subclass bit_generator generator random_state random torch_generator object".split()
)


def _of(*types_: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types_


def _kind_of(*types_: type) -> Callable[[Any], bool]:
    return lambda value: _is(value, types_)


_KINDS: list[tuple[Callable[[Any], bool], str, Callable[..., dict[str, Any]], Callable[..., Any]]] = [
    (_kind_of(enum.Enum), "enum", _take_enum, _put_enum),
    (_is_plain_array, "array", _take_array, _put_array),
    (lambda value: type(value) is np.ndarray and value.dtype == object, "objects", _take_objects, _put_objects),
    (_is_plain_tensor, "tensor", _take_tensor, _put_tensor),
    (_kind_of(th.optim.Optimizer), "optimizer", _take_optimizer, _put_optimizer),
    (_of(list), "list", _take_list, _put_list),
    (_of(tuple), "tuple", _take_list, _put_tuple),
    (_of(collections.deque), "deque", _take_list, _put_deque),
    (_of(set), "set", _take_list, _put_set),
    (_of(frozenset), "frozenset", _take_list, _put_frozenset),
    (_of(dict, collections.OrderedDict, collections.defaultdict), "dict", _take_dict, _put_dict),
    (_of(bytes), "bytes", _take_bytes, _put_bytes),
    (_of(bytearray), "bytearray", _take_bytes, _put_bytearray),
    (_is_value, "value", _take_value, _put_value),
    (_kind_of(*_BIT_GENERATORS.values()), "bit_generator", _take_bit_generator, _put_bit_generator),
    (_of(np.random.Generator), "generator", _take_generator, _put_generator),
    (_is_random_state, "random_state", _take_random_state, _put_random_state),
    (_of(random.Random), "random", _take_random, _put_random),
    (_of(th.Generator), "torch_generator", _take_torch_generator, _put_torch_generator),
    (_of(functools.partial), "partial", _take_partial, _put_partial),
    (lambda value: type(value) is weakref.ref and value.__callback__ is None, "reference", _take_reference, _put_reference),
    (_kind_of(ResultsWriter), "file", _take_file, _put_file),
    (_kind_of(SubprocVecEnv), "workers", _take_workers, _put_workers),
    (_is_emulator, "emulator", _take_emulator, _put_emulator),
    (_kind_of(spaces.Space), "space", _take_space, _put_space),
    (_is_python_object, "object", _take_object, _put_object),
    (
        _is_of_a_subclass,
        "subclass",
        _take_subclass,
        _put_subclass,
    ),
]
