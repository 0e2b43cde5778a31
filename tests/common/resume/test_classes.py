"""Classes: objects that classes and modules hold, and objects that misreport their class."""

import copy
import operator
import random

import gymnasium as gym
import numpy as np
import pytest
from held_values import Colour, Hides, Point, Thing, World, round_trip, through_json

from sb3_mirl.common.resume.classes import _constant, program_name
from sb3_mirl.common.resume.state import capture, restore

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


def test_constants_of_classes_and_modules_are_not_changed():
    env = Maze()
    env.position = env.position + 1
    env.home, env.view, env.map, env.side = np.full(2, 5.0), np.ones(1), {"walls": [9]}, copy.copy(SIDES[1])
    other = restore(Maze(), through_json(capture(env)))
    assert other.position.tolist() == [1, 1] and other.home.tolist() == [5, 5] and other.view.tolist() == [1]
    assert other.map == {"walls": [9]} and other.side == SIDES[1]
    assert Maze.START.tolist() == HOME.tolist() == [0, 0]
    assert Maze.MAPS == ({"walls": [1, 2]}, {"walls": [3]}) and SIDES[0].colour is Colour.RED


def test_constants_of_classes_and_modules_keep_their_identity():
    env = Maze()
    env.map, env.side = Maze.MAPS[1], SIDES[1]
    other = restore(Maze(), through_json(capture(env)))
    assert other.map is Maze.MAPS[1] and other.side is SIDES[1]
    assert other.position is Maze.START


def test_claimed_class_of_an_object_is_ignored():
    round_trip(Hides(), Hides())


def test_system_random_has_no_state():
    before = random.SystemRandom()
    assert round_trip(random.SystemRandom(), before) is before


def lambdas():
    return [lambda x: x, lambda x: -x, lambda x: x + 1, lambda x: x + 2]


@pytest.mark.parametrize(
    ("saved", "here"),
    [
        (np.maximum, np.minimum),
        (operator.itemgetter(1), operator.itemgetter(0)),
        (operator.attrgetter("a"), operator.attrgetter("b")),
        *[(lambdas()[0], other) for other in lambdas()[1:]],
        (lambdas()[2], lambdas()[3]),
    ],
)
def test_parts_of_the_program_are_told_apart(saved, here):
    state = through_json(capture(World(saved)))
    assert restore(World(here), state).held is here
    assert len(state.missing) == 1 and "which is a part of the program" in state.missing[0]


def test_same_function_without_a_name_is_recognised_in_another_line():
    state = through_json(capture(World([eval("lambda x: (lambda y: x + y)"), np.add])))
    restore(World([eval("\n\nlambda x: (lambda y: x + y)"), np.add]), state)
    assert state.missing == []


def test_constants_of_functions_are_named_alike_in_each_process():
    """The order of a set of texts depends on the process."""
    names = [chr(letter) for letter in range(97, 123)]
    orders = [frozenset(names), frozenset(reversed(names))]
    assert len({_constant((1, order)) for order in orders}) == 1
    assert _constant(frozenset(["b", "a"])) == "frozenset('a', 'b')"
    assert program_name(lambda x: x in {"a", "b"}) != program_name(lambda x: x in {"a", "c"})
