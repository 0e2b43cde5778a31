"""States of objects: written down by value, put back in place, and nothing run."""

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import json
import multiprocessing
import queue
import random
import re
import subprocess
import threading
import time
import types
import typing
import weakref

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl.common.resume.state import State, capture, restore

pytestmark = pytest.mark.filterwarnings(
    "ignore:builtin type (Swig|swig)", "ignore:torch.quantize", "ignore:`torch.jit:DeprecationWarning"
)


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
        return type(b) is type(a) and ((a == b and str(a) == str(b)) or (a != a and b != b))
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
    state = capture(World(head, "beside it"))
    assert state.missing == ["held (builtins.list, nested too deeply)"]
    assert restore(World(None), state).prototype == "beside it"


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
    assert restore(World(None), state).held is None
    assert state.missing == [f"at held there was a {name}, of which no object can be made here"]


def test_a_state_makes_no_other_generators():
    state = capture(World(np.random.default_rng(1)))
    pairs = state.tree["attributes"]["held"]["bit_generator"]["state"]["pairs"]
    pairs[0][1] = "seterr"
    assert restore(World(None), state).held is None
    assert "a generator 'seterr', which is none of" in state.missing[0]


# What environments and callbacks of others may hold: each comes back with its value and type, or is named


class Pair(tuple):
    """A tuple with an attribute."""


class Level(int):
    pass


class Celsius(float):
    pass


class Name(str):
    pass


class Wave(complex):
    pass


class Raw(bytes):
    pass


class Stack(list):
    def __iter__(self):
        return reversed(self)


class Table(dict):
    pass


class Ordered(collections.OrderedDict):
    pass


class Default(collections.defaultdict):
    pass


class Recent(collections.deque):
    pass


class Visited(set):
    pass


class Closed(frozenset):
    pass


class Namespace(types.SimpleNamespace):
    pass


@dataclasses.dataclass(slots=True)
class Fast:
    place: tuple
    names: list


@dataclasses.dataclass(frozen=True)
class Fixed:
    x: int
    y: int


class Outer:
    class Suit(enum.IntEnum):
        CLUBS = 1
        HEARTS = 2

    class Word(str, enum.Enum):
        YES = "yes"


class Typed(typing.NamedTuple):
    x: int
    y: str

    def sum(self):
        return 0


def with_attribute(value, **attributes):
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


RECORD = np.dtype([("x", "<f4"), ("name", "<U3"), ("pair", "<i2", (2,))])
VALUES_OF_OTHERS = {
    "tuple": with_attribute(Pair((1, [2])), more={"a": 1}),
    "named tuple with a method": Typed(1, "a"),
    "int": with_attribute(Level(7), name="seven"),
    "bool in an int": Level(True),
    "float": Celsius(-0.0),
    "str": Name("x\x1b[31m"),
    "complex": Wave(complex(0.0, -0.0)),
    "bytes": Raw(b"\0ab"),
    "list": with_attribute(Stack([1, [2]]), top=2),
    "dict": Table(a=1, b=[2]),
    "ordered dict": Ordered([("b", 1), ("a", [2])]),
    "default dict": Default(list, {"a": [1]}),
    "deque": with_attribute(Recent([1, 2], maxlen=2), seen=9),
    "set": Visited({1, (2, 3)}),
    "frozenset": Closed({1}),
    "namespace": types.SimpleNamespace(a=[1]),
    "namespace of a class": Namespace(a=[1]),
    "plain default dict": collections.defaultdict(int, {"a": 1}),
    "counter": collections.Counter("aab"),
    "user dict": collections.UserDict(a=[1]),
    "slots": Fast((1, 2), ["a"]),
    "frozen": Fixed(1, 2),
    "keys": {Fixed(1, 2): "a", (Level(1), "b"): 2},
    "enum of a class": (Outer.Suit.HEARTS, Outer.Word.YES),
    "fraction": fractions.Fraction(-1, 3),
    "decimal": decimal.Decimal("1.10"),
    "range": range(1, 9, 2),
    "slice": slice(1, None, 2),
    "date": (datetime.datetime(2020, 2, 29, 1, 2, 3, 4, datetime.timezone.utc, fold=1), datetime.timedelta(-1, 5)),
    "long integer": -(1 << 40_000) - 1,
    "surrogates": "\ud800",
    "structured scalar": np.array([(1.5, "ab", (3, 4))], RECORD)[0],
    "structured array": np.array([(1.5, "ab", (3, 4))] * 2, RECORD),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "lists in an object array": np.array([[1, 2], [3, 4], None, {}], dtype=object)[:2],
    "empty arrays": (np.empty((0, 3)), np.empty(0, "<U5"), np.str_("")),
    "dates of NumPy": np.array(["2020-01-01", "NaT"], "<M8[D]"),
    "size": th.Size([2, 3]),
}


@pytest.mark.parametrize("case", VALUES_OF_OTHERS)
@pytest.mark.parametrize("same_before", [False, True])
def test_value_comes_back_with_its_type(case, same_before):
    value = VALUES_OF_OTHERS[case]
    new = round_trip(value, copy.deepcopy(value) if same_before else None, prototype=Fixed(0, 0))
    assert same(new, value)
    assert vars(new) == vars(value) if hasattr(value, "__dict__") else True


@pytest.mark.parametrize(
    "tensor",
    [
        th.empty(0),
        th.empty(2, 0, dtype=th.int64),
        th.tensor(2.5),
        th.tensor([1 + 2j]).conj(),
        th.ones(2, 1).expand(2, 3),
        th.ones(3, requires_grad=True),
        th.nn.Parameter(th.zeros(2), requires_grad=False),
    ],
)
def test_tensor_comes_back(tensor):
    new = round_trip(tensor, tensor.clone() if tensor.is_leaf and not tensor.requires_grad else copy.deepcopy(tensor))
    assert type(new) in (type(tensor), th.Tensor)
    assert th.equal(new, tensor) and (new.dtype, new.requires_grad) == (tensor.dtype, tensor.requires_grad)


def running():
    yield 1


class Broken:
    """Its attributes cannot be read."""

    @property
    def __dict__(self):
        raise RuntimeError("no\x1b[31m")


class Hides:
    """Says that it is of another class."""

    __class__ = property(lambda self: 1 / 0)


def dead_proxy():
    return weakref.proxy(Thing(Point(0, 0), Colour.RED, []))


CANNOT_BE_READ = {
    "sparse tensor": lambda: th.ones(2, 2).to_sparse(),
    "meta tensor": lambda: th.empty(2, device="meta"),
    "quantised tensor": lambda: th.quantize_per_tensor(th.ones(2), 0.1, 0, th.quint8),
    "scripted network": lambda: th.jit.script(th.nn.Linear(1, 1)),
    "generator": running,
    "counter": itertools.count,
    "memoryview": lambda: memoryview(b"a"),
    "exception": lambda: ValueError("a"),
    "masked array": lambda: np.ma.masked_array([1, 2], [0, 1]),
    "scalar of a class": lambda: type("Mine", (np.float64,), {})(1.0),
    "text of any length": lambda: np.array(["a"], np.dtypes.StringDType()),
    "struct_time": time.gmtime,
    "maximum": lambda: th.ones(2, 2).max(0),
    "thread": lambda: threading.Thread(target=len),
    "process": lambda: subprocess.Popen.__new__(subprocess.Popen),
    "connection": lambda: multiprocessing.Pipe()[0],
    "weak reference with a callback": lambda: weakref.ref(World, len),
    "weak dict": lambda: weakref.WeakValueDictionary(a=World),
    "proxy": lambda: weakref.proxy(World),
    "proxy of what is gone": dead_proxy,
    "unreadable": Broken,
    "seeded by another class": lambda: with_attribute(type("Dice", (random.Random,), {})(1)),
    "queue": queue.SimpleQueue,
}


@pytest.mark.parametrize("case", CANNOT_BE_READ)
def test_unreadable_value_is_named(case):
    value = CANNOT_BE_READ[case]()
    state = through_json(capture(World({"a": [value]}, {"beside": [3]})))
    assert state.missing and all(one.startswith("held['a']") for one in state.missing)
    new = restore(World("before"), state)
    assert new.held == "before" and new.prototype == {"beside": [3]}


def test_class_that_an_object_claims_is_not_asked():
    round_trip(Hides(), Hides())


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
def test_part_of_the_program_that_is_not_there_is_named(value):
    state = through_json(capture(World(value, {"beside": [3]})))
    assert state.missing == []
    new = restore(World(None), state)
    assert new.held is None and new.prototype == {"beside": [3]}
    assert len(state.missing) == 1 and "held" in state.missing[0]


def test_random_generators_of_the_system_have_no_state():
    before = random.SystemRandom()
    assert round_trip(random.SystemRandom(), before) is before


def test_more_generators_go_on():
    generator, bits = th.Generator().manual_seed(3), np.random.PCG64(5)
    th.rand(3, generator=generator)
    again, again_bits, of_it = round_trip((generator, bits, np.random.Generator(bits)))
    assert th.rand(1, generator=again) == th.rand(1, generator=generator)
    assert of_it.bit_generator is again_bits and of_it.random() == np.random.Generator(bits).random()


@pytest.mark.parametrize("before", [None, np.random.default_rng(7), np.random.default_rng(8)])
def test_generators_go_on_spawning(before):
    generator = np.random.default_rng(7)
    generator.spawn(2)
    new = round_trip(generator, before)
    assert new.spawn(1)[0].random() == generator.spawn(1)[0].random()


def test_weak_references_come_back_where_something_holds_their_object():
    thing = Thing(Point(0, 0), Colour.RED, [])
    new, reference = round_trip((thing, weakref.ref(thing)))
    assert reference() is new
    held_elsewhere = Thing(Point(0, 0), Colour.BLUE, [])
    assert round_trip(weakref.ref(thing), weakref.ref(held_elsewhere))() is held_elsewhere == thing
    state = capture(World(weakref.ref(thing), Fixed(0, 0)))
    restore(World(None, Fixed(0, 0)), state)
    assert state.missing == ["held (a weak reference)"]


def test_arguments_of_partial_functions_come_back():
    new = round_trip(functools.partial(print, [1], sep="-"), functools.partial(print, [5], sep="+"))
    assert (new.func, new.args, new.keywords) == (print, ([1],), {"sep": "-"})


def test_function_that_is_another_one_now_is_named():
    state = capture(World([print]))
    restored = restore(World([len]), state)
    assert restored.held == [len] and "there was builtins.print" in state.missing[0]


def test_space_that_has_changed_is_named():
    state = capture(World(spaces.Discrete(3)))
    restore(World(spaces.Discrete(4)), state)
    assert "there was the space Discrete(3)" in state.missing[0]


def test_object_that_is_a_part_of_a_missing_value_is_captured_elsewhere():
    shared = [1]
    state = through_json(capture({"first": (shared, iter([])), "second": [shared]}))
    assert restore({"first": None, "second": None}, state) == {"first": None, "second": [[1]]}


def test_object_that_is_a_part_of_a_value_that_is_not_there_is_restored_elsewhere():
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


# What classes and modules hold

HOME = np.zeros(2)
SIDES = [Thing(Point(0, 1), Colour.RED, []), Thing(Point(1, 0), Colour.BLUE, [])]


class Maze(gym.Env):
    """Begins with objects of its class and module."""

    START = np.zeros(2)
    MAPS = ({"walls": [1, 2]}, {"walls": [3]})

    def __init__(self):
        self.reset()

    def reset(self):
        self.position, self.home, self.map, self.side = self.START, HOME, self.MAPS[0], SIDES[0]
        self.view = self.START[:1]


def test_constants_of_classes_and_modules_stay_as_they_are():
    env = Maze()
    env.position = env.position + 1
    env.home, env.view, env.map, env.side = np.full(2, 5.0), np.ones(1), {"walls": [9]}, copy.copy(SIDES[1])
    other = restore(Maze(), through_json(capture(env)))
    assert other.position.tolist() == [1, 1] and other.home.tolist() == [5, 5] and other.view.tolist() == [1]
    assert other.map == {"walls": [9]} and other.side == SIDES[1]
    assert Maze.START.tolist() == HOME.tolist() == [0, 0]
    assert Maze.MAPS == ({"walls": [1, 2]}, {"walls": [3]}) and SIDES[0].colour is Colour.RED


def test_constants_of_classes_and_modules_come_back_as_themselves():
    env = Maze()
    env.map, env.side = Maze.MAPS[1], SIDES[1]
    other = restore(Maze(), through_json(capture(env)))
    assert other.map is Maze.MAPS[1] and other.side is SIDES[1]
    assert other.position is Maze.START


# Self-play


def opponent(seed, **arguments):
    return DQN("MlpPolicy", "CartPole-v1", seed=seed, policy_kwargs={"net_arch": [4]}, **arguments)


def weights(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values()])


def test_models_and_policies_of_others_come_back():
    first, second = opponent(1), opponent(2)
    first.num_timesteps = 5
    first.policy.optimizer.param_groups[0]["lr"] = 0.5
    network = th.nn.Sequential(th.nn.Linear(1, 1), th.nn.Dropout())
    network[1].eval(), network[0].requires_grad_(False)
    state = through_json(capture(World([first, second.policy], network)))
    assert state.missing == []
    others = [opponent(3), opponent(4).policy]
    restored = restore(World(list(others), th.nn.Sequential(th.nn.Linear(1, 1), th.nn.Dropout())), state)
    assert state.missing == []
    assert restored.held[0] is others[0] and restored.held[1] is others[1]
    assert th.equal(weights(others[0]), weights(first)) and others[0].num_timesteps == 5
    assert others[0].policy.optimizer.param_groups[0]["lr"] == 0.5
    assert th.equal(others[1].q_net.q_net[0].weight, second.policy.q_net.q_net[0].weight)
    new = restored.prototype
    assert (new.training, new[1].training, new[0].weight.requires_grad) == (True, False, False)
    assert th.equal(new[0].weight, network[0].weight)


def test_replay_buffer_of_an_opponent_is_named():
    model = opponent(1, buffer_size=10)
    model.replay_buffer.pos = 1
    assert capture(World(model)).missing == ["held.replay_buffer (stable_baselines3.common.buffers.ReplayBuffer)"]
    assert isinstance(model.replay_buffer, ReplayBuffer)


def test_own_model_is_a_part_of_the_program():
    model, resumed = opponent(1), opponent(2)
    own, new = ({"model": one, "policy": one.policy} for one in (model, resumed))
    state = through_json(capture(World([model, model.policy]), own))
    assert len(state.arrays) == 0
    restored = restore(World(None), state, new)
    assert restored.held[0] is resumed and restored.held[1] is resumed.policy
    assert not th.equal(weights(model), weights(resumed))


def test_pool_of_copies_of_the_own_policy_comes_back():
    model, resumed = opponent(1), opponent(2)
    pool = [copy.deepcopy(opponent(seed).policy) for seed in (3, 4)]
    state = through_json(capture(World(pool), {"policy": model.policy}))
    new = restore(World([]), state, {"policy": resumed.policy}).held
    assert state.missing == []
    for one, other in zip(pool, new, strict=True):
        assert th.equal(one.q_net.q_net[0].weight, other.q_net.q_net[0].weight)
    assert not th.equal(resumed.policy.q_net.q_net[0].weight, new[0].q_net.q_net[0].weight)
