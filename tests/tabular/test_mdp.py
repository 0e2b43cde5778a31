"""Checked MDPs and the linear systems of their chains: against fractions, and by hand."""

from fractions import Fraction

import numpy as np
import pytest
from random_mdp import RandomMdp, kl, log_mean_exp

from sb3_mirl.tabular.mdp import Chain, Mdp
from sb3_mirl.tabular.solvers import discounted_visitation, evaluate_policy, soft_value_iteration


def corridor(gamma=0.9):
    """Three cells in a row: action 0 goes left or hits the wall; action 1 goes right, from the last cell to the end."""
    transition = np.zeros((3, 2, 3))
    transition[[0, 1, 2], 0, [0, 0, 1]] = transition[[0, 1], 1, [1, 2]] = 1.0
    return Mdp.from_arrays(transition, np.zeros((3, 2)), gamma)


def test_termination_is_the_missing_mass():
    assert corridor().termination.tolist() == [[0, 0], [0, 0], [0, 1]]
    np.testing.assert_allclose(corridor(0.75).leaving, [[0.25, 0.25], [0.25, 0.25], [0.25, 1.0]])


def test_shortest_way_out_of_a_corridor():
    mdp = corridor()
    assert mdp.shortest_way_out(np.ones((3, 2), dtype=bool)).tolist() == [[0, 1]] * 3
    # Without "right" in the middle there is no way out from the first two cells
    allowed = np.array([[True, True], [True, False], [True, True]])
    assert mdp.shortest_way_out(allowed).tolist() == [[0, 0], [0, 0], [0, 1]]
    assert mdp.never_ending(allowed).tolist() == [True, True, False]


def test_value_and_visits_of_a_chain_by_hand():
    chain = Chain.from_policy(corridor(0.5), np.array([[0.0, 1.0]] * 3))
    base, relative = chain.value(np.ones(3))
    np.testing.assert_allclose(base + relative, [1.75, 1.5, 1.0])
    np.testing.assert_allclose(chain.visits(np.array([1.0, 0.0, 0.0])), [1.0, 0.5, 0.25])


def test_gamma_1_without_termination_is_refused():
    with pytest.raises(ValueError, match="gamma=1: the value does not exist, because episodes never end from state 1"):
        soft_value_iteration(np.array([[[0.0, 0.5]], [[0.0, 1.0]]]), np.zeros((2, 1)), 1.0, 1.0, [1.0])


def exact_value(transition, gain, gamma):
    """The solution v of v = gain + γ P v in fractions, P rounded so that rows sum to 1."""
    n = len(gain)
    rows = [[Fraction(p) for p in row] for row in transition]
    rows = [[p / sum(row) for p in row] for row in rows]
    system = [[(i == j) - Fraction(gamma) * rows[i][j] for j in range(n)] + [Fraction(gain[i])] for i in range(n)]
    for k in range(n):
        system[k] = [entry / system[k][k] for entry in system[k]]
        for i in set(range(n)) - {k}:
            system[i] = [entry - system[i][k] * pivot for entry, pivot in zip(system[i], system[k], strict=True)]
    return [row[-1] for row in system]


@pytest.mark.parametrize("exponent", [6, 8, 9, 12, 15])
@pytest.mark.parametrize("beta", [0.5, 3.0, np.inf])
def test_gamma_close_to_1_is_accurate(exponent, beta):
    # Values are about 10^exponent: nine digits of them, which is far more than the rounding of Q-values would leave
    gamma = 1.0 - 10.0**-exponent
    for seed in range(5):
        mdp = RandomMdp(seed, 3, 3, False)
        mdp.transition = np.round(mdp.transition * 2**20) / 2**20
        mdp.transition[:, :, 0] = 1.0 - mdp.transition[:, :, 1:].sum(axis=2)  # sums to 1 without rounding
        solution = soft_value_iteration(mdp.transition, mdp.reward, gamma, beta, mdp.prior)
        policy = solution.policy / solution.policy.sum(axis=1, keepdims=True)
        gain = (policy * mdp.reward).sum(axis=1) - (kl(policy, mdp.prior) / beta if beta < np.inf else 0.0)
        exact = exact_value(np.einsum("sa,sat->st", policy, mdp.transition), gain, gamma)
        np.testing.assert_allclose(solution.v, np.array(exact, dtype=float), rtol=1e-9)
        # No better policy: r + γ P v - v in fractions, of which the soft maximum must be 0
        to_go = [[Fraction(p) for p in row] for row in mdp.transition.reshape(9, 3)]
        to_go = np.array([Fraction(gamma) * sum(map(Fraction.__mul__, row, exact)) for row in to_go]).reshape(3, 3)
        advantage = (np.vectorize(Fraction)(mdp.reward) + to_go - np.array(exact)[:, None]).astype(float)
        improvement = log_mean_exp(advantage, mdp.prior, beta) if beta < np.inf else advantage.max(axis=1)
        assert np.abs(improvement).max() <= 1e-9 * np.abs(solution.v).min() * (1 - gamma)
        evaluated = evaluate_policy(mdp.transition, mdp.reward, gamma, policy, beta, mdp.prior)[1]
        np.testing.assert_allclose(evaluated, solution.v, rtol=1e-9)
        # Σ d r = (1-γ) ν V
        visits = discounted_visitation(mdp.transition, gamma, policy, mdp.initial)
        assert visits @ gain == pytest.approx((1 - gamma) * (mdp.initial @ solution.v), rel=1e-9)


def test_gamma_1_with_long_episodes_is_accurate():
    transition = np.array([[[1.0 - 1e-8]]])
    value = soft_value_iteration(transition, [[0.3]], 1.0, 1.0, [1.0]).v[0]
    assert value == pytest.approx(0.3 / (1.0 - transition.item()), rel=1e-14)
    assert discounted_visitation(transition, 1.0, [[1.0]], [1.0]).tolist() == [1.0]


@pytest.mark.parametrize("gamma", [0.99, 1.0 - 1e-12])
def test_rows_that_sum_to_1_up_to_rounding_have_no_termination(gamma):
    for error in (1e-10, -1e-10):
        value = soft_value_iteration([[[1.0 + error]]], [[1.0]], gamma, 1.0, [1.0]).v[0]
        assert value == pytest.approx(1.0 / (1.0 - gamma), rel=1e-12)
