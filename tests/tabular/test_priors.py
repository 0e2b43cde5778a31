"""Priors that see groups of states, masks and skills, on random MDPs. Expected values are written here from their formulas."""

import itertools

import numpy as np
import pytest
from four_goals import FourGoals
from hypothesis import given, settings
from hypothesis import strategies as st
from random_mdp import RandomMdp, kl, log_mean_exp

from sb3_mirl.envs.gridworld import SQUARE, GridWorld
from sb3_mirl.tabular.priors import GroupPrior, SkillPrior, check_groups, draw_skills, weights_in_groups
from sb3_mirl.tabular.solvers import (
    discounted_visitation,
    evaluate_policy,
    mutual_information,
    optimize_prior,
    optimize_skills,
    soft_value_iteration,
)

GAMMAS = st.sampled_from([0.0, 0.5, 0.9])
BETAS = st.sampled_from([0.3, 1.0, 3.0, 30.0])
QUICK = settings(max_examples=20, deadline=None)
SEEDS = pytest.mark.parametrize("seed", range(6))


class GroupedMdp(RandomMdp):
    """A random MDP with two kinds of groups and masks of valid actions."""

    def __init__(self, seed, n_states, n_actions, ends):
        super().__init__(seed, n_states, n_actions, ends)
        self.shape = (n_states, n_actions)
        self.groups = self.rng.integers(0, 3, n_states)
        self.other_groups = self.rng.integers(0, 2, n_states)
        self.masks = self.rng.random(self.shape) < 0.6
        self.masks[np.arange(n_states), self.rng.integers(0, n_actions, n_states)] = True
        self.policy = self.rng.dirichlet(np.ones(n_actions), n_states)

    def objective(self, gamma, beta, prior, masks=None):
        """Σ ν₀ V for ρ [A] or [S, A]."""
        solution = soft_value_iteration(self.transition, self.reward, gamma, beta, prior, action_masks=masks)
        return float(self.initial @ solution.v)

    def slopes(self, gamma, beta, prior, masks):
        """
        Derivatives of the objective, for ρ [G, A], when the prior of one group moves towards one action, [G, A]; by
        differences of second order.
        """
        slopes = np.zeros(prior.shape)
        for group, action in np.ndindex(prior.shape):
            values = []
            for step in (0.0, 1e-4, 2e-4):
                moved = prior.copy()
                moved[group] += step * (np.eye(prior.shape[1])[action] - moved[group])
                values.append(self.objective(gamma, beta, moved[self.groups], masks))
            slopes[group, action] = (-3 * values[0] + 4 * values[1] - values[2]) / 2e-4
        return slopes

    def optimize(self, gamma, beta, **options):
        return optimize_prior(self.transition, self.reward, gamma, beta, self.initial, **options)

    def optimize_skills(self, gamma, beta, n_skills, **options):
        return optimize_skills(self.transition, self.reward, gamma, beta, self.initial, n_skills, **options)


MDPS = st.builds(GroupedMdp, st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.booleans())


def masked(prior, masks):
    """ρ(a|s) ∝ ρ(a) · mask(s), for ρ > 0."""
    weights = prior * masks
    return weights / weights.sum(axis=1, keepdims=True)


# A prior for each state, and masks, in the solvers


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_soft_value_iteration_with_a_prior_for_each_state(mdp, gamma, beta):
    prior = mdp.policy
    solution = soft_value_iteration(mdp.transition, mdp.reward, gamma, beta, prior)
    np.testing.assert_allclose(solution.q, mdp.reward + gamma * mdp.transition @ solution.v, atol=1e-9)
    np.testing.assert_allclose(solution.v, log_mean_exp(solution.q, prior, beta), atol=1e-9)
    value = evaluate_policy(mdp.transition, mdp.reward, gamma, solution.policy, beta, prior)[1]
    np.testing.assert_allclose(value, solution.v, atol=1e-8)


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_masks_restrict_the_prior_to_the_valid_actions(mdp, gamma, beta):
    solution = soft_value_iteration(mdp.transition, mdp.reward, gamma, beta, mdp.prior, action_masks=mdp.masks)
    by_hand = soft_value_iteration(mdp.transition, mdp.reward, gamma, beta, masked(mdp.prior, mdp.masks))
    np.testing.assert_allclose(solution.v, by_hand.v, atol=1e-9)
    assert (solution.policy[~mdp.masks] == 0.0).all()
    value = evaluate_policy(
        mdp.transition, mdp.reward, gamma, solution.policy, beta, mdp.prior, action_masks=mdp.masks.astype(int)
    )[1]
    np.testing.assert_allclose(value, solution.v, atol=1e-8)


@QUICK
@given(MDPS, GAMMAS)
def test_infinite_beta_with_masks_is_value_iteration_over_the_valid_actions(mdp, gamma):
    v = np.zeros(len(mdp.reward))
    for _ in range(400):  # 0.9⁴⁰⁰ is 5e-19
        v = np.where(mdp.masks, mdp.reward + gamma * mdp.transition @ v, -np.inf).max(axis=1)
    solution = soft_value_iteration(mdp.transition, mdp.reward, gamma, np.inf, mdp.prior, action_masks=mdp.masks)
    np.testing.assert_allclose(solution.v, v, atol=1e-9)


def test_a_prior_without_mass_on_the_valid_actions_counts_as_uniform():
    masks = [[True, True, False], [False, True, True]]
    transition, reward = np.full((2, 3, 2), 0.5), np.arange(6.0).reshape(2, 3)
    solution = soft_value_iteration(transition, reward, 0.9, 0.5, [1.0, 0.0, 0.0], action_masks=masks)
    by_hand = soft_value_iteration(transition, reward, 0.9, 0.5, [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    np.testing.assert_allclose(solution.v, by_hand.v, atol=1e-12)


# Groups


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_one_group_is_the_marginal_prior(mdp, gamma, beta):
    marginal = mdp.optimize(gamma, beta, max_iterations=10)
    grouped = mdp.optimize(gamma, beta, max_iterations=10, prior_groups=np.zeros(mdp.shape[0], dtype=int))
    assert grouped.prior.shape == (1, mdp.shape[1])
    np.testing.assert_array_equal(grouped.prior[0], marginal.prior)
    for one, other in zip(grouped[1:], marginal[1:], strict=True):
        np.testing.assert_array_equal(one, other)


@QUICK
@given(MDPS, GAMMAS)
def test_one_group_for_each_state_gives_no_penalty_and_the_optimum_of_q_learning(mdp, gamma):
    beta, tolerance = 20.0, 1e-4
    best = mdp.optimize(gamma, beta, tolerance=tolerance, max_iterations=5000, prior_groups=np.arange(mdp.shape[0]))
    hard = mdp.objective(gamma, np.inf, mdp.prior)
    assert best.converged
    # No action is better than π by more than log(1 + tolerance)/β in a visited state
    assert hard - tolerance / (beta * (1 - gamma)) - 1e-9 <= best.objective[-1] <= hard + 1e-9
    visits = discounted_visitation(mdp.transition, gamma, best.policy, mdp.initial)
    assert visits @ kl(best.policy, best.prior) <= 1e-4
    assert mutual_information(best.policy, visits, prior_groups=np.arange(mdp.shape[0])) == 0.0


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_the_best_prior_of_a_group_is_the_average_policy(mdp, gamma, beta):
    visits = discounted_visitation(mdp.transition, gamma, mdp.policy, mdp.initial)
    first = GroupPrior.from_arrays(None, mdp.groups, None, mdp.shape)
    best, _ = first.improve(visits, mdp.policy)
    for group in np.unique(mdp.groups):
        inside = mdp.groups == group
        average = (visits[inside, None] * mdp.policy[inside]).sum(axis=0) / visits[inside].sum()
        np.testing.assert_allclose(best.table[group], average, atol=1e-12)

    def value(table):
        return mdp.initial @ evaluate_policy(mdp.transition, mdp.reward, gamma, mdp.policy, beta, table[mdp.groups])[1]

    for _ in range(3):
        other = 0.9 * best.table + 0.1 * mdp.rng.dirichlet(np.ones(mdp.shape[1]), len(best.table))
        assert value(other) <= value(best.table) + 1e-9


@SEEDS
@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_value_of_the_fixed_point_is_reward_minus_conditional_information(seed, gamma):
    mdp, beta = GroupedMdp(seed, 5, 4, False), 2.0
    best = mdp.optimize(gamma, beta, tolerance=1e-7, prior_groups=mdp.groups)
    visits = discounted_visitation(mdp.transition, gamma, best.policy, mdp.initial)
    information = mutual_information(best.policy, visits, prior_groups=mdp.groups)
    value = visits @ (best.policy * mdp.reward).sum(axis=1) - information / beta
    assert best.converged
    assert (1 - gamma) * best.objective[-1] == pytest.approx(value, abs=1e-6)
    assert information <= mutual_information(best.policy, visits) + 1e-12


def test_a_group_that_is_not_visited_keeps_its_prior():
    # From state 0 the other states cannot be reached; group 3 has no state
    transition = np.zeros((3, 2, 3))
    transition[[0, 1, 2], :, [0, 0, 2]] = 1.0
    first = np.array([[0.3, 0.7], [0.4, 0.6], [0.1, 0.9], [0.9, 0.1]])
    for masks in (None, np.ones((3, 2), dtype=bool)):
        best = optimize_prior(transition, [[1, 0]] * 3, 0.9, 5.0, [1, 0, 0], first, prior_groups=[0, 1, 2], action_masks=masks)
        assert best.converged
        np.testing.assert_allclose(best.prior[0], [1.0, 0.0], atol=1e-6)
        np.testing.assert_array_equal(best.prior[1:], first[1:])
    levels = first[None, :3] * [[[1.0]], [[1.0]]]
    best = optimize_skills(
        transition, [[1, 0]] * 3, 0.9, 5.0, [1, 0, 0], 2, [0, 1, 1], [0, 1, 2], [[0.2, 0.8], [0.5, 0.5]], levels
    )
    np.testing.assert_array_equal(best.high[1], [0.5, 0.5])
    np.testing.assert_array_equal(best.low[:, 1:], levels[:, 1:])


def test_conditional_mutual_information_by_hand():
    policy, visits = np.array([[1, 0], [0.5, 0.5], [0, 1]]), np.array([0.25, 0.25, 0.5])
    # In group 0: ρ = (3/4, 1/4); in group 1 there is one state
    expected = 0.25 * np.log(4 / 3) + 0.25 * (0.5 * np.log(2 / 3) + 0.5 * np.log(2))
    assert mutual_information(policy, visits, prior_groups=[0, 0, 1]) == pytest.approx(expected)
    assert mutual_information(policy, visits, prior_groups=[0, 0, 0]) == mutual_information(policy, visits)


# Masks


def test_masks_that_allow_everything_change_nothing():
    mdp = GroupedMdp(0, 5, 3, False)
    free = mdp.optimize(0.9, 2.0, prior_groups=mdp.groups, tolerance=1e-6)
    every = mdp.optimize(0.9, 2.0, prior_groups=mdp.groups, tolerance=1e-6, action_masks=np.ones(mdp.shape))
    np.testing.assert_allclose(every.prior, free.prior, atol=1e-12)
    np.testing.assert_allclose(every.objective, free.objective, atol=1e-9)


@QUICK
@given(MDPS)
def test_minorise_maximise_steps_reach_the_best_prior_of_a_policy(mdp):
    policy, visits = masked(mdp.policy, mdp.masks), mdp.rng.dirichlet(np.ones(mdp.shape[0]))
    prior = GroupPrior.from_arrays(None, mdp.groups, mdp.masks, mdp.shape)

    def divergence(table):
        return visits @ kl(policy, masked(table[mdp.groups], mdp.masks))

    growth, before = np.inf, np.inf
    for _ in range(20_000):
        assert divergence(prior.table) <= before + 1e-12
        before = divergence(prior.table)
        prior, growth = prior.improve(visits, policy)
        if growth <= 1.0 + 1e-7:
            break
    assert growth <= 1.0 + 1e-7
    # E[KL] is convex in log ρ: it has no other minimum
    for _ in range(5):
        other = prior.table * np.exp(0.3 * mdp.rng.normal(size=prior.table.shape))
        assert divergence(other / other.sum(axis=1, keepdims=True)) >= divergence(prior.table) - 1e-6


def test_the_best_prior_with_masks_is_not_the_average_policy():
    # Action 2 is valid in state 1 only, and taken there in half of the cases: among three actions it must count as much as the
    # other two together
    masks, policy = np.array([[True, True, False], [True, True, True]]), np.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]])
    prior = GroupPrior.from_arrays(None, None, masks, (2, 3))
    for _ in range(200):
        prior, _ = prior.improve(np.array([0.5, 0.5]), policy)
    np.testing.assert_allclose(prior.of_states(), policy, atol=1e-9)


def test_actions_outside_the_support_of_the_prior_stay_outside():
    mdp = GroupedMdp(1, 6, 4, False)
    first = np.array([0.0, 0.0, 0.5, 0.5])
    mdp.masks[0] = [True, True, False, False]  # ρ has no mass here
    best = mdp.optimize(0.9, 3.0, prior=first, action_masks=mdp.masks, tolerance=1e-6, max_iterations=100)
    assert best.converged
    assert (best.prior[:2] == 0.0).all()
    assert (best.policy[0, :2] > 0.0).all()
    assert (np.diff(best.objective) >= -1e-9).all()


def test_an_action_that_is_useful_only_where_it_is_forced_loses_its_probability_quickly():
    # In state 0 only action 0 is valid. In state 1 it costs 1, so that the best ρ(0) is 0, which plain steps approach like 1/n
    masks = [[True, False], [True, True]]
    best = optimize_prior(
        np.zeros((2, 2, 2)), [[0, 0], [0, 1]], 0.0, 1.0, [0.5, 0.5], action_masks=masks, tolerance=1e-9, max_iterations=100
    )
    assert best.converged
    assert best.prior[0] <= 1e-8
    assert best.objective[-1] == pytest.approx(0.5, abs=1e-8)


# The alternation


@QUICK
@given(MDPS, GAMMAS, BETAS, st.booleans(), st.booleans())
def test_the_objective_never_falls(mdp, gamma, beta, with_groups, with_masks):
    best = mdp.optimize(
        gamma,
        beta,
        max_iterations=15,
        prior_groups=mdp.groups if with_groups else None,
        action_masks=mdp.masks if with_masks else None,
    )
    assert (np.diff(best.objective) >= -1e-9).all()
    assert best.objective[-1] == pytest.approx(mdp.initial @ best.v, abs=1e-9)


@pytest.mark.parametrize("beta", [0.5, 5.0, np.inf])
def test_gamma_1_with_groups_masks_and_skills(beta):
    env = GridWorld(SQUARE)
    # Moves into walls are not valid
    masks = env.transition[np.arange(31), :, np.arange(31)] == 0.0
    rows = env.positions[:, 0]
    problem = (env.transition, env.reward, 1.0, beta, env.initial_state_distrib)
    for best in (
        optimize_prior(*problem, prior_groups=rows, max_iterations=15),
        optimize_prior(*problem, action_masks=masks, max_iterations=15),
        optimize_prior(*problem, prior_groups=rows, action_masks=masks, max_iterations=15),
        optimize_skills(*problem, 3, high_groups=rows, max_iterations=15),
    ):
        assert len(best.objective) > 1
        assert (np.diff(best.objective) >= -1e-9).all()
        assert best.objective[-1] <= 23 / 6 + 1e-9  # the mean optimal return of this map
        assert env.initial_state_distrib @ best.v == pytest.approx(best.objective[-1], abs=1e-9)


@SEEDS
@pytest.mark.parametrize("with_masks", [False, True])
def test_the_fixed_point_is_stationary(seed, with_masks):
    mdp = GroupedMdp(seed, 4, 3, seed % 2 == 0)
    masks = mdp.masks if with_masks else None
    best = mdp.optimize(0.9, 2.0, tolerance=1e-5, prior_groups=mdp.groups, action_masks=masks)
    assert best.converged
    assert mdp.slopes(0.9, 2.0, best.prior, masks).max() <= 1e-3


@QUICK
@given(MDPS, GAMMAS, BETAS, st.integers(1, 4))
def test_the_objective_never_falls_with_skills(mdp, gamma, beta, n_skills):
    best = mdp.optimize_skills(
        gamma, beta, n_skills, high_groups=mdp.other_groups, low_groups=mdp.groups, seed=3, max_iterations=15
    )
    assert (np.diff(best.objective) >= -1e-9).all()
    prior = SkillPrior(best.high, best.low, mdp.other_groups, mdp.groups)
    assert mdp.objective(gamma, beta, prior.of_states()) == pytest.approx(best.objective[-1], abs=1e-8)


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_one_skill_is_the_prior_with_groups(mdp, gamma, beta):
    skills = mdp.optimize_skills(gamma, beta, 1, high_groups=mdp.other_groups, low_groups=mdp.groups, max_iterations=10)
    groups = mdp.optimize(gamma, beta, max_iterations=10, prior_groups=mdp.groups)
    assert (skills.high == 1.0).all()
    np.testing.assert_allclose(skills.low[0], groups.prior, atol=1e-12)
    np.testing.assert_allclose(skills.policy, groups.policy, atol=1e-12)
    np.testing.assert_allclose(skills.objective, groups.objective, atol=1e-11)


@SEEDS
def test_the_fixed_point_of_skills_is_stationary(seed):
    mdp, gamma, beta = GroupedMdp(seed, 4, 3, seed % 2 == 0), 0.9, 2.0
    groups = {"high_groups": mdp.other_groups, "low_groups": mdp.groups}
    best = mdp.optimize_skills(gamma, beta, 2, seed=1, tolerance=1e-5, **groups)
    assert best.converged

    def value(high, low):
        return mdp.objective(gamma, beta, SkillPrior(high, low, **groups).of_states())

    def slope(levels, k, index, corner):
        values = []
        for step in (0.0, 1e-4, 2e-4):
            moved = [level.copy() for level in levels]
            moved[k][index] += step * (corner - moved[k][index])
            values.append(value(*moved))
        return (-3 * values[0] + 4 * values[1] - values[2]) / 2e-4

    levels = (best.high, best.low)
    for k, level in enumerate(levels):
        for index, corner in itertools.product(np.ndindex(level.shape[:-1]), np.eye(level.shape[-1])):
            assert slope(levels, k, index, corner) <= 1e-3


# Four rooms


def optimize_four_goals(world, **options):
    return optimize_skills(
        world.transition,
        world.reward,
        0.95,
        3.0,
        world.initial_state_distrib,
        4,
        high_groups=world.goal,
        low_groups=world.position,
        tolerance=1e-3,
        **options,
    )


def best_prior_of_positions(world):
    initial, groups = world.initial_state_distrib, world.position
    return optimize_prior(world.transition, world.reward, 0.95, 3.0, initial, prior_groups=groups, tolerance=1e-3)


def test_skills_separate_on_a_map_with_four_rooms():
    world = FourGoals()
    best = optimize_four_goals(world, seed=0)
    assert best.converged
    # Each goal has a skill of its own, with which the position alone gives the action
    assert sorted(best.high.argmax(axis=1)) == [0, 1, 2, 3]
    assert (best.high.max(axis=1) > 0.99).all()
    uniform = np.full(4, 0.25)
    hard = world.initial_state_distrib @ soft_value_iteration(world.transition, world.reward, 0.95, np.inf, uniform).v
    one = best_prior_of_positions(world)
    assert one.objective[-1] < hard - 1.0
    assert best.objective[-1] > hard - 0.01


def test_equal_skills_never_separate():
    world = FourGoals()
    n_positions = world.position.max() + 1
    best = optimize_four_goals(world, low=np.full((4, n_positions, 4), 0.25))
    one = best_prior_of_positions(world)
    np.testing.assert_allclose(best.high, 0.25, atol=1e-12)
    np.testing.assert_allclose(best.low, np.broadcast_to(best.low[:1], best.low.shape), atol=1e-12)
    assert len(best.objective) > 1
    np.testing.assert_allclose(best.objective, one.objective[: len(best.objective)], atol=1e-9)


# Pieces


def test_drawn_skills_differ_and_depend_on_the_seed():
    one, other = (draw_skills(np.random.default_rng(seed), 3, 2, 5) for seed in (0, 1))
    assert one.shape == (3, 2, 5)
    np.testing.assert_allclose(one.sum(axis=2), 1.0)
    assert (one != other).all()
    assert (one[0] != one[1]).all()
    np.testing.assert_allclose(draw_skills(np.random.default_rng(0), 1, 2, 5), 0.2, rtol=1e-15)


def test_weights_in_groups_by_hand():
    weights = weights_in_groups(np.array([1.0, 3.0, 0.0, 2.0]), np.array([0, 0, 1, 2]), 4)
    assert weights.tolist() == [[0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


# Bad input


PROBLEM = {
    "transition": np.full((2, 3, 2), 0.5),
    "reward": np.zeros((2, 3)),
    "gamma": 0.9,
    "beta": 1.0,
    "initial_distribution": [0.5, 0.5],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_groups": [0]}, r"prior_groups must have the shape \(2,\), one group for each state, got \(1,\)"),
        ({"prior_groups": [0.0, 1.0]}, "prior_groups must be whole numbers from 0, got float64"),
        ({"prior_groups": [True, False]}, "prior_groups must be whole numbers from 0, got bool"),
        ({"prior_groups": [0, -1]}, "prior_groups must be whole numbers from 0, got -1"),
        ({"prior_groups": [0, 1], "prior": [0.2, 0.3, 0.5]}, r"prior must have the shape \(2, 3\), got \(3,\)"),
        ({"prior_groups": [0, 2], "prior": np.full((2, 3), 1 / 3)}, r"prior must have the shape \(3, 3\), got \(2, 3\)"),
        ({"prior": np.full((2, 3), 1 / 3)}, r"prior must have the shape \(3,\), got \(2, 3\)"),
        ({"action_masks": [True] * 3}, r"action_masks must have the shape \[S, A\] = \(2, 3\), got \(3,\)"),
        ({"action_masks": [[1, 1, 2]] * 2}, "action_masks must be True or False, got 2"),
        ({"action_masks": [[1, 1, np.nan]] * 2}, "action_masks must be True or False, got nan"),
        ({"action_masks": [[1, 1, 0], [0, 0, 0]]}, "action_masks: state 1 has no valid action"),
    ],
)
def test_invalid_groups_and_masks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        optimize_prior(**PROBLEM, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_skills": 0}, "n_skills must be a whole number from 1, got 0"),
        ({"n_skills": 1.5}, "n_skills must be a whole number from 1, got 1.5"),
        ({"high_groups": [0]}, r"high_groups must have the shape \(2,\)"),
        ({"low_groups": [0, -2]}, "low_groups must be whole numbers from 0, got -2"),
        ({"high": [0.5, 0.5]}, r"high must have the shape \(1, 2\), got \(2,\)"),
        ({"low": np.full((2, 3), 1 / 3)}, r"low must have the shape \(2, 1, 3\), got \(2, 3\)"),
        ({"low": np.full((2, 1, 3), 0.5)}, "low must not be negative and sum to 1"),
        ({"max_iterations": 0}, "max_iterations must be a whole number of at least 1, got 0"),
    ],
)
def test_invalid_skills_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        optimize_skills(**{**PROBLEM, "n_skills": 2, **change})


def test_invalid_masks_of_the_other_functions_are_refused():
    problem = {name: PROBLEM[name] for name in ("transition", "reward", "gamma")}
    masks = [[True, True, False], [True, True, True]]
    with pytest.raises(ValueError, match="action_masks: state 0 has no valid action"):
        soft_value_iteration(**problem, beta=1.0, prior=[0.2, 0.3, 0.5], action_masks=[[0, 0, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"prior must have the shape \(2, 3\), got \(3, 3\)"):
        soft_value_iteration(**problem, beta=1.0, prior=np.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"policy must be 0 for actions that are not valid, got 0.25 in \[0, 2\]"):
        evaluate_policy(**problem, policy=[[0.25, 0.5, 0.25]] * 2, action_masks=masks)
    with pytest.raises(ValueError, match="infinite penalty in state 1"):
        evaluate_policy(**problem, policy=[[0.5, 0.5, 0], [0, 0, 1]], beta=1.0, prior=[0.5, 0.5, 0], action_masks=masks)
    with pytest.raises(ValueError, match="prior_groups must have the shape"):
        mutual_information([[0.5, 0.5]], [1.0], prior_groups=[0, 1])
    assert check_groups("groups", None, 3).tolist() == [0, 0, 0]
