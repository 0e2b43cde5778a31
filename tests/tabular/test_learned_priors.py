"""Tabular learners whose prior sees groups, masks or skills: against the equations, exact solutions, and the simple case."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from four_goals import FourGoals
from random_mdp import RandomMdp, log_mean_exp

from sb3_mirl.envs.gridworld import CORRIDOR, SQUARE, GridWorld
from sb3_mirl.tabular.learned_priors import first_low_level
from sb3_mirl.tabular.learners import TABULAR_ALGORITHMS, TabularLearners, TabularRun, TabularSettings
from sb3_mirl.tabular.solvers import soft_value_iteration


class World:
    """The environment of an MDP: ``P`` and ``initial_state_distrib``; with masks of valid actions."""

    def __init__(self, transition, reward, initial, seed):
        self.unwrapped, self.transition, self.reward, self.initial_state_distrib = self, transition, reward, initial
        ends = 1.0 - transition.sum(axis=2)
        self.P = {
            s: {
                a: [(p, t, reward[s, a], False) for t, p in enumerate(transition[s, a]) if p > 0.0]
                + [(ends[s, a], s, reward[s, a], True)] * int(ends[s, a] > 1e-12)
                for a in range(reward.shape[1])
            }
            for s in range(len(reward))
        }
        rng = np.random.default_rng(seed)
        self.masks = rng.random(reward.shape) < 0.6
        self.masks[np.arange(len(reward)), rng.integers(0, reward.shape[1], len(reward))] = True
        self.groups, self.other_groups = rng.integers(0, 3, len(reward)), rng.integers(0, 2, len(reward))

    @classmethod
    def random(cls, seed, n_states=6, n_actions=4):
        mdp = RandomMdp(seed, n_states, n_actions, ends=True)
        return cls(mdp.transition, mdp.reward, mdp.initial, seed)

    @classmethod
    def deterministic(cls, seed, n_states=6, n_actions=4):
        """Each action leads to one state, or to the end; episodes may start anywhere."""
        rng = np.random.default_rng(seed)
        transition = np.eye(n_states)[rng.integers(0, n_states, (n_states, n_actions))]
        transition *= rng.random((n_states, n_actions, 1)) < 0.7
        return cls(transition, rng.normal(size=(n_states, n_actions)), np.full(n_states, 1 / n_states), seed)


WORLD = World.random(0)
GROUPS = {"prior_groups": WORLD.groups}
MASKS = {"action_masks": WORLD.masks}
LEVELS = {"prior_groups": WORLD.groups, "high_groups": WORLD.other_groups}
FAST = TabularSettings(prior_lr=0.05, beta_init=0.5, beta_lr=1e-2, beta_max=5.0, gamma=0.9, exploration=0.3)
CASES = {
    "groups": (FAST, GROUPS),
    "groups, SQL_m": (replace(FAST, regularization="entropy"), GROUPS),
    "groups, beta = inf": (replace(FAST, beta_init=np.inf, beta_max=np.inf), GROUPS),
    "groups, small beta": (replace(FAST, beta_init=0.0, beta_lr=1e-5), GROUPS),
    "masks": (FAST, MASKS),
    "masks, SQL_m": (replace(FAST, regularization="entropy"), MASKS),
    "masks, a prior without mass on some valid actions": (
        replace(FAST, prior_init=(0.5, 0.5, 0.0, 0.0)),
        {"action_masks": [[False, False, True, True]] + [[True] * 4] * 5},
    ),
    "masks and groups": (FAST, {**GROUPS, **MASKS}),
    "skills": (replace(FAST, n_skills=3), LEVELS),
    "skills of two step sizes": (replace(FAST, n_skills=2, high_lr=0.3), LEVELS),
    "skills and masks": (replace(FAST, n_skills=3), {**LEVELS, **MASKS}),
    "skills and masks, beta = inf": (replace(FAST, n_skills=3, beta_init=np.inf, beta_max=np.inf), {**LEVELS, **MASKS}),
}


def first_levels(run):
    """ρ(z|x_H) and ρ(a|z,x_L) with which a run begins."""
    learners = TabularLearners([run])
    return learners.skills(0) if run.settings.n_skills > 1 else (np.ones((9, 1)), learners.prior_table(0)[None])


def replay(run, n_steps):
    """Q and both levels of ρ of one run after ``n_steps``, in each step from the equations, in plain NumPy."""
    settings, outcomes = run.settings, run.env.P
    high, low = first_levels(run)
    n_states, n_actions = len(outcomes), len(outcomes[0])
    none = np.zeros(n_states, dtype=int)
    x_low = none if run.prior_groups is None else run.prior_groups
    x_high = none if run.high_groups is None else run.high_groups
    masks = np.ones((n_states, n_actions)) if run.action_masks is None else np.asarray(run.action_masks, dtype=float)
    rng = np.random.default_rng(np.random.SeedSequence(run.seed).spawn(2)[0])
    starts = np.cumsum(run.env.initial_state_distrib)
    q, visits = np.zeros((n_states, n_actions)), np.zeros((n_states, n_actions))

    def prior_in(state):
        weights = (high[x_high[state]] @ low[:, x_low[state]]) * masks[state]
        weights = weights if weights.sum() > 0 else masks[state]
        return weights / weights.sum()

    def reference_in(state):
        return prior_in(state) if settings.regularization == "mutual_information" else masks[state] / masks[state].sum()

    state = int(np.argmax(starts > rng.random()))
    for i in range(n_steps):
        beta = min(settings.beta_init + settings.beta_lr * i, settings.beta_max)
        coin, choice, chance, new_start = rng.random(4)
        prior, reference = prior_in(state), reference_in(state)
        best = q[state][reference > 0].max()
        with np.errstate(over="ignore", invalid="ignore"):
            weights = reference * (q[state] == best if beta == np.inf else np.exp(beta * (q[state] - best)))
        policy = weights / weights.sum()
        action = int(policy.argmax())
        if coin < settings.exploration:
            action = int(np.argmax(np.cumsum(prior) > choice))
        follow = outcomes[state][action]
        k = int(np.argmax(np.cumsum([outcome[0] for outcome in follow]) > chance))
        _, next_state, reward, done = follow[k]
        # π(z,a|s): the posterior of the skill, and both averages
        own_high, own_low = high[x_high[state]].copy(), low[:, x_low[state]].copy()
        mixture = own_high @ own_low
        joint = np.zeros(own_low.shape)
        for a in range(n_actions):
            joint[:, a] = policy[a] * (own_high * own_low[:, a] / mixture[a] if mixture[a] > 0 else own_high)
        high_lr = settings.prior_lr if settings.high_lr is None else settings.high_lr
        high[x_high[state]] += high_lr * (joint.sum(axis=1) - own_high)
        low[:, x_low[state]] += settings.prior_lr * (joint - joint.sum(axis=1, keepdims=True) * own_low)
        reference = reference_in(next_state)
        if beta == np.inf:
            value = q[next_state][reference > 0].max()
        else:
            value = log_mean_exp(q[next_state], reference, beta) if beta > 0 else reference @ q[next_state]
        target = reward + (not done) * settings.gamma * value
        visits[state, action] += 1
        q[state, action] += settings.q_lr * visits[state, action] ** -settings.q_lr_decay * (target - q[state, action])
        state = int(np.argmax(starts > new_start)) if done else next_state
    return q, high, low


@pytest.mark.parametrize("name", CASES)
def test_every_step_follows_the_equations(name):
    settings, options = CASES[name]
    run = TabularRun(WORLD, settings, seed=4, **options)
    learners = TabularLearners([run]).learn(600)
    q, high, low = replay(run, 600)
    np.testing.assert_allclose(learners.q_values(0), q, atol=1e-9)
    if settings.n_skills > 1:
        np.testing.assert_allclose(learners.skills(0)[0], high, atol=1e-10)
        np.testing.assert_allclose(learners.skills(0)[1], low, atol=1e-10)
        assert (learners.skills(0)[0] != first_levels(run)[0]).any()
    else:
        np.testing.assert_allclose(learners.prior_table(0), low[0], atol=1e-10)
    np.testing.assert_allclose(learners.prior_probabilities(0).sum(axis=1), 1.0, atol=1e-12)
    masks = options.get("action_masks", np.ones(WORLD.reward.shape))
    assert (learners.policy(0)[~np.asarray(masks, dtype=bool)] == 0.0).all()


def test_one_group_equals_no_groups_bit_for_bit():
    for settings in TABULAR_ALGORITHMS.values():
        runs = [TabularRun(GridWorld(SQUARE), settings, 0, prior_groups=groups) for groups in (None, np.zeros(31, dtype=int))]
        alone = [TabularLearners([run]).learn(700) for run in runs]
        np.testing.assert_array_equal(alone[0].q_values(0), alone[1].q_values(0))
        np.testing.assert_array_equal(alone[0].prior, alone[1].prior)


def test_the_general_case_equals_the_simple_one():
    # A run with masks, beside it, makes the other runs general, with one skill and all actions valid
    lake = gym.make("FrozenLake-v1", is_slippery=True)
    square = GridWorld(SQUARE, extra_actions=1)
    runs = [TabularRun(square, settings, 0) for settings in TABULAR_ALGORITHMS.values()]
    runs += [
        TabularRun(WORLD, FAST, 1, **GROUPS),
        TabularRun(lake, replace(FAST, prior_init=(0.0, 0.5, 0.2, 0.3), beta_init=np.inf), 2),
    ]
    simple = TabularLearners(runs).learn(800)
    general = TabularLearners([*runs, TabularRun(WORLD, replace(FAST, n_skills=3), 0, **LEVELS, **MASKS)]).learn(800)
    for run in range(len(runs)):
        np.testing.assert_allclose(general.q_values(run), simple.q_values(run), atol=1e-9)
        np.testing.assert_allclose(general.policy(run), simple.policy(run), atol=1e-9)
        np.testing.assert_allclose(general.prior_table(run), simple.prior_table(run), atol=1e-12)
    np.testing.assert_allclose(general.evaluate(20)[: len(runs)], simple.evaluate(20), atol=1e-12)


def test_runs_with_groups_and_skills_are_independent():
    runs = [TabularRun(WORLD, settings, seed, **options) for seed, (settings, options) in enumerate(CASES.values())]
    runs += [TabularRun(World.random(1, 4, 3), replace(FAST, n_skills=2), 7)]
    together = TabularLearners(runs).learn(300)
    returns = together.evaluate(5)
    for k in (8, 10, len(runs) - 1):
        alone = TabularLearners([runs[k]]).learn(300)
        np.testing.assert_allclose(alone.q_values(0), together.q_values(k), atol=1e-12)
        for one, other in zip(alone.skills(0), together.skills(k), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        np.testing.assert_allclose(alone.evaluate(5)[0], returns[k], atol=1e-9)


# Limits


@pytest.mark.parametrize("beta", [0.5, 3.0, np.inf])
def test_masked_learners_converge_to_masked_soft_value_iteration(beta):
    # Deterministic worlds, learning rate 1: learning is value iteration, in the order of the visits
    settings = TabularSettings(
        beta_init=beta, beta_lr=0.0, prior_lr=0.0, prior_init=(0.1, 0.2, 0.3, 0.4), exploration=1.0, q_lr_decay=0.0, gamma=0.8
    )
    worlds = [World.deterministic(seed) for seed in range(6)]
    runs = [TabularRun(world, settings, seed, action_masks=world.masks) for seed, world in enumerate(worlds)]
    learners = TabularLearners(runs).learn(4000)
    for k, world in enumerate(worlds):
        exact = soft_value_iteration(world.transition, world.reward, 0.8, beta, settings.prior_init, action_masks=world.masks)
        np.testing.assert_allclose(learners.q_values(k)[world.masks], exact.q[world.masks], atol=1e-9)
        np.testing.assert_allclose(learners.policy(k), exact.policy, atol=1e-8)
        assert (learners.q_values(k)[~world.masks] == 0.0).all()  # never tried


@pytest.mark.slow
def test_masked_learners_approach_the_fixed_point_of_random_mdps():
    settings = TabularSettings(beta_init=2.0, beta_lr=0.0, prior_lr=0.0, exploration=1.0, gamma=0.8)
    worlds = [World.random(seed) for seed in range(3)]
    runs = [TabularRun(world, settings, seed, action_masks=world.masks) for world in worlds for seed in range(20)]
    learners = TabularLearners(runs).learn(8000)
    for k, world in enumerate(worlds):
        exact = soft_value_iteration(world.transition, world.reward, 0.8, 2.0, np.full(4, 0.25), action_masks=world.masks).q[
            world.masks
        ]
        errors = np.array([learners.q_values(20 * k + seed)[world.masks] - exact for seed in range(20)])
        assert (np.abs(errors.mean(axis=0)) < 5 * errors.std(axis=0, ddof=1) / np.sqrt(20) + 0.02).all()


def test_one_group_for_each_state_learns_the_optimum_of_q_learning():
    env = GridWorld("SSG\nSSS\nS#S")
    settings = TabularSettings(beta_init=2.0, beta_lr=0.0, prior_lr=2e-2, exploration=0.3, q_lr_decay=0.0, gamma=0.9)
    runs = [TabularRun(env, settings, seed, prior_groups=np.arange(8)) for seed in range(3)]
    learners = TabularLearners([*runs, TabularRun(env, settings, 0)]).learn(15_000)
    hard = soft_value_iteration(env.transition, env.reward, 0.9, np.inf, np.full(4, 0.25)).v
    for run in range(3):
        np.testing.assert_allclose(learners.q_values(run).max(axis=1), hard, atol=0.02)
        np.testing.assert_allclose(learners.policy(run), learners.prior_probabilities(run), atol=0.05)
    # The marginal prior pays for information
    assert (learners.q_values(3).max(axis=1) < hard - 0.3).any()


def test_actions_that_are_not_valid_are_never_taken():
    # An action that is not valid costs 1000
    world = World.random(3)
    world = World(world.transition, np.where(world.masks, 0.0, -1000.0), world.initial_state_distrib, 3)
    algorithms = [*TABULAR_ALGORITHMS.values(), replace(FAST, n_skills=2)]
    runs = [TabularRun(world, replace(settings, exploration=0.5), 0, action_masks=world.masks) for settings in algorithms]
    learners = TabularLearners(runs).learn(2000)
    assert (learners.evaluate(50, exploration=1.0) == 0.0).all()
    for run in range(len(runs)):
        np.testing.assert_allclose(learners.q_values(run), 0.0, atol=1e-9)
    assert (TabularLearners([run._replace(action_masks=None) for run in runs]).evaluate(50, exploration=1.0) < 0.0).any()


# Learned and frozen priors


@pytest.mark.slow
def test_learned_skills_separate_on_a_map_with_four_rooms():
    world = FourGoals()
    settings = TabularSettings(
        n_skills=4, beta_init=3.0, beta_lr=0.0, prior_lr=3e-2, high_lr=1e-2, exploration=0.3, q_lr_decay=0.0, gamma=0.95
    )
    equal = replace(settings, prior_init=np.full((4, world.position.max() + 1, 4), 0.25))
    groups = {"prior_groups": world.position, "high_groups": world.goal}
    runs = [TabularRun(world, settings, seed, **groups) for seed in range(6)]
    learners = TabularLearners([*runs, TabularRun(world, equal, 0, **groups)]).learn(15_000)
    levels = [learners.skills(run) for run in range(7)]
    # Goals that share a skill are a local optimum: in half of the runs two of them do
    n_used = [len(set(high.argmax(axis=1))) for high, _ in levels[:6]]
    assert min(n_used) >= 3
    assert n_used.count(4) >= 2
    # Equal skills never separate
    high, low = levels[6]
    np.testing.assert_allclose(high, 0.25, atol=1e-9)
    np.testing.assert_allclose(low, np.broadcast_to(low[:1], low.shape), atol=1e-9)


def test_a_frozen_prior_does_not_move():
    table = np.random.default_rng(0).dirichlet(np.ones(4), 5)  # two more groups than the world has
    learners = TabularLearners([TabularRun(WORLD, replace(FAST, prior_lr=0.0, prior_init=table), 0, **GROUPS)]).learn(500)
    np.testing.assert_allclose(learners.prior_table(0), table, rtol=1e-15)
    np.testing.assert_allclose(learners.prior_probabilities(0), table[WORLD.groups], rtol=1e-15)


def test_a_frozen_low_level_lets_the_high_level_learn():
    skills = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3))
    settings = replace(FAST, n_skills=2, prior_init=skills, prior_lr=0.0, high_lr=0.05)
    high, low = TabularLearners([TabularRun(WORLD, settings, 0, **LEVELS)]).learn(500).skills(0)
    np.testing.assert_allclose(low, skills, rtol=1e-15)
    assert (np.abs(high - 0.5) > 0.05).any()
    np.testing.assert_allclose(high.sum(axis=1), 1.0)


def test_drawn_skills_depend_on_the_seed_only():
    runs = [TabularRun(WORLD, replace(FAST, n_skills=2), seed, **LEVELS) for seed in (0, 0, 1)]
    learners = TabularLearners(runs)
    np.testing.assert_array_equal(learners.skills(0)[1], learners.skills(1)[1])
    assert (learners.skills(0)[1] != learners.skills(2)[1]).all()
    np.testing.assert_array_equal(learners.skills(0)[0], np.full((2, 2), 0.5))


def test_prior_of_runs_with_masks_is_the_marginal():
    settings = replace(FAST, prior_init=(0.1, 0.2, 0.3, 0.4), prior_lr=0.0)
    learners = TabularLearners([TabularRun(WORLD, settings, 0, **MASKS), TabularRun(World.random(0, 3, 2), FAST, 0)])
    np.testing.assert_allclose(learners.prior, [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.0, 0.0]])
    weights = np.array(settings.prior_init) * WORLD.masks
    np.testing.assert_allclose(learners.prior_probabilities(0), weights / weights.sum(axis=1, keepdims=True))


def test_the_last_run_is_minus_one():
    plain, skills = (TabularRun(WORLD, replace(FAST, n_skills=skills), 0, **GROUPS) for skills in (1, 2))
    learners = TabularLearners([skills, plain])
    np.testing.assert_array_equal(learners.prior_table(-1), np.full((3, 4), 0.25))
    learners = TabularLearners([plain, skills])
    for last, same in zip(learners.skills(-1), learners.skills(1), strict=True):
        assert len(last)
        np.testing.assert_array_equal(last, same)
    with pytest.raises(IndexError):
        learners.prior_table(2)


# Bad input


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"prior_init": (0.5, 0.5)}, {}, r"prior_init must have the shape \(4,\), got \(2,\)"),
        ({"prior_init": (0.25,) * 4}, GROUPS, r"prior_init must have the shape \(3, 4\), got \(4,\)"),
        ({"prior_init": np.full((2, 4), 0.25)}, GROUPS, r"prior_init must have the shape \(3, 4\), got \(2, 4\)"),
        ({"prior_init": np.full((3, 4), 0.25), "n_skills": 2}, GROUPS, r"\(2, 3, 4\), got \(3, 4\)"),
        ({"prior_init": np.full((2, 3, 4), 0.5), "n_skills": 2}, GROUPS, "prior_init must not be negative and sum to 1"),
        ({}, {"prior_groups": [0, 1]}, r"prior_groups must have the shape \(6,\)"),
        ({}, {"high_groups": [0.5] * 6}, "high_groups must be whole numbers from 0, got float64"),
        ({}, {"action_masks": np.ones((6, 3))}, r"action_masks must have the shape \[S, A\] = \(6, 4\)"),
        ({}, {"action_masks": np.zeros((6, 4))}, "action_masks: state 0 has no valid action"),
    ],
)
def test_priors_that_do_not_fit_the_world_are_refused(change, options, message):
    with pytest.raises(ValueError, match=message):
        TabularLearners([TabularRun(WORLD, replace(FAST, **change), 0, **options)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_skills": 0}, "n_skills must be a whole number from 1, got 0"),
        ({"high_lr": 1.5}, r"high_lr must lie in \[0, 1\], got 1.5"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TabularSettings(**change)


def test_the_wrong_accessor_names_the_right_one():
    corridor = TabularRun(GridWorld(CORRIDOR), FAST, 0)
    plain = TabularLearners([corridor, TabularRun(WORLD, FAST, 0, **GROUPS)])
    skills = TabularLearners([corridor, TabularRun(WORLD, replace(FAST, n_skills=2), 0)])
    with pytest.raises(ValueError, match="run 1 has 1 skills and 3 groups; take prior_table"):
        _ = plain.prior
    with pytest.raises(ValueError, match="run 1 has 2 skills and 1 groups"):
        _ = skills.prior
    with pytest.raises(ValueError, match=r"run 1 has 2 skills; take skills\(run\)"):
        skills.prior_table(1)
    for learners in (plain, skills):
        with pytest.raises(ValueError, match=r"run 0 has n_skills=1; take prior_table\(run\)"):
            learners.skills(0)


def test_the_first_low_level_of_one_skill_is_uniform():
    low = first_low_level(None, [0, 1, 1], 1, (3, 5), np.random.default_rng(0))
    assert (low == np.full((1, 2, 5), 1 / 5)).all()
