"""Mixtures of skills."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_mirl import GridWorld, soft_value_iteration
from sb3_mirl.envs.gridworld import toy_text_arrays
from sb3_mirl.mirl.operators import kl_divergence, soft_policy
from sb3_mirl.mirl.skills import Skills
from sb3_mirl.mirl.state_priors import Conditional
from sb3_mirl.mirl.views import View

FOUR_ROOMS = """
###########
#SSSS#SSSS#
#SSSS#SSSS#
#SSSSSSSSS#
#SSSS#SSSS#
###S###S###
#SSSS#SSSS#
#SSSSSSSSG#
#SSSS#SSSS#
###########
"""


def skills(n_skills, high=None, low="all", n_x=3, n_actions=4, seed=0):
    space = spaces.Discrete(n_x)
    views = [View(name, given, space) for name, given in (("high", high), ("low", low))]
    return Skills(*views, n_skills, n_actions, seed)


def policies(*shape):
    return th.as_tensor(np.random.default_rng(0).dirichlet(np.ones(shape[-1]), shape[:-1]))


@pytest.mark.parametrize("batch", [1, 5])
def test_one_skill_is_a_conditional_prior(batch):
    mixture, table = skills(1), Conditional(View("low", "all", spaces.Discrete(3)), 4)
    for step, policy in enumerate(policies(50, batch, 4)):
        x = th.as_tensor(np.random.default_rng(step).integers(3, size=batch))
        for prior in (mixture, table):
            prior.move(x, policy, 0.05)
        np.testing.assert_allclose(mixture(x), table(x), rtol=0, atol=1e-14)
    assert (mixture.high == 1).all() and not np.allclose(table.table, 0.25)


def test_one_step_is_one_of_expectation_maximisation():
    prior, policy, step_size = skills(2, high="all", low="all"), policies(1, 4), 0.1
    high, low = prior.high[1].numpy().copy(), prior.low[:, 1].numpy().copy()
    prior.move(th.tensor([1]), policy, step_size)
    joint = high[:, None] * low
    posterior = policy[0].numpy() * joint / joint.sum(axis=0)
    weights = posterior.sum(axis=1)
    np.testing.assert_allclose(prior.high[1], (1 - step_size) * high + step_size * weights, rtol=1e-12)
    moved = (1 - step_size * weights)[:, None] * low + step_size * posterior
    np.testing.assert_allclose(prior.low[:, 1], moved, rtol=1e-12)
    untouched = skills(2, high="all", low="all")
    np.testing.assert_array_equal(prior.low[:, [0, 2]], untouched.low[:, [0, 2]])


def test_the_policy_over_skills_and_actions_is_that_of_the_mixture():
    prior, obs = skills(3, high="all", low=None), th.tensor([0, 2])
    q_values = th.tensor([[0.0, 1.0, 2.0, 0.5], [1.0, 0.0, 0.0, 3.0]], dtype=th.float64)
    joint = prior.skill_probabilities(obs, soft_policy(q_values, prior(obs), 2.0))
    expected = prior.high[obs].unsqueeze(2) * prior.low[:, 0] * th.exp(2.0 * q_values).unsqueeze(1)
    np.testing.assert_allclose(joint, expected / expected.sum(dim=(1, 2), keepdim=True), rtol=1e-12)


def test_equal_skills_stay_equal():
    prior = skills(3, high="all", low="all")
    prior.low[:] = prior.low[:1].clone()
    for policy in policies(20, 2, 4):
        prior.move(th.tensor([0, 1]), policy, 0.3)
    assert (prior.low - prior.low[:1]).abs().max() < 1e-15 and not np.allclose(prior.low[0, 0], prior.low[0, 2])


@pytest.mark.parametrize("low", [np.full(4, 0.25), np.full((2, 3, 4), 0.25)])
@pytest.mark.parametrize("more", [{}, {"high": [0.9, 0.1]}, {"high": [[0.9, 0.1]] * 3}])
def test_learning_does_not_begin_with_skills_that_nothing_tells_apart(low, more):
    with pytest.raises(ValueError, match="prior_init: low must differ between skills, or high between the values of x_H, bec"):
        skills(2, high="all").start_from({"low": low, **more})
    # One skill has none to differ from
    skills(1).start_from({"low": low[:1] if low.ndim == 3 else low})


def test_equal_skills_that_the_high_level_tells_apart_separate():
    prior = skills(2, high="all", low=None)
    prior.start_from({"low": np.full((2, 1, 4), 0.25), "high": [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]})
    policies = th.tensor([[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]], dtype=th.float64)
    for _ in range(200):
        prior.move(th.tensor([0, 1]), policies, 0.1)
    assert prior.low[0, 0, 0] > 0.8 and prior.low[1, 0, 3] > 0.8


def test_an_action_that_no_skill_has_is_shared_by_the_high_level():
    prior = skills(2, high="all", low=None, n_actions=2)
    prior.low.copy_(th.tensor([1.0, 0.0]))
    prior.start_from({"high": [0.25, 0.75]})
    joint = prior.skill_probabilities(th.tensor([0]), th.tensor([[0.5, 0.5]], dtype=th.float64))
    assert joint[0].tolist() == [[0.125, 0.125], [0.375, 0.375]]


def test_the_draws_follow_the_seed_and_disturb_no_other():
    np.random.seed(5)
    one, other = skills(4, seed=1), skills(4, seed=2)
    assert th.equal(one.low, skills(4, seed=1).low) and not th.equal(one.low, other.low)
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()


def test_four_skills_separate_on_a_map_with_four_rooms():
    world = GridWorld(FOUR_ROOMS)
    transition, reward = toy_text_arrays(world.P)
    n_states = len(reward)
    policy = th.as_tensor(soft_value_iteration(transition, reward, 0.95, prior=np.full(4, 0.25), beta=50.0).policy)
    rows, columns = np.array(world.positions).T
    rooms = th.as_tensor(2 * (rows > 5) + (columns > 5))
    space = spaces.Discrete(n_states)
    room = View("high", lambda obs: rooms[obs], space, n_values=4)
    mixtures = {k: Skills(room, View("low", None, space), k, 4, seed=0) for k in (1, 4)}
    random = np.random.default_rng(0)
    for _ in range(3000):
        states = th.as_tensor(random.integers(n_states, size=4))
        for prior in mixtures.values():
            prior.move(states, policy[states], 0.02)
    every = th.arange(n_states)
    kl = {k: kl_divergence(policy, prior(every)).mean().item() for k, prior in mixtures.items()}
    low = mixtures[4].low[:, 0]
    distances = [(low[i] - low[j]).abs().sum().item() / 2 for i in range(4) for j in range(i)]
    assert kl[4] < 0.9 * kl[1] and max(distances) > 0.5 and np.median(distances) > 0.2


def test_continuous_views_are_refused():
    space = spaces.Box(0, 1, (2,), np.float32)
    with pytest.raises(ValueError, match=r"low must be discrete with prior_type='skills' .*got a continuous view"):
        Skills(View("high", None, space), View("low", "all", space), 2, 3)
