"""A value of which a part cannot be restored stays as it was, in all its parts."""

import collections
import copy
import random

import numpy as np
import pytest
import torch as th
from held_values import Colour, Point, Slotted, Stack, Thing, World, same, through_json, with_attribute

from sb3_mirl.common.resume.state import capture, restore

VALUES = {
    "array": lambda x: np.full(2, x),
    "tensor": lambda x: th.full((2,), float(x)),
    "list": lambda x: [x, [x]],
    "dict": lambda x: {"a": x, x: [x]},
    "default dict": lambda x: collections.defaultdict(int, {x: x}),
    "deque": lambda x: collections.deque([x], 3),
    "set": lambda x: {x},
    "object": lambda x: Thing(Point(x, x), Colour(x), [x]),
    "derived list": lambda x: with_attribute(Stack([x]), top=x),
    "attribute that is new": lambda x: with_attribute(Slotted(x), **({"later": [x]} if x == 2 else {"first": [x]})),
    "NumPy's generator": np.random.default_rng,
    "NumPy's old generator": np.random.RandomState,
    "Python's generator": random.Random,
    "torch's generator": lambda x: th.Generator().manual_seed(x),
    "network": lambda x: with_attribute(th.nn.Linear(1, 1), extra=x).requires_grad_(x == 1),
}


@pytest.mark.parametrize("case", VALUES)
def test_value_with_a_part_that_cannot_be_restored_stays_as_it_was(case):
    make = VALUES[case]
    state = through_json(capture(World([make(2), len])))
    held = make(1)
    before = capture(World([copy.deepcopy(held), print]))
    world = restore(World([held, print]), state)
    assert state.missing == ["at held[1] there was builtins.len, which is a part of the program"]
    assert world.held[0] is held
    after = capture(world)
    assert after.tree == before.tree and all(map(same, after.arrays, before.arrays))


def test_optimiser_beside_a_part_that_cannot_be_restored_stays_as_it_was():
    def optimizer(rate):
        return th.optim.SGD([th.nn.Parameter(th.ones(1))], rate)

    held = optimizer(0.1)
    restore(World([held, print]), through_json(capture(World([optimizer(0.2), len]))))
    assert held.param_groups[0]["lr"] == 0.1


def test_part_of_an_unrestorable_value_is_restored_elsewhere_in_place():
    shared = [1]
    state = through_json(capture({"first": (shared, len), "second": shared}))
    first, second = [5], [6]
    new = restore({"first": (first, print), "second": second}, state)
    assert first == [5] and new["second"] is second == [1]
