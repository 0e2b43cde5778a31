"""Tabular learners: compared with the equations in each step, with the exact solution in the limit, and with each other."""

import itertools
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, GridWorld
from sb3_mirl.mirl.operators import soft_policy, soft_value, update_prior
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularLearners, TabularRun, TabularSettings
from sb3_mirl.tabular.solvers import evaluate_policy, soft_value_iteration

SLIPPERY = GridWorld(SQUARE, extra_actions=2, slip_probability=0.2)
FROZEN_LAKE = gym.make("FrozenLake-v1", is_slippery=False)
PRIOR_WITH_ZERO = (0.0, 0.2, 0.3, 0.5)
SETTINGS = {
    **TABULAR_ALGORITHMS,
    "mirl, large rates": TabularSettings(prior_lr=0.5, beta_init=0.5, beta_lr=0.1, beta_max=20.0, q_lr=0.7, q_lr_decay=0.0),
    "mirl, tiny beta": TabularSettings(beta_lr=1e-9, prior_lr=0.05),
    "mirl, beta = 0": TabularSettings(beta_lr=0.0, prior_lr=0.05, prior_init=None),
    "mirl, beta = inf": TabularSettings(beta_init=np.inf, prior_lr=0.01),
    "mirl, gamma = 1": TabularSettings(gamma=1.0, exploration=1.0),
    "mirl, gamma = 0": TabularSettings(gamma=0.0, exploration=0.0),
}


def replay(env, settings, seed, n_steps):
    """
    Q and ρ of one learner, computed in each step from the equations with the functions of operators.py.
    """
    outcomes, n_actions = env.unwrapped.P, len(env.unwrapped.P[0])
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0])
    starts = np.cumsum(env.unwrapped.initial_state_distrib)
    state = int(np.argmax(starts > rng.random()))
    uniform = th.full((n_actions,), 1 / n_actions, dtype=th.float64)
    prior = uniform if settings.prior_init is None else th.tensor(settings.prior_init, dtype=th.float64)
    q = np.zeros((len(outcomes), n_actions))
    visits = np.zeros_like(q)
    states = []
    for i in range(n_steps):
        states.append(state)
        beta = min(settings.beta_init + settings.beta_lr * i, settings.beta_max)
        coin, choice, chance, new_start = rng.random(4)
        reference = prior if settings.regularization == "mutual_information" else uniform
        policy = soft_policy(th.from_numpy(q[state]), reference, beta)
        action = int(policy.argmax())
        if coin < settings.exploration:
            action = int(np.argmax(np.cumsum(prior.numpy()) > choice))
        follow = outcomes[state][action]
        k = int(np.argmax(np.cumsum([outcome[0] for outcome in follow]) > chance))
        _, next_state, reward, done = follow[k]
        prior = update_prior(prior, policy, settings.prior_lr)
        reference = prior if settings.regularization == "mutual_information" else uniform
        target = reward + (not done) * settings.gamma * float(soft_value(th.from_numpy(q[next_state]), reference, beta))
        visits[state, action] += 1
        step_size = settings.q_lr * visits[state, action] ** -settings.q_lr_decay
        q[state, action] += step_size * (target - q[state, action])
        state = int(np.argmax(starts > new_start)) if done else next_state
    return q, prior.numpy()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("env", [GridWorld(CORRIDOR), SLIPPERY, FROZEN_LAKE], ids=["corridor", "slippery", "frozen lake"])
def test_every_step_follows_the_equations(env, name):
    learners = TabularLearners([TabularRun(env, SETTINGS[name], seed=3)]).learn(400)
    q, prior = replay(env, SETTINGS[name], 3, 400)
    np.testing.assert_allclose(learners.q_values(0), q, atol=1e-12, rtol=1e-12)
    np.testing.assert_allclose(learners.prior[0], prior, atol=1e-12)


def test_a_prior_with_zeros():
    env, settings = GridWorld(CORRIDOR), TabularSettings(prior_init=PRIOR_WITH_ZERO, exploration=0.5)
    learners = TabularLearners([TabularRun(env, settings, seed=0)]).learn(1000)
    q, prior = replay(env, settings, 0, 1000)
    np.testing.assert_allclose(learners.q_values(0), q, atol=1e-12)
    np.testing.assert_allclose(learners.prior[0], prior, atol=1e-12)
    assert learners.prior[0, 0] == 0.0
    assert (learners.q_values(0)[:, 0] == 0.0).all()  # never tried
    assert (learners.policy(0)[:, 0] == 0.0).all()


def test_runs_are_independent():
    worlds = [GridWorld(CORRIDOR), SLIPPERY, FROZEN_LAKE]
    runs = [TabularRun(env, settings, seed) for env in worlds for settings in SETTINGS.values() for seed in (0, 1)]
    together = TabularLearners(runs).learn(700)
    returns = together.evaluate(5)
    for k in (0, 1, 7, 25, len(runs) - 1):
        alone = TabularLearners([runs[k]]).learn(700)
        np.testing.assert_array_equal(alone.q_values(0), together.q_values(k))
        n_actions = alone.prior.shape[1]
        np.testing.assert_array_equal(alone.prior[0], together.prior[k, :n_actions])
        np.testing.assert_array_equal(alone.evaluate(5)[0], returns[k])


def test_evaluation_between_two_calls_of_learn_changes_nothing():
    runs = [TabularRun(SLIPPERY, TABULAR_ALGORITHMS["mirl"], seed) for seed in range(2)]
    once = TabularLearners(runs).learn(1100)
    twice = TabularLearners(runs).learn(333)
    twice.evaluate(3)
    twice.learn(0).learn(767)
    np.testing.assert_array_equal(once.q_values(1), twice.q_values(1))
    np.testing.assert_array_equal(once.prior, twice.prior)
    np.testing.assert_array_equal(once.beta, twice.beta)


def test_seeds_differ():
    learners = TabularLearners([TabularRun(SLIPPERY, TabularSettings(), seed) for seed in range(2)]).learn(500)
    assert (learners.q_values(0) != learners.q_values(1)).any()


def test_q_converges_to_the_fixed_point_of_fixed_beta_and_prior():
    # Deterministic world, learning rate 1: learning is value iteration, in the order of the visits
    env = GridWorld("SSG\nSSS\nS#S")
    cases = list(itertools.product([0.0, 0.5, 3.0, np.inf], [None, (0.1, 0.2, 0.3, 0.4)]))
    fixed = TabularSettings(beta_lr=0.0, prior_lr=0.0, exploration=1.0, q_lr_decay=0.0, gamma=0.9)
    runs = [TabularRun(env, replace(fixed, beta_init=beta, prior_init=prior), seed=0) for beta, prior in cases]
    learners = TabularLearners(runs).learn(10_000)
    for run, (beta, prior) in enumerate(cases):
        reference = np.full(4, 0.25) if prior is None else np.array(prior)
        exact = soft_value_iteration(env.transition, env.reward, 0.9, beta, reference)
        np.testing.assert_allclose(learners.q_values(run)[~env.is_goal], exact.q[~env.is_goal], atol=1e-9)
        if beta < np.inf:  # where rounding decides which of two equal actions is the best
            np.testing.assert_allclose(learners.policy(run)[~env.is_goal], exact.policy[~env.is_goal], atol=1e-9)


def test_q_approaches_the_fixed_point_of_a_slippery_world():
    env = GridWorld("SSG\nSSS", slip_probability=0.3)
    fixed = TabularSettings(beta_init=2.0, beta_lr=0.0, prior_lr=0.0, exploration=1.0, gamma=0.9)
    learners = TabularLearners([TabularRun(env, fixed, seed) for seed in range(20)]).learn(20_000)
    exact = soft_value_iteration(env.transition, env.reward, 0.9, 2.0, np.full(4, 0.25)).q[~env.is_goal]
    errors = np.array([learners.q_values(run)[~env.is_goal] - exact for run in range(20)])
    standard_error = errors.std(axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(errors.mean(axis=0)) < 5 * standard_error + 0.02).all()
    assert np.abs(errors).mean() < 0.2  # Q itself ranges from 1 to 9


def test_the_prior_concentrates_on_the_only_useful_action():
    learners = TabularLearners([TabularRun(GridWorld(CORRIDOR), TABULAR_ALGORITHMS["mirl"], seed=0)]).learn(30_000)
    assert learners.prior[0].argmax() == 1
    assert learners.prior[0, 1] > 0.95
    assert learners.prior[0].sum() == pytest.approx(1.0, abs=1e-12)


def test_the_four_systems_differ_in_prior_and_beta():
    names = list(TABULAR_ALGORITHMS)
    learners = TabularLearners([TabularRun(SLIPPERY, TABULAR_ALGORITHMS[name], seed=0) for name in names]).learn(2000)
    prior = dict(zip(names, learners.prior, strict=True))
    assert (prior["ql"] == 1 / 6).all()
    assert (prior["sql"] == 1 / 6).all()
    assert (prior["sql_m"] != 1 / 6).any()
    assert (prior["mirl"] != 1 / 6).any()
    assert learners.beta.tolist() == [np.inf, 2.0, 2.0, 2.0]


def test_evaluation_of_a_known_policy():
    # In this corridor a learner that has found the way makes 10 minus its distance from the goal
    env = GridWorld("S..G")
    learners = TabularLearners([TabularRun(env, TABULAR_ALGORITHMS["ql"], seed=0)]).learn(3000)
    assert (learners.evaluate(50, exploration=0.0) == 7.0).all()
    assert (learners.evaluate(50, max_steps=2, exploration=0.0) == -2.0).all()
    # An untrained one goes up for ever
    assert (TabularLearners(learners.runs).evaluate(4, exploration=0.0) == -100.0).all()
    explored = learners.evaluate(4000, exploration=1.0, max_steps=1000)
    assert explored.shape == (1, 4000)
    # Uniform steps, of which half stay: the mean return solves v = r + P v
    uniform_transition = env.transition.mean(axis=1)[:3, :3]
    expected = np.linalg.solve(np.eye(3) - uniform_transition, env.reward.mean(axis=1)[:3])[0]
    assert explored.mean() == pytest.approx(expected, abs=5 * explored.std() / np.sqrt(4000))


def test_evaluation_explores_with_the_prior():
    env, prior = GridWorld("S..G"), np.array([0.1, 0.2, 0.3, 0.4])
    fixed = TabularSettings(prior_lr=0.0, prior_init=tuple(prior), beta_init=50.0)
    runs = [TabularRun(env, replace(fixed, regularization=kind), seed=0) for kind in ("mutual_information", "entropy")]
    behaviour = 0.5 * np.eye(4)[[1, 1, 1, 0]] + 0.5 * prior  # right, but with probability 0.5 a draw from ρ
    expected = evaluate_policy(env.transition, env.reward, 1.0, behaviour)[1][0]
    for returns in TabularLearners(runs).learn(3000).evaluate(10_000, max_steps=300, exploration=0.5):
        assert returns.mean() == pytest.approx(expected, abs=5 * returns.std() / np.sqrt(10_000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regularization": "kl"}, "regularization must be 'mutual_information' or 'entropy', got 'kl'"),
        ({"prior_lr": 1.5}, r"prior_lr must lie in \[0, 1\], got 1.5"),
        ({"gamma": -0.1}, r"gamma must lie in \[0, 1\], got -0.1"),
        ({"gamma": float("nan")}, "gamma"),
        ({"exploration": 2}, r"exploration must lie in \[0, 1\], got 2"),
        ({"beta_init": -1.0}, r"beta_init must lie in \[0, 1e100\] or be ∞, got -1.0"),
        ({"beta_lr": np.inf}, r"beta_lr must lie in \[0, 1e100\], got inf"),
        ({"q_lr_decay": -1.0}, r"q_lr_decay must lie in \[0, 1e100\], got -1.0"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TabularSettings(), **change)


def test_invalid_arguments_are_refused():
    run = TabularRun(GridWorld(CORRIDOR), TabularSettings(), 0)
    with pytest.raises(ValueError, match="at least one run"):
        TabularLearners([])
    with pytest.raises(ValueError, match=r"prior_init must have the shape \(4,\), got \(2,\)"):
        TabularLearners([run._replace(settings=TabularSettings(prior_init=(0.5, 0.5)))])
    with pytest.raises(ValueError, match="n_steps must not be negative, got -1"):
        TabularLearners([run]).learn(-1)
    with pytest.raises(ValueError, match="n_episodes and max_steps must be at least 1, got 0"):
        TabularLearners([run]).evaluate(0)
    with pytest.raises(ValueError, match=r"exploration must lie in \[0, 1\], got -1"):
        TabularLearners([run]).evaluate(exploration=-1)
