"""
Properties of Python classes that capture and restore need: which objects are data, and which attributes an object has.

The functions here run no code of the object. They avoid ``isinstance``, which reads the object's ``__class__``.
"""

import collections
import csv
import enum
import functools
import hashlib
import io
import logging
import operator
import pathlib
import random
import re
import sys
import threading
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType)
_METHODS = (types.WrapperDescriptorType, types.MethodWrapperType, staticmethod, classmethod, property, np.ufunc)
_CALLABLES = (type(functools.lru_cache(len)), operator.itemgetter, operator.attrgetter, operator.methodcaller)
_TYPES = (type, types.ModuleType, types.GenericAlias, type(...), type(NotImplemented), np.dtype, th.dtype, th.device, EnvSpec)
_FILES = (io.IOBase, type(csv.writer(io.StringIO())), pathlib.PurePath, logging.Logger, KVWriter, Logger)
_OTHERS = (re.Pattern, random.SystemRandom, type(threading.Lock()), type(threading.RLock()))
#: Parts of the program rather than data: the object to be restored has its own
PROGRAM = (*_FUNCTIONS, *_METHODS, *_CALLABLES, *_TYPES, *_FILES, *_OTHERS)
#: Modules of what draws on the screen or writes logs
_OUTPUT_MODULES = tuple(
    "pygame.surface pygame.display pygame.window pygame.time pygame.font pygame.mixer pygame.color tqdm rich matplotlib "
    "tensorboard tensorboardX torch.utils.tensorboard wandb mlflow".split()
)
#: Modules of what stands for a resource of the system: processes, connections, files
_RESOURCE_MODULES = ("subprocess", "multiprocessing", "concurrent", "asyncio", "socket", "ssl", "selectors", "tempfile")
#: Attributes of these classes that are not state
_NOT_CAPTURED: tuple[tuple[type, Collection[str]], ...] = (
    (DummyVecEnv, frozenset({"buf_infos"})),  # of the latest step
    (SubprocVecEnv, frozenset({"remotes", "work_remotes", "processes", "waiting", "closed"})),  # of the worker processes
    (VecEnvWrapper, frozenset({"class_attributes"})),  # a table of methods
    (BaseCallback, frozenset({"locals", "globals", "parent"})),
    (BaseAlgorithm, frozenset({"replay_buffer", "rollout_buffer"})),  # captured apart
    # Hooks, mostly
    (th.nn.Module, vars(th.nn.Module()).keys() - {"training", "_parameters", "_buffers", "_modules"}),
    (th.optim.Optimizer, frozenset(vars(th.optim.SGD([th.zeros(1)], 1.0)))),  # their state_dict() is captured
)
ENVIRONMENTS = (gym.Env, gym.vector.VectorEnv, VecEnv)
IMMUTABLE = frozenset({type(None), bool, int, float, str})

#: Built-in base classes of Python classes, with a function that copies the built-in part of an object. It calls, for example,
#: ``list.__iter__(value)``, because the class of the object may override ``__iter__``
BUILTIN_PART: dict[type, Callable[[Any], Any]] = {
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
#: Py_TPFLAGS_HEAPTYPE
_DEFINED_AT_RUN_TIME = 1 << 9
_BYTES_OF_A_POINTER = tuple.__itemsize__


def is_instance(value: Any, classes: type | tuple[type, ...]) -> bool:
    """``isinstance()`` that does not ask the object: a proxy may claim another class."""
    return issubclass(type(value), classes)


def module_of(cls: type) -> str:
    """The module of a class; classes of SWIG have none."""
    return str(getattr(cls, "__module__", ""))


def qualified_name(cls: type) -> str:
    """``module.Class``, by which classes are found again."""
    return f"{module_of(cls)}.{cls.__qualname__}"


def is_in_modules(cls: type, modules: tuple[str, ...]) -> bool:
    """Whether a class is defined in one of these modules or in their submodules."""
    return f"{module_of(cls)}.".startswith(tuple(f"{module}." for module in modules))


@functools.lru_cache(maxsize=10_000)  # issubclass() is slow for abstract classes
def is_program(cls: Any) -> bool:
    """Whether objects of a class are a part of the program, such as functions."""
    return issubclass(cls, PROGRAM)


def is_output(cls: type) -> bool:
    """Whether objects of a class draw on the screen or write logs."""
    return is_in_modules(cls, _OUTPUT_MODULES)


def program_name(value: Any) -> str:
    """A name that identifies a function, class or dtype; restore compares it."""
    if is_instance(value, (np.dtype, th.dtype, types.GenericAlias)):
        return str(value)
    if is_instance(value, re.Pattern):
        return f"the pattern {value.pattern!r}"
    if is_instance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    if is_instance(value, _CALLABLES[1:]):
        return re.sub(" at 0x[0-9a-f]+", "", repr(value))
    if is_instance(value, (type, *_FUNCTIONS)):
        name = f"{getattr(value, '__module__', None) or ''}.{value.__qualname__}".lstrip(".")
        return f"{name} {_code_hash(value.__code__)}" if name.endswith("<lambda>") and hasattr(value, "__code__") else name
    return qualified_name(type(value))


def _code_hash(code: types.CodeType) -> str:
    """Tells functions without a name apart; it does not depend on the line in which they are."""
    text = repr((code.co_code, code.co_names, _constant(code.co_consts)))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _constant(value: Any) -> str:
    """The ``repr`` of a function's constant, with sets sorted: their order differs between processes."""
    if isinstance(value, types.CodeType):
        return _code_hash(value)
    if isinstance(value, (tuple, frozenset)):
        parts = [*map(_constant, value)]
        return f"{type(value).__name__}({', '.join(sorted(parts) if isinstance(value, frozenset) else parts)})"
    return repr(value)


def builtin_base(cls: type) -> type:
    """The first class of :data:`BUILTIN_PART` that a class is derived from."""
    return next(base for base in cls.__mro__ if base in BUILTIN_PART)


def replace_builtin_part(base: Any, new: Any, content: Any) -> None:
    """
    Replace what a container holds. Calls the methods of its built-in base, which the class of the object may override.
    """
    if base is types.SimpleNamespace:
        return
    if base is collections.deque:
        base.__init__(new, (), content.maxlen)
    else:
        base.clear(new)
    if base is collections.defaultdict:
        new.default_factory = content.default_factory
    (base.extend if hasattr(base, "extend") else base.update)(new, content)


@functools.lru_cache(maxsize=10_000)
def only_adds_attributes(cls: Any) -> bool:
    """
    Whether objects of a class consist of their attributes and of the part of their built-in base, and have no memory of a C
    library. The comparison of sizes is that of Python's ``pickle``.
    """
    base = builtin_base(cls)
    size = base.__basicsize__ + _BYTES_OF_A_POINTER * sum(len(slot_names(parent)) for parent in cls.__mro__)
    for offset, base_offset in ((cls.__dictoffset__, base.__dictoffset__), (cls.__weakrefoffset__, base.__weakrefoffset__)):
        inside = offset > 0 or (cls.__itemsize__ > 0 and offset == -_BYTES_OF_A_POINTER)
        size += _BYTES_OF_A_POINTER * (inside and not base_offset)
    if cls.__basicsize__ > size or cls.__itemsize__ != base.__itemsize__:
        return False
    is_of_python = all(parent in BUILTIN_PART or parent.__flags__ & _DEFINED_AT_RUN_TIME for parent in cls.__mro__)
    if not is_of_python or hasattr(cls, "n_sequence_fields"):  # time.struct_time, say
        return False
    return not any(is_in_modules(parent, _RESOURCE_MODULES) for parent in cls.__mro__) and not issubclass(
        cls, threading.Thread
    )


def is_python_object(value: Any) -> bool:
    """Whether an object consists of its attributes only."""
    cls: Any = type(value)
    return builtin_base(cls) is object and only_adds_attributes(cls)


def is_derived_from_builtin(value: Any) -> bool:
    """Whether the class of an object is derived from one in :data:`BUILTIN_PART`, and is not itself one of these."""
    cls: Any = type(value)
    return (cls is types.SimpleNamespace or cls not in BUILTIN_PART) and only_adds_attributes(cls)


def has_uncaptured_attributes(cls: type) -> bool:
    """Whether objects of a class are captured without some attributes, so that no new object can be created from them."""
    return issubclass(cls, tuple(passing for passing, _ in _NOT_CAPTURED))


def slot_names(cls: type) -> list[str]:
    """The attributes that a class itself, not its bases, keeps in slots."""
    slots = cls.__dict__.get("__slots__", ())
    names = [slot for slot in ([slots] if isinstance(slots, str) else slots) if slot not in ("__dict__", "__weakref__")]
    private = f"_{cls.__name__.lstrip('_')}"  # Python's name mangling
    return [f"{private}{name}" if name.startswith("__") and not name.endswith("__") else name for name in names]


def all_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the attributes, in ``__dict__`` and in slots."""
    if hasattr(value, "__dict__"):
        yield from list(vars(value).items())
    for base in type(value).__mro__:
        for slot in slot_names(base):
            if hasattr(value, slot):
                yield slot, getattr(value, slot)


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """:func:`all_attributes` without those that are not state."""
    passing = {name for cls, names in _NOT_CAPTURED if is_instance(value, cls) for name in names}
    return ((name, attribute) for name, attribute in all_attributes(value) if name not in passing)


def set_attribute(value: Any, name: str, new: Any) -> None:
    """Set an attribute without ``setattr``, which may call a property."""
    if any(name in slot_names(base) for base in type(value).__mro__):
        object.__setattr__(value, name, new)
    else:
        vars(value)[name] = new


def remove_attribute(value: Any, name: str) -> None:
    """The counterpart of :func:`set_attribute`."""
    if hasattr(value, "__dict__") and name in vars(value):
        del vars(value)[name]
    else:
        object.__delattr__(value, name)


class Constants:
    """
    The mutable objects that classes and modules hold, by id and by name: ``START`` in ``class Maze(gym.Env): START = ...``.

    They belong to the program, and an environment may refer to them.
    """

    #: Levels of containers that are searched, and the longest one: longer ones are data
    MAX_DEPTH, MAX_LENGTH = 4, 1000

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.objects: dict[str, Any] = {}
        self._done: set[Any] = set()

    def add(self, cls: type) -> None:
        """Search a class, its bases, and their modules."""
        for base in () if cls in self._done else cls.__mro__:
            if base in self._done or module_of(base) == "builtins":
                continue
            self._done.add(base)
            self._add(dict(vars(base)), qualified_name(base), 0)
            module = sys.modules.get(module_of(base))
            if module is not None and module not in self._done:
                self._done.add(module)
                self._add(dict(vars(module)), module_of(base), 0)

    def _add(self, value: Any, name: str, depth: int) -> None:
        cls: Any = type(value)
        if cls in IMMUTABLE or is_program(cls) or id(value) in self.names or issubclass(cls, (*ENVIRONMENTS, enum.Enum)):
            return
        if depth > 0 and cls is not tuple:
            self.names[id(value)] = name
            self.objects[name] = value
        is_container = cls in (dict, list, tuple, collections.deque)
        if is_container and depth < self.MAX_DEPTH and (depth == 0 or len(value) <= self.MAX_LENGTH):
            for key, item in value.items() if cls is dict else enumerate(value):
                if type(key) in (int, str) and not str(key).startswith("__"):
                    self._add(item, f"{name}.{key}", depth + 1)
