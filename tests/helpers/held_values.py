"""Values that environments and callbacks of other people may hold, and how they are captured and restored."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import itertools
import json
import multiprocessing
import queue
import random
import subprocess
import threading
import time
import types
import typing
import weakref

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_mirl.common.resume.state import State, capture, restore


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
if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    CANNOT_BE_READ["text of any length"] = lambda: np.array(["a"], np.dtypes.StringDType())
