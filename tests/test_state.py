"""States of objects: written down by value, put back in place, and nothing run."""

import collections
import dataclasses
import enum
import json
import random

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl.state import State, capture, restore


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Thing:
    place: Point
    colour: Colour
    inside: list


class Flags(enum.Flag):
    UP = 1
    LEFT = 2


class Slotted:
    __slots__ = ("__dict__", "__hidden", "count")

    def __init__(self, count):
        self.count = self.__hidden = count
        self.more = None


class World(gym.Env):
    """Whatever is given as its attribute ``held``."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, held=None, prototype=None):
        self.held, self.prototype = held, prototype


def through_json(state: State) -> State:
    return State(json.loads(json.dumps(state.tree)), state.arrays, state.missing)


def round_trip(value, before=None, prototype=None):
    """The value, captured from one environment and restored into another that held something else."""
    state = through_json(capture(World(value, prototype)))
    assert state.missing == []
    return restore(World(before, prototype), state).held


def same(a, b) -> bool:
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape
    if isinstance(a, float):
        return type(b) is float and ((a == b and str(a) == str(b)) or (a != a and b != b))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(allow_nan=False)
ARRAYS = arrays.arrays(
    arrays.scalar_dtypes() | arrays.unicode_string_dtypes(), arrays.array_shapes(min_dims=0, min_side=0, max_side=3)
)
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    PLAIN | ARRAYS | ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.ravel()[0]),
    lambda values: (
        st.lists(values)
        | st.lists(values).map(tuple)
        | st.dictionaries(KEYS, values)
        | st.lists(values).map(lambda items: collections.deque(items, maxlen=9))
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_whatever_is_plain_comes_back_over_whatever_was_there(value, before):
    assert same(round_trip(value, before), value)


def test_objects_come_back():
    thing = Thing(Point(1, np.float32(2.5)), Colour.BLUE, [Thing(Point(0, 0), Colour.RED, [])])
    new = round_trip(thing, None, prototype=Thing)
    assert new == thing and new is not thing
    assert type(new.place) is Point and new.colour is Colour.BLUE
    slotted = Slotted(3)
    slotted.more = {"a": [1]}
    new = round_trip(slotted, Slotted(0))
    assert (new.count, new._Slotted__hidden, new.more) == (3, 3, {"a": [1]})
    for flags in (Flags(0), Flags.LEFT, Flags.UP | Flags.LEFT):
        assert round_trip(flags) is flags


def test_in_place():
    inner, array = [1, 2], np.arange(3)
    world = World({"list": inner, "array": array})
    state = capture(World({"list": [3], "array": np.array([7, 8, 9])}))
    restore(world, state)
    assert world.held["list"] is inner == [3]
    assert world.held["array"] is array and array.tolist() == [7, 8, 9]


def test_what_was_shared_stays_shared():
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
def test_what_was_two_objects_stays_two(first, then):
    # As when reset() begins with `self.state = self.first_state`
    state = through_json(capture(World([first(), then()])))
    shared = first()
    new = restore(World([shared, shared]), state).held
    assert same(new[0], first()) or new[0] == first()
    assert same(new[1], then()) or new[1] == then()


def test_a_view_that_is_none_any_more():
    state = through_json(capture(World([np.zeros(3), np.ones(2)])))
    shared = np.zeros(3)
    new = restore(World([shared, shared[:2]]), state).held
    assert (new[0].tolist(), new[1].tolist()) == ([0, 0, 0], [1, 1])
    # but views that are still views stay so
    array = np.arange(3.0)
    state = through_json(capture(World([array, array[:2]])))
    new = restore(World([shared, shared[:2]]), state).held
    assert new[1].base is new[0] and new[0].tolist() == [0, 1, 2]


def test_what_is_nested_too_deeply_is_missing():
    head: list = []
    for _ in range(5000):
        head = [head]
    assert capture(World(head)).missing == ["a structure that is nested too deeply"]


@pytest.mark.parametrize("generator", [np.random.default_rng(1), np.random.Generator(np.random.MT19937(1))])
@pytest.mark.parametrize("before", [None, np.random.default_rng(5)])
def test_generators_go_on(generator, before):
    generator.integers(5, dtype=np.int32)  # half of a 64-bit draw is left
    new = round_trip(generator, before)
    assert new.integers(2**31, size=9, dtype=np.int32).tolist() == generator.integers(2**31, size=9, dtype=np.int32).tolist()


def test_old_generators_go_on():
    generator, state = random.Random(1), np.random.RandomState(1)
    generator.gauss(0, 1)
    state.standard_normal()
    again, old_style = round_trip((generator, state))
    assert again.gauss(0, 1) == generator.gauss(0, 1)
    assert old_style.standard_normal(3).tolist() == state.standard_normal(3).tolist()


@pytest.mark.parametrize("dtype", [th.float32, th.bfloat16, th.int64, th.bool])
def test_tensors(dtype):
    tensor = (th.arange(6).reshape(2, 3) % 2).to(dtype)
    new = round_trip(tensor, th.ones(2, 3, dtype=dtype))
    assert th.equal(new, tensor) and new.dtype == dtype


def test_networks_and_their_optimisers_go_on():
    def learner(seed):
        th.manual_seed(seed)
        network = th.nn.Linear(2, 1)
        return {"network": network, "optimizer": th.optim.Adam(network.parameters())}

    def learn(held):
        loss = held["network"](th.ones(1, 2)).sum()
        held["optimizer"].zero_grad()
        loss.backward()
        held["optimizer"].step()

    one = learner(1)
    learn(one)
    two = round_trip(one, learner(2))
    learn(one), learn(two)
    assert th.equal(one["network"].weight, two["network"].weight)


def test_generators_of_spaces_go_on():
    space = spaces.Dict({"a": spaces.Discrete(100), "b": spaces.Box(0, 1, (2,))})
    space.seed(1)
    other = spaces.Dict({"a": spaces.Discrete(100), "b": spaces.Box(0, 1, (2,))})
    new = round_trip(space, other)
    assert new is other
    assert new.sample()["a"] == space.sample()["a"]


def test_functions_belong_to_the_program():
    world = restore(World(len), capture(World(print)))
    assert world.held is len


@pytest.mark.parametrize("value", [iter([1, 2]), (number for number in range(3)), np.nditer(np.arange(3)), memoryview(b"abc")])
def test_what_cannot_be_read_is_named(value):
    state = capture(World({"a": [value]}))
    assert len(state.missing) == 1 and state.missing[0].startswith("held['a'][0] (")
    world = World({"a": "before"}, prototype=1)
    restore(world, state)
    assert world.held == {"a": "before"}  # as a whole: half of it would be wrong


def test_an_environment_without_a_part_of_its_own_keeps_the_parts_around_it():
    env, other = (make_vec_env("LunarLander-v3", 1, seed=seed) for seed in (1, 2))
    env.reset(), other.reset()
    env.step(np.array([1]))
    state = capture(env)
    assert state.missing and all("world" in one or ".this" in one for one in state.missing)
    restore(other, state)
    assert other.envs[0].get_wrapper_attr("_elapsed_steps") == 1
    assert other.envs[0].unwrapped.np_random.random() == env.envs[0].unwrapped.np_random.random()


def test_another_environment_is_refused():
    state = capture(make_vec_env("CartPole-v1", 1))
    with pytest.raises(ValueError, match=r"at envs\[0\].*MountainCarEnv"):
        restore(make_vec_env("MountainCar-v0", 1), state)
    with pytest.raises(ValueError, match=r"at envs\[1\] the state has a .*Monitor"):
        restore(make_vec_env("CartPole-v1", 1), capture(make_vec_env("CartPole-v1", 2)))
    with pytest.raises(ValueError, match=r"the state has a .*Monitor, the object a .*TimeLimit"):
        restore(DummyVecEnv([lambda: gym.make("CartPole-v1")]), capture(make_vec_env("CartPole-v1", 1)))


@pytest.mark.parametrize("name", ["subprocess.Popen", "tempfile.TemporaryDirectory", "os.system", "builtins.object"])
def test_a_state_makes_no_objects_of_other_packages(name):
    import subprocess  # noqa: F401 (it is there, so it is found)
    import tempfile  # noqa: F401

    state = capture(World(Thing(Point(0, 0), Colour.RED, [])))
    held = state.tree["attributes"]["held"]
    assert held["class"].endswith("Thing")
    held["class"] = name
    with pytest.raises(ValueError, match=f"held there was a {name}"):
        restore(World(None), state)


def test_a_state_makes_no_other_generators():
    state = capture(World(np.random.default_rng(1)))
    pairs = state.tree["attributes"]["held"]["state"]["pairs"]
    pairs[0][1] = "seterr"
    with pytest.raises(ValueError, match="a generator 'seterr', which is none of"):
        restore(World(None), state)
