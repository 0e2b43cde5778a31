"""Objects of Python classes."""

import copy
import enum
import functools
import time
import types
import weakref
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor

from sb3_mirl.common.resume.classes import (
    BUILTIN_PART,
    ENVIRONMENTS,
    attributes,
    builtin_base,
    has_uncaptured_attributes,
    is_derived_from_builtin,
    is_instance,
    is_python_object,
    only_adds_attributes,
    program_name,
    qualified_name,
    remove_attribute,
    replace_builtin_part,
    set_attribute,
)
from sb3_mirl.common.resume.walk import Capture, Kind, Restore, UnknownClass, exactly, instances

#: Classes that count the seconds since ``t_start``, without those between a checkpoint and the resumption
_TIMED = (Monitor, VecMonitor)


def _capture_enum(walk: Capture, value: enum.Enum, path: str) -> dict[str, Any]:
    flags = {"flags": int(value.value)} if is_instance(value, enum.Flag) else {}  # combined flags may have no name
    return {"class": qualified_name(type(value)), "name": value.name, **flags}


def _restore_enum(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls: Any = walk.find_class(node["class"], old, path)
    if not issubclass(cls, enum.Enum) or ("flags" not in node and node["name"] not in cls.__members__):
        raise walk.unknown(path, f"{node['class']}.{node['name']}, which is not there")
    return walk.register(node, cls(node["flags"]) if "flags" in node else cls[node["name"]])


_PARTS_OF_PARTIAL = ("func", "args", "keywords")


def _capture_partial(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    return {"attributes": walk.all_values([(name, getattr(value, name)) for name in _PARTS_OF_PARTIAL], path)}


def _restore_partial(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = {name: getattr(old, name, None) for name in _PARTS_OF_PARTIAL}
    parts = dict(walk.all_values(node["attributes"], before, path))
    return walk.register(node, functools.partial(parts["func"], *parts["args"], **parts["keywords"]))


def _capture_reference(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    return {"to": walk.value(value(), path)}


def _restore_reference(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = old() if type(old) is weakref.ref else None
    target = walk.value(node["to"], before, path)
    new = weakref.ref(set() if target is None else target)  # without target: a dead reference, because the set is deleted
    if target is not None:
        walk.references.append((path, new))
    return walk.register(node, new)


def _capture_object(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    # An environment without some attributes is useful; any other object would be broken
    values = walk.complete_values if is_instance(value, ENVIRONMENTS) else walk.all_values
    nodes = values(attributes(value), path)
    if is_instance(value, _TIMED):
        nodes["t_start"] = {"is": "time", "elapsed": time.time() - value.t_start}
    if is_instance(value, BaseAlgorithm):  # the buffers of a model that only acts are empty, but large
        for name in ("replay_buffer", "rollout_buffer"):
            buffer = getattr(value, name, None)
            if buffer is not None and buffer.size() > 0:
                walk.leave_out(buffer, f"{path}.{name}")
    return {"class": qualified_name(type(value)), "attributes": nodes}


def _restore_object(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if qualified_name(type(old)) != node["class"]:
        old = _new_object(walk, node["class"], old, path)
    walk.register(node, old)
    before = dict(attributes(old))
    values = walk.complete_values if is_instance(old, ENVIRONMENTS) else walk.all_values
    for name, value in values(node["attributes"], before, path):
        set_attribute(old, name, value)
    for name in before.keys() - node["attributes"].keys():
        remove_attribute(old, name)
    return old


def _new_object(walk: Restore, name: str, old: Any, path: str) -> Any:
    mismatch = walk.mismatch(path, f"a {name}", f"a {qualified_name(type(old))}")
    try:
        cls = walk.find_class(name, None, path)
    except UnknownClass:
        if is_instance(old, ENVIRONMENTS):
            raise mismatch from None
        raise
    if path == "" or issubclass(cls, ENVIRONMENTS):
        raise mismatch
    if issubclass(cls, th.nn.Module):  # a copy of the model's policy, as in self-play
        for value in walk.own.values():
            if type(value) is cls:
                return copy.deepcopy(value)
    if has_uncaptured_attributes(cls):
        raise walk.unknown(path, f"a {name}, but the resumed run has no such object to restore it into")
    base: Any = builtin_base(cls)
    return base.__new__(cls)


def _capture_derived(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    cls = type(value)
    part = walk.value(BUILTIN_PART[builtin_base(cls)](value), path)
    return {"class": qualified_name(cls), "base": part, "attributes": walk.all_values(attributes(value), path)}


def _restore_derived(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    """An object of a Python class that is derived from a built-in class, such as a list."""
    cls: Any = walk.find_class(node["class"], old, path)
    base: Any = builtin_base(cls)
    if base is object or not only_adds_attributes(cls):
        raise walk.unknown(path, f"a {node['class']}, which is another class here")
    same = type(old) is cls
    part_before = BUILTIN_PART[base](old) if same else None
    if hasattr(base, "clear") or base is types.SimpleNamespace:  # mutable: it may contain itself
        new = walk.register(node, old if same else base.__new__(cls))
        replace_builtin_part(base, new, walk.value(node["base"], part_before, path))
    else:
        new = walk.register(node, base.__new__(cls, walk.value(node["base"], part_before, path)))
    for name, value in walk.all_values(node["attributes"], dict(attributes(old)) if same else {}, path):
        set_attribute(new, name, value)
    return new


def _capture_method(walk: Capture, value: types.MethodType, path: str) -> dict[str, Any]:
    # Where its object cannot be captured, a method is a part of the program
    return {"name": program_name(value), "of": walk.whole_value(value.__self__, f"{path}.__self__")}


def _restore_method(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if type(old) is not types.MethodType or program_name(old) != node["name"]:
        raise walk.unknown(path, f"{node['name']}, which is a part of the program")
    if node["of"] is None:
        return walk.register(node, old)
    owner = walk.value(node["of"], old.__self__, f"{path}.__self__")
    return walk.register(node, old if owner is old.__self__ else types.MethodType(old.__func__, owner))


def _is_plain_reference(value: Any) -> bool:
    return type(value) is weakref.ref and value.__callback__ is None


#: ``object`` and ``subclass`` accept almost everything: they come last
KINDS = (
    Kind("enum", instances(enum.Enum), _capture_enum, _restore_enum),
    Kind("partial", exactly(functools.partial), _capture_partial, _restore_partial),
    Kind("method", exactly(types.MethodType), _capture_method, _restore_method),
    Kind("reference", _is_plain_reference, _capture_reference, _restore_reference),
    Kind("object", is_python_object, _capture_object, _restore_object, in_place=True),
    Kind("subclass", is_derived_from_builtin, _capture_derived, _restore_derived, in_place=True),
)
