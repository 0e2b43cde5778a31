"""The walks: shared and separate objects, cycles, the program's own objects, classes that may be used."""

import collections

import numpy as np
import pytest
import torch as th
from held_values import (
    Colour,
    Point,
    Stack,
    Thing,
    World,
    round_trip,
    same,
    through_json,
)
from stable_baselines3 import DQN

from sb3_mirl.common.resume.state import capture, restore


def test_containers_and_arrays_are_restored_in_place():
    inner, array = [1, 2], np.arange(3)
    world = World({"list": inner, "array": array})
    state = capture(World({"list": [3], "array": np.array([7, 8, 9])}))
    restore(world, state)
    assert world.held["list"] is inner == [3]
    assert world.held["array"] is array and array.tolist() == [7, 8, 9]


def test_shared_objects_stay_shared():
    shared = [1]
    new = round_trip([shared, {"again": shared}], [[0], {"again": [0]}])
    new[0].append(2)
    assert new[1]["again"] == [1, 2]
    loop: list = []
    loop.append(loop)
    new = round_trip(loop)
    assert new[0] is new


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (lambda: np.zeros(3), lambda: np.ones(3)),
        (lambda: [0], lambda: [1]),
        (lambda: {"a": 0}, lambda: {"a": 1}),
        (lambda: collections.deque([0], 3), lambda: collections.deque([1], 3)),
        (lambda: Thing(Point(0, 0), Colour.RED, [0]), lambda: Thing(Point(1, 1), Colour.BLUE, [1])),
    ],
)
def test_two_objects_stay_two_if_the_new_environment_shares_them(first, then):
    # As when reset() begins with `self.state = self.first_state`
    state = through_json(capture(World([first(), then()])))
    shared = first()
    new = restore(World([shared, shared]), state).held
    assert same(new[0], first()) or new[0] == first()
    assert same(new[1], then()) or new[1] == then()


def test_views_of_arrays_stay_views_and_separate_arrays_separate():
    state = through_json(capture(World([np.zeros(3), np.ones(2)])))
    shared = np.zeros(3)
    new = restore(World([shared, shared[:2]]), state).held
    assert (new[0].tolist(), new[1].tolist()) == ([0, 0, 0], [1, 1])
    # but views that are still views stay so
    array = np.arange(3.0)
    state = through_json(capture(World([array, array[:2]])))
    new = restore(World([shared, shared[:2]]), state).held
    assert new[1].base is new[0] and new[0].tolist() == [0, 1, 2]


def test_too_deeply_nested_values_are_missing():
    head: list = []
    for _ in range(5000):
        head = [head]
    state = capture(World(head, "beside it"))
    assert state.missing == ["held (builtins.list, nested too deeply)"]
    assert restore(World(None), state).prototype == "beside it"


def test_functions_of_the_new_environment_are_kept():
    world = restore(World(len), capture(World(print)))
    assert world.held is len


def test_changed_function_is_named():
    state = capture(World([print]))
    restored = restore(World([len]), state)
    assert restored.held == [len] and "there was builtins.print" in state.missing[0]


@pytest.mark.parametrize("name", ["subprocess.Popen", "tempfile.TemporaryDirectory", "os.system", "builtins.object"])
def test_objects_of_other_packages_are_never_made(name):
    import tempfile  # noqa: F401

    state = capture(World(Thing(Point(0, 0), Colour.RED, [])))
    held = state.tree["attributes"]["held"]
    assert held["class"].endswith("Thing")
    held["class"] = name
    assert restore(World(None), state).held is None
    assert state.missing == [f"at held there was a {name}, of which no object can be made here"]


def test_part_of_a_missing_value_is_captured_elsewhere():
    shared = [1]
    state = through_json(capture({"first": (shared, iter([])), "second": [shared]}))
    assert restore({"first": None, "second": None}, state) == {"first": None, "second": [[1]]}


def test_part_of_an_unrestorable_value_is_restored_elsewhere():
    shared = [1]
    state = through_json(capture({"first": (shared, len), "second": [shared]}))
    assert restore({"first": None, "second": None}, state) == {"first": None, "second": [[1]]}
    assert state.missing == ["at first[1] there was builtins.len, which is a part of the program"]


def test_value_that_contains_itself_is_restored_or_named():
    stack = Stack([1])
    stack.append(stack)
    new = round_trip(stack)
    assert list.__getitem__(new, 1) is new
    objects = np.empty(1, dtype=object)
    objects[0] = objects
    new = round_trip(objects)
    assert new[0] is new
    inside: list = []
    inside.append((1, inside))  # a tuple of a list of the tuple
    state = through_json(capture(World(inside[0])))
    restore(World(None), state)
    assert len(state.missing) == 1


def opponent(seed, **arguments):
    return DQN("MlpPolicy", "CartPole-v1", seed=seed, policy_kwargs={"net_arch": [4]}, **arguments)


def weights(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values()])


def test_own_model_is_replaced_by_that_of_the_resumed_run():
    model, resumed = opponent(1), opponent(2)
    own, new = ({"model": one, "policy": one.policy} for one in (model, resumed))
    state = through_json(capture(World([model, model.policy]), own))
    assert len(state.arrays) == 0
    restored = restore(World(None), state, new)
    assert restored.held[0] is resumed and restored.held[1] is resumed.policy
    assert not th.equal(weights(model), weights(resumed))


@pytest.mark.parametrize("name", ["id", "is", "children", "items"])
def test_attribute_may_have_the_name_of_a_field(name):
    worlds = [World(held, Thing(Point(0, 0), Colour.RED, [])) for held in (max, min)]
    for world, number in zip(worlds, (2, 1), strict=True):
        setattr(world, name, number)
        world.prototype.inside = [number]
        world.held = [world.held, world.prototype]
    restored = restore(worlds[1], through_json(capture(worlds[0])))
    assert restored.prototype.inside == [2] and getattr(restored, name) == 2
