"""The exact solvers on random MDPs. Each statement of the theory is written here from its formula."""

import itertools
import time

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from random_mdp import RandomMdp, kl, log_mean_exp

from sb3_mirl.envs.gridworld import SQUARE, GridWorld, toy_text_arrays
from sb3_mirl.mirl.operators import soft_value
from sb3_mirl.tabular.solvers import (
    discounted_visitation,
    evaluate_policy,
    mutual_information,
    optimize_prior,
    soft_value_iteration,
)

BETAS = st.floats(-2, 2).map(lambda exponent: 10.0**exponent)
GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 0.99])


MDPS = st.builds(RandomMdp, st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.booleans())
QUICK = settings(max_examples=40, deadline=None)


def bellman(mdp, q, gamma, beta):
    """T Q = r + γ P m(Q)."""
    return mdp.reward + gamma * mdp.transition @ log_mean_exp(q, mdp.prior, beta)


# Statement 1


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_the_operator_is_a_monotone_contraction(mdp, gamma, beta):
    q = mdp.rng.normal(scale=3, size=mdp.reward.shape)
    above = q + mdp.rng.exponential(size=q.shape)
    assert (bellman(mdp, above, gamma, beta) >= bellman(mdp, q, gamma, beta) - 1e-12).all()
    other = mdp.rng.normal(scale=3, size=q.shape)
    distance = np.abs(bellman(mdp, q, gamma, beta) - bellman(mdp, other, gamma, beta)).max()
    assert distance <= gamma * np.abs(q - other).max() + 1e-12


@QUICK
@given(MDPS, BETAS)
def test_soft_value_bounds_shift_gradient_and_variational_form(mdp, beta):
    q = th.tensor(mdp.rng.normal(size=mdp.reward.shape), requires_grad=True)
    prior = th.tensor(mdp.prior)
    m = soft_value(q, prior, beta)
    assert (m >= (prior * q).sum(-1) - 1e-12).all()
    assert (m <= q.amax(-1) + 1e-12).all()
    th.testing.assert_close(soft_value(q + 7.0, prior, beta), m + 7.0, rtol=0, atol=1e-12)
    (gradient,) = th.autograd.grad(m.sum(), q)
    numbers = q.detach().numpy()
    weights = mdp.prior * np.exp(beta * (numbers - numbers.max(axis=1, keepdims=True)))
    policy = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient.numpy(), policy, atol=1e-12)
    variational = (policy * numbers).sum(axis=1) - kl(policy, mdp.prior) / beta
    np.testing.assert_allclose(m.detach().numpy(), variational, atol=1e-9)


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_soft_value_iteration_finds_the_fixed_point(mdp, gamma, beta):
    q = np.zeros_like(mdp.reward)
    for _ in range(3000):  # 0.99³⁰⁰⁰ is 8e-14
        q = bellman(mdp, q, gamma, beta)
    solution = mdp.solve(gamma, beta)
    np.testing.assert_allclose(solution.q, q, atol=1e-10, rtol=1e-12)
    np.testing.assert_allclose(solution.v, log_mean_exp(q, mdp.prior, beta), atol=1e-10, rtol=1e-12)
    np.testing.assert_allclose(solution.policy, mdp.prior * np.exp(beta * (q - solution.v[:, None])), atol=1e-7)


@QUICK
@given(MDPS, GAMMAS)
def test_infinite_beta_is_value_iteration_on_the_support(mdp, gamma):
    prior = mdp.prior.copy()
    if len(prior) > 1:
        prior[0] = 0.0
        prior /= prior.sum()
    q = np.zeros_like(mdp.reward)
    for _ in range(3000):
        q = mdp.reward + gamma * mdp.transition @ np.where(prior > 0, q, -np.inf).max(axis=1)
    solution = soft_value_iteration(mdp.transition, mdp.reward, gamma, np.inf, prior)
    np.testing.assert_allclose(solution.q, q, atol=1e-10)
    assert (solution.policy[:, prior == 0] == 0).all()


# Statements 2 and 3


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_distance_to_the_hard_value(mdp, gamma, beta):
    hard, soft = mdp.solve(gamma, np.inf).v, mdp.solve(gamma, beta).v
    assert (soft <= hard + 1e-9).all()
    assert (soft >= hard - np.log(1 / mdp.prior.min()) / (beta * (1 - gamma)) - 1e-9).all()


def test_bound_on_the_distance_needs_the_factor_of_the_horizon():
    # One state, two actions, of which one pays 1 for ever: without 1/(1-γ) the bound would be wrong
    transition, reward, prior = np.ones((1, 2, 1)), np.array([[1.0, 0.0]]), np.array([0.5, 0.5])
    hard = soft_value_iteration(transition, reward, 0.9, np.inf, prior).v[0]
    soft = soft_value_iteration(transition, reward, 0.9, 5.0, prior).v[0]
    assert hard == pytest.approx(10.0)
    assert hard - np.log(2) / (5.0 * 0.1) <= soft < hard - np.log(2) / 5.0


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_values_increase_with_beta_and_start_at_the_value_of_the_prior(mdp, gamma, beta):
    values = [mdp.solve(gamma, b).v for b in (0.0, beta / 2, beta, 2 * beta, np.inf)]
    assert all((above >= below - 1e-9).all() for below, above in itertools.pairwise(values))
    n_states = len(mdp.reward)
    of_prior = np.linalg.solve(
        np.eye(n_states) - gamma * np.einsum("a,sat->st", mdp.prior, mdp.transition), mdp.reward @ mdp.prior
    )
    np.testing.assert_allclose(values[0], of_prior, atol=1e-9)
    np.testing.assert_allclose(mdp.solve(gamma, 1e-9).v, of_prior, atol=1e-5)
    np.testing.assert_allclose(mdp.solve(gamma, 0.0).policy, np.broadcast_to(mdp.prior, mdp.reward.shape), atol=1e-15)


@QUICK
@given(MDPS, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.3, 1.0, 3.0]))
def test_derivative_of_the_value_in_beta(mdp, gamma, beta):
    step = 1e-4 * beta
    difference = (mdp.solve(gamma, beta + step).v - mdp.solve(gamma, beta - step).v) / (2 * step)
    policy = mdp.solve(gamma, beta).policy
    # β⁻² E_π Σ γᵗ KL(π‖ρ): a policy evaluation with the divergence as reward
    transition_of_policy = np.einsum("sa,sat->st", policy, mdp.transition)
    n_states = len(policy)
    discounted_kl = np.linalg.solve(np.eye(n_states) - gamma * transition_of_policy, kl(policy, mdp.prior))
    np.testing.assert_allclose(difference, discounted_kl / beta**2, rtol=1e-4, atol=1e-5)


# Policy evaluation, visitation, mutual information


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_policy_evaluation_of_the_optimum_is_its_value(mdp, gamma, beta):
    solution = mdp.solve(gamma, beta)
    q, v = evaluate_policy(mdp.transition, mdp.reward, gamma, solution.policy, beta, mdp.prior)
    np.testing.assert_allclose(v, solution.v, atol=1e-8)
    np.testing.assert_allclose(q, solution.q, atol=1e-8)


@QUICK
@given(MDPS, st.sampled_from([0.0, 0.5, 0.9]))
def test_visitation_is_the_discounted_sum(mdp, gamma):
    policy = mdp.rng.dirichlet(np.ones(mdp.reward.shape[1]), len(mdp.reward))
    transition_of_policy = np.einsum("sa,sat->st", policy, mdp.transition)
    expected, now = np.zeros(len(policy)), mdp.initial
    for t in range(400):
        expected, now = expected + gamma**t * now, now @ transition_of_policy
    visits = discounted_visitation(mdp.transition, gamma, policy, mdp.initial)
    np.testing.assert_allclose(visits, expected / expected.sum(), atol=1e-10)


def test_mutual_information_by_hand():
    assert mutual_information(np.eye(3), np.full(3, 1 / 3)) == pytest.approx(np.log(3))
    assert mutual_information(np.full((3, 2), 0.5), [0.2, 0.3, 0.5]) == 0.0
    # A state that is never visited says nothing
    assert mutual_information(np.eye(3), [0.5, 0.5, 0.0]) == pytest.approx(np.log(2))
    # H(A) - H(A|S) with A = S in one of two states, uniform in the other
    marginal = np.array([0.75, 0.25])
    expected = -(marginal * np.log(marginal)).sum() - 0.5 * np.log(2)
    assert mutual_information([[1, 0], [0.5, 0.5]], [0.5, 0.5]) == pytest.approx(expected)


# Statement 4


@QUICK
@given(MDPS, GAMMAS, BETAS)
def test_the_best_prior_of_a_policy_is_its_marginal(mdp, gamma, beta):
    policy = mdp.rng.dirichlet(np.ones(mdp.reward.shape[1]), len(mdp.reward))
    visits = discounted_visitation(mdp.transition, gamma, policy, mdp.initial)
    marginal = visits @ policy

    def objective(prior):
        return mdp.initial @ evaluate_policy(mdp.transition, mdp.reward, gamma, policy, beta, prior)[1]

    best = objective(marginal)
    for _ in range(5):
        other = 0.9 * marginal + 0.1 * mdp.rng.dirichlet(np.ones(len(marginal)))
        assert objective(other) <= best + 1e-9 * (1 + abs(best))


@settings(QUICK, max_examples=20)
@given(MDPS, GAMMAS, st.sampled_from([0.3, 1.0, 3.0]))
def test_alternation_increases_the_objective_to_a_fixed_point(mdp, gamma, beta):
    best = optimize_prior(mdp.transition, mdp.reward, gamma, beta, mdp.initial, tolerance=1e-6)
    assert (np.diff(best.objective) >= -1e-9).all()
    assert best.converged
    assert best.objective[-1] == pytest.approx(mdp.initial @ best.v, abs=1e-9)
    visits = discounted_visitation(mdp.transition, gamma, best.policy, mdp.initial)
    # Σ_s d(s) exp(β (Q - V)) is 1 where ρ has weight, and nowhere more
    stationarity = visits @ np.exp(beta * (best.q - best.v[:, None]))
    assert (stationarity <= 1 + 1e-5).all()
    assert best.prior @ np.abs(stationarity - 1) <= 1e-5


@QUICK
@given(st.builds(RandomMdp, st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.just(False)), GAMMAS)
def test_value_of_the_fixed_point_is_reward_minus_information(mdp, gamma):
    beta = 2.0
    best = optimize_prior(mdp.transition, mdp.reward, gamma, beta, mdp.initial, tolerance=1e-10, max_iterations=50_000)
    visits = discounted_visitation(mdp.transition, gamma, best.policy, mdp.initial)
    expected_reward = visits @ (best.policy * mdp.reward).sum(axis=1)
    value = expected_reward - mutual_information(best.policy, visits) / beta
    assert (1 - gamma) * (mdp.initial @ best.v) == pytest.approx(value, abs=1e-6)


@settings(QUICK, max_examples=8)
@given(MDPS, BETAS)
def test_gamma_0_reaches_the_global_optimum_from_every_start(mdp, beta):
    # Blahut-Arimoto; the bound that proves optimality: max over a of log Σ d exp(β (Q - V))
    ends = [
        optimize_prior(mdp.transition, mdp.reward, 0.0, beta, mdp.initial, prior, tolerance=1e-4, max_iterations=100_000)
        for prior in (None, mdp.prior)
    ]
    assert ends[0].objective[-1] == pytest.approx(ends[1].objective[-1], abs=2e-4 / beta)


def test_alternation_can_end_in_different_optima():
    # Two rooms: in each one action pays, for ever, but not the same one. From state 0 an action leads to its room
    transition, reward = np.zeros((3, 2, 3)), np.zeros((3, 2))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1, :, 1] = transition[2, :, 2] = 1.0
    reward[1, 0], reward[2, 1] = 1.0, 1.1
    initial = np.array([1.0, 0.0, 0.0])
    ends = [optimize_prior(transition, reward, 0.9, 1.0, initial, prior) for prior in ([0.95, 0.05], [0.05, 0.95])]
    assert all(end.converged for end in ends)
    np.testing.assert_allclose([end.prior for end in ends], np.eye(2), atol=1e-6)
    # Staying in a room is worth its reward for ever, without information: γ / (1 - γ) times 1 or 1.1
    assert [end.objective[-1] for end in ends] == pytest.approx([9.0, 9.9], abs=1e-5)


# γ = 1, extremes, sizes


def test_gamma_1_with_episodes_that_end():
    env = GridWorld(SQUARE)
    uniform = np.full(4, 0.25)
    hard = soft_value_iteration(env.transition, env.reward, 1.0, np.inf, uniform)
    assert env.initial_state_distrib @ hard.v == pytest.approx(23 / 6)  # the mean optimal return of this map
    near = soft_value_iteration(env.transition, env.reward, 1.0 - 1e-9, 2.0, uniform)
    np.testing.assert_allclose(soft_value_iteration(env.transition, env.reward, 1.0, 2.0, uniform).v, near.v, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 5.0, np.inf])
def test_gamma_1_with_endless_reward_is_refused(beta):
    # Staying pays 1 and leaving nothing: log(½ e^β) > 0, so the best value is infinite
    transition, reward = np.array([[[1.0], [0.0]]]), np.array([[1.0, 0.0]])
    with pytest.raises(ValueError, match="grows without bound"):
        soft_value_iteration(transition, reward, 1.0, beta, [0.5, 0.5])


def test_gamma_1_with_endless_reward_below_the_penalty_is_solved():
    # As above, but ½ e^β < 1: with x = exp(β V), x = ½ e^β x + ½
    beta = 0.5
    transition, reward = np.array([[[1.0], [0.0]]]), np.array([[1.0, 0.0]])
    value = soft_value_iteration(transition, reward, 1.0, beta, [0.5, 0.5]).v[0]
    assert value == pytest.approx(np.log(0.5 / (1 - 0.5 * np.exp(beta))) / beta, abs=1e-9)


class EndingMdp:
    """A small MDP for γ = 1, of which some actions end the episode. Rewards are such that many cycles sum to 0."""

    def __init__(self, seed, chance):
        rng = np.random.default_rng(seed)
        n_states, n_actions = rng.integers(1, 5), rng.integers(1, 4)
        self.transition = np.zeros((n_states, n_actions, n_states))
        for row in self.transition.reshape(-1, n_states):
            if rng.random() < 0.7:
                n_outcomes = rng.integers(1, 4) if chance else 1
                np.add.at(
                    row, rng.integers(0, n_states, n_outcomes), rng.choice([1.0, 1.0 - 1e-6] if chance else [1.0]) / n_outcomes
                )
        self.transition[rng.integers(n_states), 0] = 0.0
        self.reward = rng.integers(-2, 3, (n_states, n_actions)) * rng.choice([1.0, 0.3])
        self.prior = rng.dirichlet(np.full(n_actions, 5.0))
        self.beta = rng.choice([0.1, 0.5, 1.0, 3.0, 10.0])
        self.termination = 1.0 - self.transition.sum(axis=2)
        self.termination[self.termination < 1e-9] = 0.0

    def ends(self, transition, termination):
        """From which states some step is the last one, for P [S, S] and the probability of termination [S]."""
        ends = termination > 0
        for _ in termination:
            ends = ends | (transition[:, ends].sum(axis=1) > 0)
        return ends

    def best_of_all_policies(self):
        """The best value of deterministic policies that end, and whether some other earns more than nothing for ever."""
        n_states, n_actions = self.reward.shape
        rows, best, unbounded = np.arange(n_states), np.full(n_states, -np.inf), False
        for policy in itertools.product(range(n_actions), repeat=n_states):
            steps, reward = self.transition[rows, policy], self.reward[rows, policy]
            ends = self.ends(steps, self.termination[rows, policy])
            if ends.all():
                best = np.maximum(best, np.linalg.solve(np.eye(n_states) - steps, reward))
            else:
                in_the_long_run = np.linalg.matrix_power(0.5 * (steps + np.eye(n_states)), 2**14) @ reward
                unbounded |= (in_the_long_run[~ends] > 1e-9).any()
        return best, unbounded

    def solve(self, beta):
        return soft_value_iteration(self.transition, self.reward, 1.0, beta, self.prior)


@pytest.mark.parametrize("chance", [False, True])
def test_gamma_1_is_refused_if_and_only_if_no_value_exists(chance):
    counts = {"never ends": 0, "unbounded": 0, "solved": 0}
    for seed in range(300):
        mdp = EndingMdp(seed, chance)
        if not mdp.ends(mdp.transition.sum(axis=1), mdp.termination.sum(axis=1)).all():
            counts["never ends"] += 1
            with pytest.raises(ValueError, match="episodes never end"):
                mdp.solve(np.inf)
            continue
        best, unbounded = mdp.best_of_all_policies()
        if unbounded:
            counts["unbounded"] += 1
            with pytest.raises(ValueError, match="grows without bound"):
                mdp.solve(np.inf)
            continue
        counts["solved"] += 1
        solution = mdp.solve(np.inf)
        np.testing.assert_allclose(solution.v, best, rtol=1e-8, atol=1e-8, err_msg=f"seed {seed}")
        of_policy = evaluate_policy(mdp.transition, mdp.reward, 1.0, solution.policy)[1]
        np.testing.assert_allclose(of_policy, best, rtol=1e-8, atol=1e-8, err_msg=f"seed {seed}")
    assert min(counts.values()) > 5, counts


def test_gamma_1_and_a_finite_beta_is_the_solution_of_a_linear_equation():
    # Without chance, x = exp(β V) solves x = M x + b; there is a positive solution iff M contracts
    counts = {"unbounded": 0, "solved": 0}
    for seed in range(400):
        mdp = EndingMdp(seed, chance=False)
        if not mdp.ends(mdp.transition.sum(axis=1), mdp.termination.sum(axis=1)).all():
            continue
        weights = mdp.prior * np.exp(mdp.beta * mdp.reward)
        matrix = np.einsum("sa,sat->st", weights, mdp.transition)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        if radius > 1:
            counts["unbounded"] += 1
            with pytest.raises(ValueError, match="grows without bound"):
                mdp.solve(mdp.beta)
        else:
            counts["solved"] += 1
            ones = np.linalg.solve(np.eye(len(matrix)) - matrix, (weights * mdp.termination).sum(axis=1))
            # The linear equation loses digits where x is small
            digits = 1e-13 * np.abs(ones).max() / ones.min()
            np.testing.assert_allclose(mdp.solve(mdp.beta).v, np.log(ones) / mdp.beta, atol=1e-9 + digits, rtol=1e-9)
    assert min(counts.values()) > 30, counts


@pytest.mark.parametrize("excess", [0.0, 1e-12, 1e-3])
def test_gamma_1_with_endless_reward_not_below_the_penalty_is_refused(excess):
    transition, reward = np.array([[[1.0], [0.0]]]), np.array([[1.0, 0.0]])
    with pytest.raises(ValueError, match="grows without bound"):
        soft_value_iteration(transition, reward, 1.0, np.log(2.0) * (1.0 + excess), [0.5, 0.5])
    beta = np.log(2.0) * (1.0 - 1e-6)
    value = soft_value_iteration(transition, reward, 1.0, beta, [0.5, 0.5]).v[0]
    assert value == pytest.approx(np.log(0.5 / (1 - 0.5 * np.exp(beta))) / beta, rel=1e-9)


@pytest.mark.parametrize(("is_slippery", "value"), [(False, 1.0), (True, 14 / 17)])
@pytest.mark.parametrize("beta", [1e12, 1e20, np.inf])
def test_gamma_1_with_optimal_actions_that_form_cycles(is_slippery, value, beta):
    # Steps pay nothing, so that many policies that never end are as good as the best one, up to rounding
    lake = gym.make("FrozenLake-v1", is_slippery=is_slippery).unwrapped
    transition, reward = toy_text_arrays(lake.P)
    solution = soft_value_iteration(transition, reward, 1.0, beta, np.full(4, 0.25))
    assert solution.v[0] == pytest.approx(value, abs=1e-9)
    # A large β prices rounding: not below it
    assert evaluate_policy(transition, reward, 1.0, solution.policy)[1][0] == pytest.approx(value, abs=1e-9)
    assert (
        optimize_prior(transition, reward, 1.0, beta, lake.initial_state_distrib, max_iterations=5).objective[-1]
        <= value + 1e-9
    )


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("beta", [1e-8, 1.0, 1e8])
def test_rewards_and_betas_of_any_size(scale, beta):
    mdp = RandomMdp(3, 4, 3, False)
    scaled = soft_value_iteration(mdp.transition, scale * mdp.reward, 0.9, beta / scale, mdp.prior)
    np.testing.assert_allclose(scaled.v / scale, mdp.solve(0.9, beta).v, rtol=1e-7, atol=1e-10 / scale + 1e-10)


def test_optimal_prior_of_the_corridor_goes_right():
    env = GridWorld()
    for gamma in (0.9, 1.0):
        best = optimize_prior(env.transition, env.reward, gamma, 10.0, env.initial_state_distrib)
        np.testing.assert_allclose(best.prior, [0, 1, 0, 0], atol=1e-6)


def test_infinite_beta_keeps_the_actions_of_the_optimal_policy():
    env = GridWorld(SQUARE)
    start_above_the_entrance = (env.positions == [2, 6]).all(axis=1)
    best = optimize_prior(env.transition, env.reward, 1.0, np.inf, start_above_the_entrance)
    assert best.converged
    np.testing.assert_allclose(best.prior, [0, 0, 0.5, 0.5], atol=1e-12)  # down, then left


@pytest.mark.parametrize("beta", [0.1, 5.0, 30.0, 40.0, 100.0])
def test_optimal_prior_with_mostly_unvisited_states(beta):
    # From (5, 2) the optimal policy goes right, up and left. As β grows its information costs less and less of its return of 3
    env = GridWorld(SQUARE)
    start = (env.positions == [5, 2]).all(axis=1)
    best = optimize_prior(env.transition, env.reward, 1.0, beta, start)
    assert best.converged
    assert (np.diff(best.objective) >= -1e-9).all()
    visits = discounted_visitation(env.transition, 1.0, best.policy, start)
    per_episode = np.linalg.solve(np.eye(31) - np.einsum("sa,sat->st", best.policy, env.transition).T, start).sum()
    value = visits @ (best.policy * env.reward).sum(axis=1) - mutual_information(best.policy, visits) / beta
    assert best.objective[-1] == pytest.approx(per_episode * value, abs=1e-5)
    assert best.objective[-1] < 3.0


def test_rewards_that_differ_by_orders_of_magnitude():
    transition = [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]
    solution = soft_value_iteration(transition, [[0.6, 0.4], [0, -1.6e5]], 0.999, np.inf, [0.5, 0.5])
    np.testing.assert_allclose(solution.v, [600, 0], atol=1e-8)


@pytest.mark.parametrize(("gamma", "advantage"), [(0.999, 2.5e-11), (0.9999, 2.5e-10)])
def test_small_advantages_add_up_over_long_horizons(gamma, advantage):
    value = soft_value_iteration(np.ones((1, 2, 1)), [[1, 1 + advantage]], gamma, np.inf, [0.5, 0.5]).v[0]
    assert value == pytest.approx((1 + advantage) / (1 - gamma), abs=1e-16 / (1 - gamma) ** 2 * 4)


def test_large_rewards_that_cancel():
    mdp = RandomMdp(0, 4, 3, False)
    reward = 1e6 * (mdp.reward - (mdp.reward @ mdp.prior)[:, None])
    np.testing.assert_allclose(soft_value_iteration(mdp.transition, reward, 0.99, 0.0, mdp.prior).v, 0.0, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1e-14, 1e-12, 1e-8])
def test_policy_evaluation_with_a_small_beta(beta):
    mdp = RandomMdp(1, 4, 3, False)
    solution = mdp.solve(0.9, beta)
    values = evaluate_policy(mdp.transition, mdp.reward, 0.9, solution.policy, beta, mdp.prior)[1]
    np.testing.assert_allclose(values, solution.v, atol=1e-9)


@pytest.mark.parametrize("beta", [5.0, np.inf])
def test_gamma_1_with_an_exit_that_random_actions_rarely_find(beta):
    # A lock: action 1 opens one bolt more, action 0 closes all; 60 bolts
    n = 60
    transition = np.zeros((n, 2, n))
    transition[:, 0, 0] = 1.0
    transition[np.arange(n - 1), 1, np.arange(1, n)] = 1.0
    value = soft_value_iteration(transition, -np.ones((n, 2)), 1.0, beta, [0.5, 0.5]).v[0]
    assert -n * (1 + np.log(2) / beta) <= value <= -n * (1 + 0.9 * np.log(2) / beta)


def test_visitation_ignores_unreachable_states():
    transition = np.zeros((2, 1, 2))
    transition[1, 0, 1] = 1.0  # for ever; state 0 ends at once
    assert discounted_visitation(transition, 1.0, [[1.0], [1.0]], [1.0, 0.0]).tolist() == [1.0, 0.0]


def test_1000_states_are_solved_to_1e_10():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.full(1000, 0.01), (1000, 8))
    reward, prior = rng.normal(size=(1000, 8)), np.full(8, 1 / 8)
    start = time.perf_counter()
    solution = soft_value_iteration(transition, reward, 0.99, 5.0, prior)
    print(f"1,000 states, 8 actions, gamma 0.99: {time.perf_counter() - start:.2f} s")
    residual = log_mean_exp(reward + 0.99 * transition @ solution.v, prior, 5.0) - solution.v
    assert np.abs(residual).max() / (1 - 0.99) <= 1e-10


GOOD = {
    "transition": np.full((2, 3, 2), 0.5),
    "reward": np.zeros((2, 3)),
    "gamma": 0.9,
    "beta": 1.0,
    "prior": np.full(3, 1 / 3),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.full((2, 3), 0.5)}, r"transition must have the shape \[S, A, S\], got \(2, 3\)"),
        ({"reward": np.zeros((3, 2))}, r"reward must have the shape \[S, A\] = \(2, 3\)"),
        ({"transition": np.full((2, 3, 2), 0.6)}, "rows of transition must sum to at most 1, got 1.2"),
        ({"transition": np.broadcast_to([1.1, -0.1], (2, 3, 2))}, "transition must not be negative, got -0.1"),
        ({"transition": np.full((2, 3, 2), np.nan)}, "transition must not be negative, got nan"),
        ({"reward": np.full((2, 3), np.inf)}, "reward must be finite, got inf"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\], got 1.1"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"beta": -1.0}, r"beta must lie in \[0, ∞\], got -1.0"),
        ({"beta": float("nan")}, "beta"),
        ({"tolerance": -1.0}, "tolerance must not be negative, got -1.0"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"reward": np.full((2, 3), 1e308)}, "gamma=0.9: the values are too large for float64"),
        ({"prior": [0.5, 0.5]}, r"prior must have the shape \(3,\), got \(2,\)"),
        ({"prior": [0.5, 0.5, 0.5]}, "prior must not be negative and sum to 1"),
        ({"prior": [1.5, -0.5, 0.0]}, "prior must not be negative and sum to 1"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        soft_value_iteration(**{**GOOD, **change})


def test_invalid_arguments_of_the_other_functions_are_refused():
    transition, reward = GOOD["transition"], GOOD["reward"]
    policy = np.full((2, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"policy must have the shape \(2, 3\)"):
        evaluate_policy(transition, reward, 0.9, policy.T)
    with pytest.raises(ValueError, match="prior is needed for beta="):
        evaluate_policy(transition, reward, 0.9, policy, 1.0)
    with pytest.raises(ValueError, match="infinite penalty in state 0"):
        evaluate_policy(transition, reward, 0.9, policy, 1.0, [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="gamma=1: the value does not exist"):
        discounted_visitation(transition, 1.0, policy, [0.5, 0.5])
    with pytest.raises(ValueError, match="initial_distribution must have the shape"):
        optimize_prior(transition, reward, 0.9, 1.0, [1.0])
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"max_iterations must be a whole number of at least 1, got {wrong}"):
            optimize_prior(transition, reward, 0.9, 1.0, [0.5, 0.5], max_iterations=wrong)
