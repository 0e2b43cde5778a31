"""Undoes changes to objects, for values that cannot be restored completely."""

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.common.resume.classes import (
    BUILTIN_PART,
    all_attributes,
    builtin_base,
    is_instance,
    remove_attribute,
    replace_builtin_part,
    set_attribute,
)


def undo_of_value(value: Any) -> list[Callable[[], Any]]:
    """
    A function that gives a value its present content back; none if restoring does not change values of its class in place.

    :param value: of any class
    :return: one function, or an empty list
    """
    if type(value) is np.ndarray:
        array = value.copy()
        return [lambda: np.copyto(value, array)] if value.flags.writeable else []
    if type(value) in (th.Tensor, th.nn.Parameter):
        return [_undo_of_tensor(value)]
    if type(value) is np.random.Generator:
        return undo_of_value(value.bit_generator)
    if is_instance(value, np.random.BitGenerator):
        return [functools.partial(setattr, value, "state", value.state)]
    if type(value) in (np.random.RandomState, th.Generator):
        return [functools.partial(value.set_state, value.get_state())]
    if type(value) is random.Random:
        return [functools.partial(value.setstate, value.getstate())]
    if is_instance(value, th.optim.Optimizer):
        return [functools.partial(value.load_state_dict, copy.deepcopy(value.state_dict()))]
    if type(value) in BUILTIN_PART and hasattr(value, "clear"):
        return [functools.partial(replace_builtin_part, type(value), value, BUILTIN_PART[type(value)](value))]
    return []


def _undo_of_tensor(value: th.Tensor) -> Callable[[], Any]:
    content, requires_grad = value.detach().clone(), value.requires_grad

    def undo() -> None:
        with th.no_grad():
            value.copy_(content)
        if value.is_leaf:
            value.requires_grad_(requires_grad)

    return undo


def undo_of_object(value: Any) -> Callable[[], Any]:
    """
    A function that gives an object of a Python class its present attributes back, and its present items if it is a container.

    :param value: the object
    :return: the function
    """
    base: Any = builtin_base(type(value))
    content = BUILTIN_PART[base](value) if hasattr(base, "clear") else None
    before = dict(all_attributes(value))

    def undo() -> None:
        if content is not None:
            replace_builtin_part(base, value, content)
        for name in dict(all_attributes(value)).keys() - before.keys():
            remove_attribute(value, name)
        for name, attribute in before.items():
            set_attribute(value, name, attribute)

    return undo
