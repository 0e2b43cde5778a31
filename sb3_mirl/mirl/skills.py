"""
A prior that is a mixture of skills: :class:`Skills`, a ρ(·|x) with a discrete latent variable.

Source: Tirumala et al., *Exploiting hierarchy for learning and transfer in KL-regularized RL*, 2019,
https://arxiv.org/abs/1903.07438. This module has their bound for a discrete latent that is drawn anew in each step. Latents
that persist over time and continuous latents are not implemented.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_mirl.common.text import shortened
from sb3_mirl.mirl.operators import update_prior
from sb3_mirl.mirl.state_priors import StatePrior, mean_entropy, uniform_table
from sb3_mirl.mirl.views import View


class Skills(StatePrior):
    """
    ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z, x_L), a mixture of K skills z with two views of the observation, both discrete.

    Each update is one step of expectation-maximisation. The E-step computes the posterior of the skill, ρ(z|a,x), which gives
    π(z,a|s) = π(a|s) ρ(z|a,x) ∝ ρ(z|x_H) ρ(a|z,x_L) exp(β Q(s,a)). The M-step moves ρ(z|x_H) towards π(z|s) with the step α_ρ,
    and ρ(a|z,x_L) towards π(a|z,s) with the step α_ρ π(z|s): the running averages of Algorithm 1.

    Skills stay equal for ever if their low levels are equal and the high level is the same for all x_H. Therefore the low
    level begins with Dirichlet draws, if there are several skills.

    :param high: the view x_H of the choice of the skill
    :param low: the view x_L of the skill
    :param n_skills: K
    :param n_actions: the number of actions
    :param seed: of the draws; None: a random one
    :param concentration: of the Dirichlet distribution, for each action; the larger, the more uniform
    :raises ValueError: if a table would be too large
    """

    parts = ("high", "low")
    high: th.Tensor
    low: th.Tensor

    def __init__(
        self,
        high: View,
        low: View,
        n_skills: int,
        n_actions: int,
        seed: int | None = None,
        concentration: float = 10.0,
    ) -> None:
        super().__init__()
        self.high_view, self.low_view = high, low
        self.register_buffer("high", uniform_table(high.name, _n_values(high), n_skills))
        self.register_buffer("low", uniform_table(low.name, n_skills, _n_values(low), n_actions))
        if n_skills > 1:
            draws = np.random.default_rng(seed).dirichlet(np.full(n_actions, concentration), self.low.shape[:2])
            self.low.copy_(th.as_tensor(draws))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """ρ(·|x), float64 [batch, n_actions]."""
        return self._joint(obs).sum(dim=1)

    def _joint(self, obs: PyTorchObs) -> th.Tensor:
        """ρ(z, a|x), [batch, n_skills, n_actions]."""
        low = self.low[:, self.low_view(obs)].transpose(0, 1)
        return self.high[self.high_view(obs)].unsqueeze(2) * low

    def skill_probabilities(self, obs: PyTorchObs, policy: th.Tensor) -> th.Tensor:
        """
        π(z,a|s) = π(a|s) ρ(z|a,x). Where ρ(a|x) = 0, ρ(z|x_H) stands for ρ(z|a,x).

        :param obs: observations as the network takes them
        :param policy: π(·|s), float64 [batch, n_actions]
        :return: float64 [batch, n_skills, n_actions]
        """
        joint = self._joint(obs)
        total = joint.sum(dim=1, keepdim=True)
        posterior = th.where(total > 0, joint / total, self.high[self.high_view(obs)].unsqueeze(2))
        return policy.unsqueeze(1) * posterior

    def start_from(self, parts: Mapping[str, Any]) -> None:
        """As for all priors; also raises ValueError if the skills could never become different."""
        super().start_from(parts)
        if "low" not in parts or len(self.low) == 1:
            return
        low, high = np.asarray(parts["low"]), np.atleast_2d(parts.get("high", 1.0))
        if (low.shape != tuple(self.low.shape) or (low == low[0]).all()) and (high == high[0]).all():
            raise ValueError(
                "prior_init: low must differ between skills, or high between the values of x_H, because otherwise the skills "
                f"stay equal, got {shortened(low.tolist())}"
            )

    def move(self, obs: PyTorchObs, policy: th.Tensor, step_size: float) -> None:
        """One step of expectation-maximisation."""
        joint = self.skill_probabilities(obs, policy)
        high, low = self.high_view(obs), self.low_view(obs)
        for value in high.unique().tolist():
            self.high[value] = update_prior(self.high[value], joint[high == value].sum(dim=2), step_size)
        for value in low.unique().tolist():
            self.low[:, value] = _update_skills(self.low[:, value], joint[low == value], step_size)

    def logged_values(self) -> dict[str, float]:
        """Mean entropies of ρ(a|z, x_L) and of ρ(z|x_H), in nats."""
        return {"prior_entropy": mean_entropy(self.low), "skill_entropy": mean_entropy(self.high)}


def _update_skills(low: th.Tensor, joint: th.Tensor, step_size: float) -> th.Tensor:
    """
    :func:`~sb3_mirl.mirl.operators.update_prior` for each skill, with the step α_ρ π(z|s) towards π(a|z,s).

    :param low: ρ(a|z, x_L) of one x_L, [n_skills, n_actions]
    :param joint: π(z,a|s) of k states with that x_L, [k, n_skills, n_actions]
    :param step_size: α_ρ in [0, 1], per state
    """
    weights = joint.sum(dim=2)
    steps = 1.0 - (1.0 - step_size * weights).prod(dim=0)
    policies = joint.sum(dim=0) / weights.sum(dim=0).unsqueeze(1)
    moved = th.lerp(low, policies, steps.unsqueeze(1))
    total = moved.sum(dim=1, keepdim=True)
    # ρ stays as it was for an unused skill (0/0), and if the policy is not finite
    return th.where(total.isfinite(), moved / total, low)


def _n_values(view: View) -> int:
    if view.n_values is None:
        raise ValueError(
            f"{view.name} must be discrete with prior_type='skills' (entries of a Discrete or MultiDiscrete space, or a "
            "function that returns integers), got a continuous view"
        )
    return view.n_values
