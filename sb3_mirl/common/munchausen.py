"""Munchausen DQN: its target and loss as pure functions of tensors, and :class:`MDQN`."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch as th

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.gradient import regression_loss
from sb3_mirl.common.inputs import LARGEST, UNIT_INTERVAL, Rule, UnsupportedError, number


def soft_maximum(q_values: th.Tensor, temperature: th.Tensor | float) -> th.Tensor:
    """
    τ log Σₐ exp(Q(s,a) / τ), which is Σₐ π(a|s) (Q(s,a) - τ log π(a|s)) for π = softmax(Q(s, ·) / τ).

    Exponents are shifted before they are exponentiated: the result is finite for any finite Q / τ.

    :param q_values: Q(s, ·), [..., n_actions]
    :param temperature: τ > 0, in units of reward
    :return: [..., 1], in the dtype of ``q_values``; at least the maximum
    """
    peak = q_values.amax(dim=-1, keepdim=True)
    return peak + temperature * th.exp((q_values - peak) / temperature).sum(dim=-1, keepdim=True).log()


def munchausen_target(
    next_q_values: th.Tensor,
    current_target_q_values: th.Tensor,
    actions: th.Tensor,
    rewards: th.Tensor,
    dones: th.Tensor,
    discounts: th.Tensor | float,
    alpha: th.Tensor | float,
    temperature: th.Tensor | float,
    clip: th.Tensor | float,
) -> th.Tensor:
    """
    r + α clip(τ log π(a|s), l₀, 0) + (1 - done) γ Σₐ' π(a'|s') (Q_target(s',a') - τ log π(a'|s')), where
    π = softmax(Q_target / τ): the target of Munchausen DQN, from the paper of :class:`MDQN`.

    Logarithms are taken in float64.

    :param next_q_values: Q_target(s', ·), [batch, n_actions]
    :param current_target_q_values: Q_target(s, ·), [batch, n_actions]
    :param actions: a, [batch, 1]
    :param rewards: r, [batch, 1]
    :param dones: 1 where the episode ended at s', else 0, [batch, 1]
    :param discounts: γ, or γⁿ [batch, 1]
    :param alpha: α in [0, 1]
    :param temperature: τ > 0, in units of reward
    :param clip: l₀ ≤ 0, in units of reward
    :return: the target, [batch, 1], in the dtype of ``next_q_values``
    """
    values = current_target_q_values.double()
    # At most 0, because the soft maximum is at least the maximum
    scaled_log_policy = values.gather(1, actions.long()) - soft_maximum(values, temperature)
    bonus = alpha * th.maximum(scaled_log_policy, th.as_tensor(clip, dtype=values.dtype, device=values.device))
    next_values = soft_maximum(next_q_values.double(), temperature).to(next_q_values.dtype)
    return rewards + bonus.to(next_q_values.dtype) + (1 - dones) * discounts * next_values


def munchausen_loss(
    q_values: th.Tensor,
    next_q_values: th.Tensor,
    current_target_q_values: th.Tensor,
    actions: th.Tensor,
    rewards: th.Tensor,
    dones: th.Tensor,
    discounts: th.Tensor | float,
    alpha: th.Tensor | float,
    temperature: th.Tensor | float,
    clip: th.Tensor | float,
    loss: str = "huber",
) -> tuple[th.Tensor, th.Tensor]:
    """
    The loss of Q(s,a) against :func:`munchausen_target`, whose arguments it takes, and:

    :param q_values: Q(s, ·), [batch, n_actions]
    :param loss: ``"huber"`` or ``"mse"``
    :return: the loss, [], and the mean squared TD error, []
    """
    with th.no_grad():
        target_q_values = munchausen_target(
            next_q_values, current_target_q_values, actions, rewards, dones, discounts, alpha, temperature, clip
        )
    return regression_loss(q_values, actions, target_q_values, loss)


class MDQN(BaseDQN):
    """
    Munchausen DQN (M-DQN): DQN that adds the scaled log-policy to the reward, and has a soft maximum in the target.

    Paper: Vieillard, Pietquin and Geist, *Munchausen Reinforcement Learning*, NeurIPS 2020, https://arxiv.org/abs/2007.14430.
    The target is that of :func:`munchausen_target`. Actions are ε-greedy in Q, as in the paper.

    It takes the arguments of :class:`~sb3_mirl.common.dqn.BaseDQN`, with the same defaults, and the ones below, whose defaults
    are the paper's values for Atari, with rewards clipped to [-1, 1]. The default loss is Huber's, as in the authors' code:
    ``MunchausenDQNAgent`` (``munchausen_rl/agents/m_dqn.py`` of github.com/google-research/google-research) replaces only the
    target of Dopamine's ``DQNAgent``, which minimises Huber's loss. There it is trained by Adam with ``learning_rate=5e-5``
    and ``policy_kwargs=dict(optimizer_kwargs=dict(eps=3.125e-4))``.

    With ``n_steps > 1`` the target has the log-policy of the first step only; those of the steps between are left out, and so
    are their entropies.

    :param munchausen_alpha: α in [0, 1], without unit, the factor of the log-policy that is added to the reward; 0 is soft
        DQN
    :param entropy_temperature: τ of at least 1e-30, in units of reward: π = softmax(Q_target / τ). The smaller, the closer to
        DQN's maximum. (SB3's argument ``tau`` is another quantity, the coefficient of the target network's updates)
    :param munchausen_clip: l₀ ≤ 0, in units of reward: τ log π(a|s) is replaced by l₀ where it is smaller
    :raises ValueError: if an argument is out of range; the message names it, its value and what is accepted
    """

    algorithm = "MDQN"
    argument_rules: ClassVar[dict[str, Rule]] = {
        **BaseDQN.argument_rules,
        "munchausen_alpha": UNIT_INTERVAL,
        # Far above denormal numbers, which gradient steps take for 0
        "entropy_temperature": number(1e-30, accepted="a finite number of at least 1e-30"),
        "munchausen_clip": number(-LARGEST, 0.0, "a finite number <= 0"),
    }
    needs_current_target_q_values: ClassVar[bool] = True
    batch_loss: Callable[..., tuple[th.Tensor, th.Tensor]] = staticmethod(munchausen_loss)

    def __init__(
        self,
        *args: Any,
        munchausen_alpha: float = 0.9,
        entropy_temperature: float = 0.03,
        munchausen_clip: float = -1.0,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, _init_setup_model=False, **kwargs)
        self.munchausen_alpha = munchausen_alpha
        self.entropy_temperature = entropy_temperature
        self.munchausen_clip = munchausen_clip

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.uses_action_masks:
            raise UnsupportedError(
                "env must be without action masks for MDQN, whose target needs the mask of s, which replay buffers do not "
                "store. BaseDQN and DQNMSE support them"
            )
        super()._setup_model()

    def loss_coefficients(self) -> tuple[th.Tensor, ...]:
        """α, τ and l₀, float64, [] each."""
        values = (self.munchausen_alpha, self.entropy_temperature, self.munchausen_clip)
        return th.tensor(values, dtype=th.float64, device=self.device).unbind()
