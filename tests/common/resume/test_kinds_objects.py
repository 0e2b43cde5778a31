"""Objects of Python classes, models and policies are restored."""

import copy
import functools
import weakref

import numpy as np
import torch as th
from held_values import Colour, Fixed, Flags, Point, Slotted, Thing, World, round_trip, through_json
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_mirl.common.resume.state import capture, restore


def test_objects_are_restored():
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


def test_weak_references_are_restored_if_their_object_is_alive():
    thing = Thing(Point(0, 0), Colour.RED, [])
    new, reference = round_trip((thing, weakref.ref(thing)))
    assert reference() is new
    held_elsewhere = Thing(Point(0, 0), Colour.BLUE, [])
    assert round_trip(weakref.ref(thing), weakref.ref(held_elsewhere))() is held_elsewhere == thing
    state = capture(World(weakref.ref(thing), Fixed(0, 0)))
    restore(World(None, Fixed(0, 0)), state)
    assert state.missing == ["held (a weak reference)"]


def test_arguments_of_partial_functions_are_restored():
    new = round_trip(functools.partial(print, [1], sep="-"), functools.partial(print, [5], sep="+"))
    assert (new.func, new.args, new.keywords) == (print, ([1],), {"sep": "-"})


def opponent(seed, **arguments):
    return DQN("MlpPolicy", "CartPole-v1", seed=seed, policy_kwargs={"net_arch": [4]}, **arguments)


def weights(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values()])


def test_other_models_and_policies_are_restored():
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


def test_pool_of_copies_of_the_own_policy_is_restored():
    model, resumed = opponent(1), opponent(2)
    pool = [copy.deepcopy(opponent(seed).policy) for seed in (3, 4)]
    state = through_json(capture(World(pool), {"policy": model.policy}))
    new = restore(World([]), state, {"policy": resumed.policy}).held
    assert state.missing == []
    for one, other in zip(pool, new, strict=True):
        assert th.equal(one.q_net.q_net[0].weight, other.q_net.q_net[0].weight)
    assert not th.equal(resumed.policy.q_net.q_net[0].weight, new[0].q_net.q_net[0].weight)


def test_environment_that_is_made_when_it_is_needed_is_named():
    state = capture(World(World(1), [World(2)]))
    new = restore(World(None, []), state)
    assert (new.held, new.prototype) == (None, [])
    assert [name.partition(" a ")[0] for name in state.missing] == ["at held there was", "at prototype[0] there was"]


class Agent:
    def act(self):
        return id(self)

    def wait(self):
        return None


def test_method_of_an_object_that_cannot_be_captured_is_that_of_the_new_one():
    agents = [Agent(), Agent()]
    for agent in agents:
        agent.held = (number for number in range(9))
    state = through_json(capture(World([agents[0].act, agents[0].wait], 3)))
    new = restore(World([agents[1].act, agents[1].wait], 0), state)
    assert state.missing == [] and new.held == [agents[1].act, agents[1].wait] and new.prototype == 3


def test_method_is_restored_with_its_object():
    agents, others = [Agent(), Agent()], [Agent(), Agent()]
    state = through_json(capture(World([agents[1].act, agents])))
    new = restore(World([others[0].act, others]), state).held
    assert state.missing == [] and new[0].__self__ is new[1][1] is not new[1][0]
    state = through_json(capture(World(agents[1].act)))
    restore(World(others[1].wait), state)
    assert len(state.missing) == 1 and "Agent.act, which is a part of the program" in state.missing[0]
