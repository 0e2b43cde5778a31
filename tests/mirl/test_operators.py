"""The equations, against hand-checked numbers, mpmath-free closed forms and each other."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.fx.experimental.proxy_tensor import make_fx

from sb3_mirl.mirl.operators import (
    MIN_SQUARED_TD_ERROR,
    kl_divergence,
    masked_prior,
    soft_policy,
    soft_td_target,
    soft_value,
    update_beta,
    update_prior,
)

INF = float("inf")
LOG2 = math.log(2.0)


def t(*values, dtype=th.float64):
    return th.tensor(values, dtype=dtype)


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize(
    "q, prior, beta, value, policy",
    [
        # β = 0: expectation and ρ itself
        ([1.0, 3.0], [0.25, 0.75], 0.0, 2.5, [0.25, 0.75]),
        # β = ∞: maximum over the support of ρ, and ρ restricted to the best actions
        ([1.0, 3.0], [0.25, 0.75], INF, 3.0, [0.0, 1.0]),
        ([1.0, 3.0, 3.0], [0.5, 0.1, 0.4], INF, 3.0, [0.0, 0.2, 0.8]),
        ([1.0, 3.0, 9.0], [0.25, 0.75, 0.0], INF, 3.0, [0.0, 1.0, 0.0]),
        ([0.0, 0.0], [0.25, 0.75], INF, 0.0, [0.25, 0.75]),
        # exp(log 2) = 2: V = log(½ 1 + ½ 2)
        ([0.0, LOG2], [0.5, 0.5], 1.0, math.log(1.5), [1 / 3, 2 / 3]),
        ([0.0, LOG2 / 2], [0.5, 0.5], 2.0, math.log(1.5) / 2, [1 / 3, 2 / 3]),
        # an action that ρ excludes counts for nothing, whatever its Q
        ([0.0, LOG2, 1e30], [0.5, 0.5, 0.0], 1.0, math.log(1.5), [1 / 3, 2 / 3, 0.0]),
        # far beyond the range of exp
        ([-1e6, 1e6], [0.5, 0.5], 1.0, 1e6 - LOG2, [0.0, 1.0]),
        ([1e6, 1e6], [0.5, 0.5], 1e6, 1e6, [0.5, 0.5]),
        # one action
        ([7.0], [1.0], 0.3, 7.0, [1.0]),
    ],
)
def test_value_and_policy_by_hand(q, prior, beta, value, policy, dtype):
    q_values, rho = th.tensor(q, dtype=dtype), t(*prior)
    tolerance = 1e-6 if dtype == th.float32 else 1e-14
    result = soft_value(q_values, rho, beta)
    assert result.dtype == dtype and result.shape == ()
    assert result.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    probabilities = soft_policy(q_values, rho, beta)
    assert probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities, policy, rtol=tolerance, atol=tolerance)
    assert (probabilities[rho == 0] == 0).all()


@pytest.mark.parametrize("beta", [0.0, INF])
def test_the_limits_are_exact(beta):
    generator = np.random.default_rng(0)
    q = th.as_tensor(generator.normal(size=(1000, 5)))
    prior = th.as_tensor(generator.dirichlet(np.ones(5)))
    exact = (prior * q).sum(-1) if beta == 0 else q.max(-1).values
    assert (soft_value(q, prior, beta) == exact).all()


@pytest.mark.parametrize("beta", [5e-324, 1e-310, 1e-300, 1e-14, 1e-10, 1e-6, 1e-3])
def test_a_small_beta_loses_no_digits(beta):
    # V = E[Q] + β Var[Q] / 2 + O(β²)
    q, prior = t(1.0, 2.0, 3.0), t(0.2, 0.3, 0.5)
    expected = 2.3 + beta * 0.61 / 2
    assert soft_value(q, prior, beta).item() == pytest.approx(expected, abs=1e-15 + beta**2)


def test_a_vanishing_prior_on_the_best_action_is_not_lost():
    # Σ ρ e^{Q - 100} = 1e-30 + e^-100 ≈ 1e-30, which 1 - (1 - 1e-30) rounds to zero
    value = soft_value(t(0.0, 100.0), t(1.0, 1e-30), 1.0)
    assert value.item() == pytest.approx(100 - 30 * math.log(10), rel=1e-12)


@pytest.mark.parametrize(
    "prior, mask, expected",
    [
        ([0.2, 0.3, 0.5], [True, True, False], [0.4, 0.6, 0.0]),
        ([0.2, 0.3, 0.5], [1, 0, 0], [1.0, 0.0, 0.0]),
        ([0.25, 0.25, 0.5], [True, True, True], [0.25, 0.25, 0.5]),
        # no mass on the valid actions: uniform over them
        ([0.0, 0.0, 1.0], [True, True, False], [0.5, 0.5, 0.0]),
        ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        # hardly any mass is enough
        ([1e-300, 3e-300, 1.0], [True, True, False], [0.25, 0.75, 0.0]),
    ],
)
def test_masked_prior_by_hand(prior, mask, expected):
    result = masked_prior(th.tensor(prior, dtype=th.float64), th.tensor(mask))
    assert result.dtype == th.float64
    np.testing.assert_allclose(result, expected, rtol=1e-14)


def test_masked_prior_of_leading_axes_and_vmap_agree():
    generator = th.Generator().manual_seed(0)
    masks = th.rand(5, 3, 4, generator=generator) < 0.5
    masks[..., 0] |= ~masks.any(dim=-1)
    prior = th.softmax(th.randn(5, 3, 4, generator=generator), dim=-1)
    prior[0] = t(0.0, 0.0, 0.5, 0.5)
    result = masked_prior(prior, masks)
    assert result.shape == masks.shape
    np.testing.assert_allclose(result.sum(dim=-1), 1.0, rtol=1e-14)
    assert (result[~masks] == 0).all()
    assert (th.func.vmap(masked_prior)(prior, masks) == result).all()
    traced = make_fx(masked_prior)(prior, masks)
    other = ~masks
    other[..., 0] |= ~other.any(dim=-1)
    assert (traced(prior, other) == masked_prior(prior, other)).all()
    # one prior for all states
    assert (masked_prior(prior[1, 0], masks)[2, 1] == masked_prior(prior[1, 0], masks[2, 1])).all()


def test_a_prior_that_is_not_a_number_is_not_hidden_by_a_mask():
    assert masked_prior(t(math.nan, 0.5), th.tensor([True, True])).isnan().all()


@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 3, 4), (1, 0, 4)])
def test_leading_axes_are_free(shape):
    q = th.randn(shape, generator=th.Generator().manual_seed(0))
    prior = t(0.1, 0.2, 0.3, 0.4)
    assert soft_value(q, prior, 2.0).shape == shape[:-1]
    policy = soft_policy(q, prior, 2.0)
    assert policy.shape == shape
    assert kl_divergence(policy, prior).shape == shape[:-1]
    rows = soft_value(q.reshape(-1, 4), prior, 2.0)
    assert (soft_value(q, prior, 2.0).reshape(-1) == rows).all()


def simplex(n):
    weights = hnp.arrays(np.float64, n, elements=st.floats(0, 1)).filter(lambda w: w.sum() > 1e-3)
    return weights.map(lambda w: np.where(w < 1e-12, 0.0, w)).map(lambda w: w / w.sum())


@st.composite
def problems(draw):
    n = draw(st.integers(1, 18))
    q = draw(hnp.arrays(np.float64, n, elements=st.floats(-1e3, 1e3)))
    beta = draw(st.one_of(st.sampled_from([0.0, INF]), st.floats(1e-12, 1e6)))
    return th.as_tensor(q), th.as_tensor(draw(simplex(n))), beta


@settings(max_examples=300, deadline=None)
@given(problems(), st.floats(-1e3, 1e3))
def test_value_lies_between_mean_and_maximum_and_moves_with_a_constant(problem, shift):
    q, prior, beta = problem
    value = soft_value(q, prior, beta).item()
    slack = 1e-9 * (1 + q.abs().max().item())
    assert (prior * q).sum().item() - slack <= value <= q[prior > 0].max().item() + slack
    assert soft_value(q + shift, prior, beta).item() == pytest.approx(value + shift, abs=1e-6)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_policy_is_the_gradient_of_the_value(problem):
    q, prior, beta = problem
    if beta == INF and (q == q[prior > 0].max()).sum() > 1:
        return  # the maximum has no gradient at a tie
    q = q.clone().requires_grad_()
    soft_value(q, prior, beta).backward()
    np.testing.assert_allclose(q.grad, soft_policy(q.detach(), prior, beta), atol=1e-7)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_value_is_expected_q_less_the_penalty(problem):
    q, prior, beta = problem
    if not 1e-3 < beta < INF:
        return  # the division magnifies rounding without end
    policy = soft_policy(q, prior, beta)
    penalised = (policy * q).sum() - kl_divergence(policy, prior) / beta
    assert soft_value(q, prior, beta).item() == pytest.approx(penalised.item(), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("beta", [0.0, 1e-30, 1.0, 1e6, 1e38, INF])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("n_actions", [1, 2, 18])
def test_float32_stays_finite(beta, scale, n_actions):
    q = scale * th.randn(64, n_actions, generator=th.Generator().manual_seed(0))
    prior = th.zeros(n_actions)
    prior[: max(1, n_actions // 2)] = 1 / max(1, n_actions // 2)
    assert th.isfinite(soft_value(q, prior, beta)).all()
    policy = soft_policy(q, prior, beta)
    assert th.isfinite(policy).all() and (policy.sum(-1) - 1).abs().max() < 1e-6


def test_td_target_by_hand():
    prior, beta = t(0.5, 0.5), 1.0
    next_q = t([0.0, LOG2], [5.0, 5.0], [0.0, 0.0])
    rewards, dones = t(1.0, 1.0, -2.0), t(0.0, 1.0, 0.0)
    expected = [1 + 0.9 * math.log(1.5), 1.0, -2.0]
    np.testing.assert_allclose(soft_td_target(rewards, dones, 0.9, next_q, prior, beta), expected, atol=1e-15)
    # as SB3's buffers have it, with a discount for each transition
    column = soft_td_target(rewards[:, None], dones[:, None], t(0.9, 0.9, 0.9)[:, None], next_q, prior, beta)
    np.testing.assert_allclose(column, np.array(expected)[:, None], atol=1e-15)


@pytest.mark.parametrize("wrong", ["rewards", "dones", "discounts"])
def test_td_target_refuses_shapes_that_would_broadcast(wrong):
    arguments = {"rewards": th.zeros(3, 1), "dones": th.zeros(3, 1), "discounts": th.full((3, 1), 0.9)}
    arguments[wrong] = arguments[wrong].repeat(1, 3) if wrong == "rewards" else arguments[wrong].squeeze(-1)
    with pytest.raises(ValueError, match=r"rewards, dones and discounts must have the shape \(3,\) or \(3, 1\)"):
        soft_td_target(**arguments, next_q_values=th.zeros(3, 2), prior=t(0.5, 0.5), beta=1.0)


@pytest.mark.parametrize(
    "policy, prior, divergence",
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([1.0, 0.0], [0.5, 0.5], LOG2),
        ([1.0, 0.0], [1.0, 0.0], 0.0),
        ([0.5, 0.5], [0.25, 0.75], 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        ([0.5, 0.5], [1.0, 0.0], INF),
        ([1 - 1e-6, 1e-6], [1.0, 0.0], INF),
    ],
)
def test_kl_divergence_by_hand(policy, prior, divergence):
    assert kl_divergence(t(*policy), t(*prior)).item() == pytest.approx(divergence, abs=1e-15)


@pytest.mark.parametrize("beta", [0.0, 5e-324, 1e-310, 1.0, 1e4, INF])
def test_gradients_are_finite_where_the_policy_is_zero(beta):
    q = t(0.0, 1.0, 2.0).requires_grad_()
    for prior in (t(0.5, 0.5, 0.0), t(0.2, 0.3, 0.5)):
        kl_divergence(soft_policy(q, prior, beta), prior).backward()
        soft_value(q, prior, beta).backward()
    assert th.isfinite(q.grad).all()


def test_operators_accept_integer_and_boolean_tensors():
    q, prior = th.tensor([1, 2]), t(0.5, 0.5)
    assert soft_value(q, prior, 0).item() == 1.5
    np.testing.assert_allclose(soft_policy(q, prior, 0), [0.5, 0.5])
    target = soft_td_target(t(1.0, 1.0), th.tensor([False, True]), 0.5, th.tensor([[1, 2], [1, 2]]), prior, 0)
    np.testing.assert_allclose(target, [1.75, 1.0])


def test_infinite_q_values_of_excluded_actions_do_not_count():
    for beta in (0.0, 1.0, INF):
        value = soft_value(t(0.0, 1.0, INF), t(0.5, 0.5, 0.0), beta)
        assert value == soft_value(t(0.0, 1.0), t(0.5, 0.5), beta)


def test_update_prior_refuses_another_number_of_actions():
    with pytest.raises(ValueError, match=r"policy must have \(3,\) actions on its last axis, got \(1,\)"):
        update_prior(t(0.2, 0.3, 0.5), t(1.0), 0.1)


def test_update_prior_by_hand():
    np.testing.assert_allclose(update_prior(t(0.5, 0.5), t(1.0, 0.0), 0.1), [0.55, 0.45], atol=1e-15)
    # two states at once: weight 1 - 0.9² = 0.19 on their mean (0.5, 0.5)
    two = update_prior(t(1.0, 0.0), t([1.0, 0.0], [0.0, 1.0]), 0.1)
    np.testing.assert_allclose(two, [1 - 0.095, 0.095], atol=1e-15)
    np.testing.assert_array_equal(update_prior(t(0.3, 0.7), t(1.0, 0.0), 1.0), [1.0, 0.0])
    np.testing.assert_array_equal(update_prior(t(0.5, 0.5), t(1.0, 0.0), 0.0), [0.5, 0.5])


def test_k_equal_states_are_k_steps():
    prior, policy = t(0.2, 0.8), t(0.9, 0.1)
    stepwise = prior
    for _ in range(8):
        stepwise = update_prior(stepwise, policy, 0.05)
    np.testing.assert_allclose(update_prior(prior, policy.repeat(8, 1), 0.05), stepwise, atol=1e-15)


@pytest.mark.parametrize("step_size", [2e-6, 0.01, 1.0])
def test_prior_stays_on_the_simplex(step_size):
    generator = np.random.default_rng(0)
    prior = th.full((18,), 1 / 18, dtype=th.float64)
    # float32 policies, whose rows sum to 1 only to 1e-7
    for policy in th.as_tensor(generator.dirichlet(np.full(18, 0.05), size=20_000), dtype=th.float32):
        prior = update_prior(prior, policy, step_size)
    assert (prior >= 0).all() and abs(prior.sum().item() - 1) < 1e-12


def test_a_policy_that_is_not_finite_leaves_the_prior():
    np.testing.assert_array_equal(update_prior(t(0.2, 0.8), t(math.nan, 0.5), 0.5), [0.2, 0.8])


def test_update_beta_by_hand():
    assert update_beta(2.0, 0.5, 0.1, INF).item() == pytest.approx(0.9 * 2 + 0.1 * 2)
    assert update_beta(2.0, 0.25, 1.0, INF).item() == pytest.approx(4.0)
    assert update_beta(2.0, 0.25, 0.0, INF).item() == 2.0
    assert update_beta(0.0, 1e-3, 0.5, 100.0).item() == 100.0
    assert update_beta(1.0, 0.0, 0.01, INF).item() == pytest.approx(0.99 + 0.01 / MIN_SQUARED_TD_ERROR)
    assert update_beta(1.0, INF, 0.01, INF).item() == pytest.approx(0.99)
    assert update_beta(1.5, math.nan, 0.01, INF).item() == 1.5


def test_update_beta_converges_to_the_inverse_error():
    beta = th.tensor(0.01, dtype=th.float64)
    for _ in range(2000):
        beta = update_beta(beta, 0.04, 0.01, 1e4)
    assert beta.item() == pytest.approx(25.0, rel=1e-6)
