"""The loss of MIRL."""

import pytest
import torch as th

from sb3_mirl.mirl.loss import soft_td_loss


def test_the_loss_is_the_error_against_the_soft_target():
    prior = th.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=th.float64)
    next_q_values, beta = th.tensor([[1.0, 3.0], [2.0, -1.0]]), th.tensor(2.0, dtype=th.float64)
    q_values, actions = th.tensor([[0.5, 0.0], [0.0, 1.0]]), th.tensor([[0], [1]])
    rewards, dones = th.tensor([[1.0], [2.0]]), th.tensor([[0.0], [1.0]])
    loss, error = soft_td_loss(q_values, next_q_values, actions, rewards, dones, 0.9, prior, beta, loss="mse")
    value = (0.5 * th.tensor(2.0).exp() + 0.5 * th.tensor(6.0).exp()).log() / 2
    expected = ((0.5 - (1.0 + 0.9 * value)) ** 2 + (1.0 - 2.0) ** 2) / 2
    assert loss.item() == error.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_prior_for_each_state_that_is_the_same_everywhere_is_one_for_all():
    generator = th.Generator().manual_seed(0)
    q_values, next_q_values = (th.randn(6, 3, generator=generator) for _ in range(2))
    rewards, dones = th.randn(6, 1, generator=generator), th.zeros(6, 1)
    prior, beta = th.tensor([0.2, 0.3, 0.5], dtype=th.float64), th.tensor(1.5, dtype=th.float64)
    batch = (q_values, next_q_values, th.zeros(6, 1, dtype=th.long), rewards, dones, 0.9)
    for ours, theirs in zip(soft_td_loss(*batch, prior.expand(6, 3), beta), soft_td_loss(*batch, prior, beta), strict=True):
        assert th.equal(ours, theirs)
