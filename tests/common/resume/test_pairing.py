"""Environments that are in several places, such as the active one of several."""

import gymnasium as gym
import pytest
from held_values import World, through_json

from sb3_mirl.common.resume.state import capture, restore


class Switch(gym.Env):
    """One of several environments is active, as ``reset()`` would choose it."""

    def __init__(self, envs, active):
        self.active = None if active is None else envs[active]
        self.envs = envs


class Other(World):
    pass


@pytest.mark.parametrize("envs", [lambda: [World(0), World(0), World(0)], lambda: [World(0), Other(0), World(0)]])
@pytest.mark.parametrize("before", [None, 0, 1, 2])
@pytest.mark.parametrize("container", [list, tuple, lambda envs: dict(enumerate(envs))])
def test_environments_stay_apart_if_another_one_is_active(envs, before, container):
    captured = Switch(container(envs()), 2)
    for number in range(3):
        captured.envs[number].held = number
    state = through_json(capture(captured))
    new = Switch(container(envs()), before)
    own = [new.envs[number] for number in range(3)]
    restore(new, state)
    assert state.missing == []
    assert [new.envs[number] for number in range(3)] == own and [env.held for env in own] == [0, 1, 2]
    assert new.active is own[2]


def test_environments_stay_apart_with_several_references():
    class Switches(Switch):
        def __init__(self, envs, active, previous):
            super().__init__(envs, active)
            self.previous = envs[previous]

    captured = Switches([World(0), World(1)], 1, 0)
    state = through_json(capture(captured))
    new = Switches([World(None), World(None)], 0, 1)
    own = [*new.envs]
    restore(new, state)
    assert new.envs == own and [env.held for env in own] == [0, 1] and state.missing == []
    assert new.active is own[1] and new.previous is own[0]


def test_environment_that_took_the_place_of_two_is_named():
    state = through_json(capture(World(World(1), World(2))))
    shared = World(0)
    restore(World(shared, shared), state)
    assert state.missing == ["at prototype there was an environment of its own, which here is also in another place"]
    assert shared.held == 1
