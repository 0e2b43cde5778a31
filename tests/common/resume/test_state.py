"""States: what is plain comes back, what cannot be read is named."""

import collections
import enum
import functools
import io
import re
import threading
import weakref

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from held_values import (
    CANNOT_BE_READ,
    Fixed,
    Slotted,
    World,
    round_trip,
    same,
    through_json,
    with_attribute,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl.common.resume.state import capture, restore

pytestmark = pytest.mark.filterwarnings(
    "ignore:builtin type (Swig|swig)", "ignore:torch.quantize", "ignore:`torch.jit:DeprecationWarning"
)


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
def test_plain_values_are_restored_over_any_old_value(value, before):
    assert same(round_trip(value, before), value)


@pytest.mark.parametrize("value", [iter([1, 2]), (number for number in range(3)), np.nditer(np.arange(3)), memoryview(b"abc")])
def test_unreadable_parts_are_named_and_values_restored_whole_or_not_at_all(value):
    state = capture(World({"a": [value]}))
    assert len(state.missing) == 1 and state.missing[0].startswith("held['a'][0] (")
    world = World({"a": "before"}, prototype=1)
    restore(world, state)
    assert world.held == {"a": "before"}  # as a whole: half of it would be wrong


@pytest.mark.parametrize("case", CANNOT_BE_READ)
def test_unreadable_value_is_named(case):
    value = CANNOT_BE_READ[case]()
    state = through_json(capture(World({"a": [value]}, {"beside": [3]})))
    assert state.missing and all(one.startswith("held['a']") for one in state.missing)
    new = restore(World("before"), state)
    assert new.held == "before" and new.prototype == {"beside": [3]}


def test_wrappers_are_restored_if_a_part_of_the_environment_is_missing():
    env, other = (make_vec_env("LunarLander-v3", 1, seed=seed) for seed in (1, 2))
    env.reset(), other.reset()
    env.step(np.array([1]))
    state = capture(env)
    assert state.missing and all("world" in one or ".this" in one for one in state.missing)
    restore(other, state)
    assert other.envs[0].get_wrapper_attr("_elapsed_steps") == 1
    assert other.envs[0].unwrapped.np_random.random() == env.envs[0].unwrapped.np_random.random()


def local_enum():
    class Local(enum.Enum):
        ONE = 1

    return Local.ONE


@pytest.mark.parametrize(
    "value",
    [
        local_enum(),
        len,
        [print],
        {"a": threading.Lock()},
        functools.partial(print, 1),
        collections.defaultdict(lambda: 5),
        th.nn.Linear(2, 1),
        th.nn.Parameter(th.ones(2)),
        th.optim.SGD([th.nn.Parameter(th.ones(1))], 0.1),
        [spaces.Discrete(3)],
        with_attribute(Slotted(1), function=len),
        re.compile("a"),
        weakref.ref(Fixed(1, 2)) and [io.StringIO("a")],
    ],
)
def test_missing_part_of_the_program_is_named(value):
    state = through_json(capture(World(value, {"beside": [3]})))
    assert state.missing == []
    new = restore(World(None), state)
    assert new.held is None and new.prototype == {"beside": [3]}
    assert len(state.missing) == 1 and "held" in state.missing[0]
