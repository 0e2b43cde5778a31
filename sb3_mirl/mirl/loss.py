"""The loss of MIRL: a pure function of tensors, which the plain, the compiled and the joint gradient step share."""

import torch as th

from sb3_mirl.common.gradient import regression_loss
from sb3_mirl.mirl.operators import soft_td_target


def soft_td_loss(
    q_values: th.Tensor,
    next_q_values: th.Tensor,
    actions: th.Tensor,
    rewards: th.Tensor,
    dones: th.Tensor,
    discounts: th.Tensor | float,
    prior: th.Tensor,
    beta: th.Tensor,
    loss: str = "huber",
) -> tuple[th.Tensor, th.Tensor]:
    """
    The loss of Q(s,a) against r + (1 - done) γ β⁻¹ log Σ ρ(a') exp(β Q_target(s',a')). The arguments are those of
    :func:`~sb3_mirl.common.gradient.td_loss`, and:

    :param prior: ρ, [n_actions], or ρ(·|x) at s', [batch, n_actions]
    :param beta: β, []
    :return: the loss, [], and the mean squared TD error, [], which β follows whatever the loss is
    """
    with th.no_grad():
        target_q_values = soft_td_target(rewards, dones, discounts, next_q_values, prior, beta)
    return regression_loss(q_values, actions, target_q_values, loss)
