"""
The walks of :mod:`~sb3_mirl.common.resume.state`: one over the object to be captured, one back over the captured tree.

A captured value is a node of a tree: None, a bool, number or text, or ``{"is": kind, "id": number, ...}``. The kinds are in
the modules ``kinds_*``; the walks know those that are not objects of their own: ``same`` (a reference to an earlier node),
``own`` and ``program`` (the restored run has its own), ``output``, ``missing``, ``time`` and ``long`` (a long integer).
"""

import collections
import contextlib
import copy
import dataclasses
import enum
import functools
import re
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.common.inputs import is_class
from sb3_mirl.common.resume.classes import (
    ENVIRONMENTS,
    IMMUTABLE,
    PROGRAM,
    Constants,
    all_attributes,
    attributes,
    is_instance,
    is_output,
    is_program,
    is_python_object,
    module_of,
    program_name,
    qualified_name,
    set_attribute,
)
from sb3_mirl.common.resume.pairing import pair_environments
from sb3_mirl.common.resume.undo import undo_of_object, undo_of_value

#: Python refuses to write longer integers in decimals
_MAX_BITS_IN_DECIMALS = 10_000
_MAX_DEPTH = 300
#: Classes of Python itself that may be instantiated
_HARMLESS = (collections.Counter, collections.UserDict, collections.UserList, collections.UserString, types.SimpleNamespace)
#: Paths of the environments inside of an environment's wrappers
_WRAPPERS = re.compile(r"(\.venv|\.env|\.envs\[\d+\])*")
#: Containers that are copied where two parts of a state must not share one
_COPIED = (list, dict, collections.OrderedDict, collections.defaultdict, collections.Counter, collections.deque)


class StateMismatch(ValueError):
    """The object to be restored has other environments than the captured one."""


class UnknownClass(ValueError):
    """The state contains an object that cannot be made here, or a part of the program that is not there."""


@dataclasses.dataclass
class State:
    """
    What :func:`~sb3_mirl.common.resume.state.capture` found.

    :param tree: of dicts, lists, numbers and texts, as JSON has them
    :param arrays: uint8 [n], to which the tree refers by number
    :param missing: place and type of what could not be captured; ``restore`` adds what it could not restore
    """

    tree: Any
    arrays: list[np.ndarray]
    missing: list[str]


@dataclasses.dataclass(frozen=True)
class Kind:
    """
    How objects of one kind are captured and restored.

    :param name: in the tree
    :param accepts: whether an object is of this kind
    :param capture: (walk, value, path) → the fields of its node
    :param restore: (walk, node, old, path) → the restored object. Before it restores what the object
        refers to, it calls :meth:`Restore.register`, so that objects can refer to each other
    :param in_place: whether ``restore`` may change ``old``, which is in the object's place
    """

    name: str
    accepts: Callable[[Any], bool]
    capture: Callable[["Capture", Any, str], dict[str, Any]]
    restore: Callable[["Restore", dict[str, Any], Any, str], Any]
    in_place: bool = False


def exactly(*classes: type) -> Callable[[Any], bool]:
    """Accepts objects of these classes."""
    return lambda value: type(value) in classes


def instances(*classes: type) -> Callable[[Any], bool]:
    """Accepts objects of these classes and of classes derived from them."""
    return lambda value: is_instance(value, classes)


def place(path: str) -> str:
    """A path for messages."""
    return path.lstrip(".") or "the top"


class Capture:
    """
    One walk over an object. An object that is met again becomes a reference, so that shared objects stay shared.

    Kinds may append to ``missing`` and, with :meth:`store`, to ``arrays``. They increase ``reported`` only for entries of
    ``missing`` that they appended themselves, and whose values they left out.

    :param kinds: the first that accepts an object captures it
    :param own: objects of the program by name
    """

    def __init__(self, kinds: Sequence[Kind], own: Mapping[str, Any]) -> None:
        self.arrays: list[np.ndarray] = []
        self.missing: list[str] = []
        #: Number of entries of ``missing`` for which a value was already left out
        self.reported = 0
        self._kinds = kinds
        self._own = {id(value): name for name, value in own.items()}
        self._constants = Constants()
        self._depth = self._count = 0
        # By id. The objects are kept as well, since the id of a deleted object may be used again
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._owners: dict[int, tuple[int, Any]] = {}

    def value(self, value: Any, path: str) -> Any:
        """The node of a value; ``path`` is its place, for messages."""
        cls: Any = type(value)
        if cls in IMMUTABLE:
            if cls is int and value.bit_length() > _MAX_BITS_IN_DECIMALS:
                return {"is": "long", "hex": hex(value)}
            return value
        if id(value) in self._own:
            return {"is": "own", "name": self._own[id(value)]}
        if id(value) in self._numbers:
            return {"is": "same", "id": self._numbers[id(value)][0]}
        if is_program(cls) and cls is not types.MethodType:  # a method refers to its object
            return {"is": "program", "name": program_name(value)}
        if is_output(cls):
            return {"is": "output"}
        return self._object(value, path)

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        if self._depth >= _MAX_DEPTH:
            raise RecursionError
        self._constants.add(type(value))
        number, self._count = self._count, self._count + 1
        self._numbers[id(value)] = number, value
        self._depth += 1
        try:
            kind = next((kind for kind in self._kinds if kind.accepts(value)), None)
            if kind is None:
                return self.leave_out(value, path)
            node = {"is": kind.name, "id": number, **kind.capture(self, value, path)}
        except RecursionError:
            raise
        except Exception as error:  # raised by code of the object
            return self.leave_out(value, path, f": {type(error).__name__}: {error}")
        finally:
            self._depth -= 1
        if constant := self._constants.names.get(id(value)):
            node["constant"] = constant
        return node

    def leave_out(self, value: Any, path: str, why: str = "") -> dict[str, Any]:
        """Report a value as missing."""
        self.missing.append(f"{path.lstrip('.') or 'it'} ({qualified_name(type(value))}{why})")
        return {"is": "missing"}

    def whole_value(self, value: Any, path: str) -> Any:
        """The node of a value; None, without a report, if a part of it cannot be captured."""
        n_missing, reported, count = len(self.missing), self.reported, self._count
        node = self.value(value, path)
        if len(self.missing) == n_missing:
            return node
        del self.missing[n_missing:]
        self.reported = reported
        self._forget(count)
        return None

    def _forget(self, first: int) -> None:
        """Forget objects from a number on: another value may contain them, and then captures them."""
        self._numbers = {key: numbered for key, numbered in self._numbers.items() if numbered[0] < first}

    def all_values(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """Nodes by name."""
        return {name: self.value(value, f"{path}.{name}") for name, value in values}

    def complete_values(self, values: Iterable[tuple[str, Any]], path: str) -> dict[str, Any]:
        """Nodes by name. A value with a missing part is left out; of environments inside it, only that part is left out."""
        nodes: dict[str, Any] = {}
        for name, value in values:
            count = self._count
            try:
                node = self.value(value, f"{path}.{name}")
            except RecursionError:
                node = self.leave_out(value, f"{path}.{name}", ", nested too deeply")
            if len(self.missing) > self.reported:
                del self.missing[self.reported + 1 :]  # one reason is enough
                node, self.reported = {"is": "missing"}, len(self.missing)
                self._forget(count)
            nodes[name] = node
        return nodes

    def owner(self, array: np.ndarray | th.Tensor) -> int:
        """A number for the memory of an array, which its views share."""
        return self._owners.setdefault(_memory(array), (len(self._owners), array))[0]

    def store(self, content: Any) -> int:
        """Append bytes to ``arrays``, and return their index."""
        self.arrays.append(np.frombuffer(content, dtype=np.uint8))
        return len(self.arrays) - 1


class Restore:
    """
    One walk over a captured tree, to restore it into ``root``. Kinds may append to ``missing`` and ``references``.

    :param kinds: the kinds by which the state was captured
    :param own: objects of the program by name
    """

    def __init__(self, kinds: Sequence[Kind], state: State, root: Any, own: Mapping[str, Any]) -> None:
        self.arrays, self.missing, self.own = state.arrays, state.missing, own
        #: Weak references that were made, and their places
        self.references: list[tuple[str, weakref.ref[Any]]] = []
        self._is_env = is_instance(root, ENVIRONMENTS)
        self._kinds = {kind.name: kind for kind in kinds}
        self._tree = state.tree
        self._made: dict[int, Any] = {}
        # Functions that take back what was changed, the latest last
        self._undo: list[Callable[[], Any]] = []
        self._in_progress: set[int] = set()
        self._packages: set[str] = set()
        self._constants = Constants()
        self._search(root)
        # By memory: which part of the state an object of ``root`` has been used for
        self._used: dict[int, tuple[Any, Any]] = {
            _memory(value): (("constant", name), value) for name, value in self._constants.objects.items()
        }
        self._environments = pair_environments(state.tree, root, lambda number: self._nodes[number])

    def value(self, node: Any, old: Any, path: str) -> Any:
        """
        The value of a node. Raises UnknownClass if it cannot be restored.

        :param old: what the restored object has in its place, or None
        """
        if not isinstance(node, dict):
            return node
        match node["is"]:
            case "missing" | "output":
                return old
            case "own":
                if old is None and node["name"] not in self.own:
                    raise self.unknown(path, f"the {node['name']} of the run")
                return self.own.get(node["name"], old)
            case "program":
                if program_name(old) != node["name"]:
                    raise self.unknown(path, f"{node['name']}, which is a part of the program")
                return old
            case "time":
                return time.time() - node["elapsed"]
            case "long":
                return int(node["hex"], 16)
            case "same":
                if node["id"] in self._made:
                    return self._made[node["id"]]
                node = self._nodes[node["id"]]  # the value that it was first found in cannot be restored
        kind = self._kinds.get(node["is"])
        if kind is None:
            raise self.unknown(path, node["is"])
        if node["id"] in self._in_progress:
            raise self.unknown(path, "a value that contains itself")
        self._in_progress.add(node["id"])
        try:
            is_env = is_instance(old, ENVIRONMENTS) or node["id"] in self._environments
            old = self._environment(node, old, path) if is_env else self._copy_if_already_used(kind, node, old)
            if "class" not in node:
                self._undo += undo_of_value(old)
            elif kind.in_place and node["class"] == qualified_name(type(old)):
                self._undo.append(undo_of_object(old))
            return kind.restore(self, node, old, path)
        finally:
            self._in_progress.remove(node["id"])

    @staticmethod
    def unknown(path: str, what: str) -> UnknownClass:
        """An error for a captured value that cannot be restored."""
        return UnknownClass(f"at {place(path)} there was {what}")

    def mismatch(self, path: str, captured: str, here: str) -> ValueError:
        """
        An error for an environment that differs from the captured one: StateMismatch for ``root`` and for environments inside
        its wrappers, otherwise UnknownClass, for example for an environment that an attribute holds.
        """
        if self._is_env and _WRAPPERS.fullmatch(path):
            return StateMismatch(f"at {place(path)} the state has {captured}, the object {here}")
        return self.unknown(path, f"{captured}, and here is {here}")

    @functools.cached_property
    def _nodes(self) -> dict[int, dict[str, Any]]:
        """The nodes of objects by their numbers."""
        found: dict[int, dict[str, Any]] = {}
        pending = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                if "id" in node and node["is"] != "same":
                    found[node["id"]] = node
                for field, value in node.items():
                    if field in ("attributes", "entries"):  # nodes by name: an attribute may have the name of a field
                        pending.extend(value.values())
                    elif field != "children":  # each worker process has its own numbers
                        pending.append(value)
            elif isinstance(node, (list, tuple)):
                pending.extend(node)
        return found

    def all_values(self, nodes: dict[str, Any], before: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        """The restored values by name; ``before`` is what the restored object has. Raises an error if one is unknown."""
        for name, node in nodes.items():
            value = self.value(node, before.get(name), f"{path}.{name}")
            in_state = not isinstance(node, dict) or node["is"] not in ("program", "missing", "output", "own")
            if in_state or name in before or value is not None:
                yield name, value

    def complete_values(self, nodes: dict[str, Any], before: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        """:meth:`all_values` without those that cannot be restored, which are reported as missing."""
        for name, node in nodes.items():
            mark = len(self._undo)
            try:
                yield from list(self.all_values({name: node}, before, path))
            except StateMismatch:
                raise
            except Exception as error:
                while len(self._undo) > mark:
                    self._undo.pop()()
                # Others are raised by a library that does not accept the state
                is_known = isinstance(error, UnknownClass)
                self.missing.append(str(error) if is_known else f"{place(f'{path}.{name}')} ({type(error).__name__}: {error})")

    def _environment(self, node: dict[str, Any], old: Any, path: str) -> Any:
        """The environment that takes the place of a captured one; ``old`` is in its place."""
        env = self._environments.get(node["id"], old)
        part = ("object", node["id"])
        fits = node["is"] == "workers" or node.get("class") == qualified_name(type(env))
        if fits and self._used.setdefault(id(env), (part, env))[0] != part:
            raise self.unknown(path, "an environment of its own, which here is also in another place")
        return env

    def _copy_if_already_used(self, kind: Kind, node: dict[str, Any], old: Any) -> Any:
        """
        ``old``, or a copy if another part of the state has already been restored into it: two objects of the state may be one
        object here, for example when an environment begins with the same array in several places. An object of a class or
        module, such as the position in which each episode starts, is changed only by the part of the state with its name.
        """
        if "constant" in node:
            named = self._constants.objects.get(node["constant"])
            old = named if type(named) is type(old) or old is None else old
        if not kind.in_place or old is None:
            return old
        part = ("constant", node["constant"]) if "constant" in node else node.get("owner", ("object", node["id"]))
        # An object that is compared by value may be the key of a dict: it must not change
        may_be_key = kind.name == "object" and type(old).__hash__ not in (None, object.__hash__)
        if self._used.setdefault(_memory(old), (part, old))[0] == part and not may_be_key:
            return old
        if type(old) in _COPIED:
            return copy.copy(old)
        if kind.name != "object" or not is_python_object(old):
            return None
        new = object.__new__(type(old))
        for name, attribute in all_attributes(old):
            set_attribute(new, name, attribute)
        return new

    def register(self, node: dict[str, Any], value: Any) -> Any:
        """Register an object as the one restored for a node, and return the object."""
        self._made[node["id"]] = value
        self._undo.append(functools.partial(self._made.pop, node["id"], None))
        return value

    def check_references(self) -> None:
        """End the walk: report weak references whose objects nothing else refers to."""
        for noted in (self._made, self._used, self._undo, self._environments):
            noted.clear()
        self.missing += [f"{place(path)} (a weak reference)" for path, reference in self.references if reference() is None]

    def _search(self, root: Any) -> None:
        """Collect the packages of the classes in ``root``, of which objects may be made, and their constants."""
        pending, done = [root], set()
        while pending:
            value = pending.pop()
            if id(value) in done or is_instance(value, PROGRAM):
                continue
            done.add(id(value))
            if type(value) in (list, tuple, collections.deque):
                pending.extend(value)
            elif is_instance(value, dict):
                pending.extend(dict.values(value))
            elif is_python_object(value):
                self._constants.add(type(value))
                self._packages.update(module_of(base).partition(".")[0] for base in type(value).__mro__)
                with contextlib.suppress(Exception):  # raised by code of the object
                    pending.extend(attribute for _, attribute in attributes(value))

    def find_class(self, name: str, old: Any, path: str) -> type:
        """
        The class with this full name, if it is loaded already; ``old`` may be an object of it. Of Python's own classes, only
        harmless ones and those in packages of ``root`` are accepted.
        """
        for value in (old, *self.own.values()):
            if qualified_name(type(value)) == name:
                return type(value)
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            found: Any = sys.modules.get(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part, None)
            accepted = parts[0] not in sys.stdlib_module_names or (parts[0] in self._packages and parts[0] != "builtins")
            if is_class(found) and (accepted or found in _HARMLESS or issubclass(found, enum.Enum)):
                return found
        raise self.unknown(path, f"a {name}, of which no object can be made here")


def _memory(value: Any) -> int:
    """A number that an array or a tensor shares with its views; of other objects, their id."""
    if is_instance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        return -int(value.__array_interface__["data"][0]) or id(value)
    if type(value) in (th.Tensor, th.nn.Parameter) and value.layout is th.strided:
        return -value.untyped_storage().data_ptr() or id(value)
    return id(value)
