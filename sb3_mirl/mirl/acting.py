"""How MIRL acts, as functions of Q(s, ·): the policy π, draws from distributions, and the module of ONNX files."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_mirl.common.export.onnx import Acting
from sb3_mirl.mirl.operators import LARGEST_BETA, SMALLEST_BETA, masked_prior, soft_policy


def soft_actions(q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor) -> list[th.Tensor]:
    """π(·|s), float64 [batch, n_actions], and argmaxₐ π(a|s), [batch]."""
    # In float64, because a float32 π would take ρ off the simplex
    probabilities = soft_policy(q_values.detach().double(), prior, beta)
    return [probabilities, probabilities.argmax(dim=1)]


def draw(probabilities: th.Tensor, random: Any) -> np.ndarray:
    """One index for each row of float64 [batch, n_actions], int64 [batch]."""
    cumulative = probabilities.cumsum(dim=1).cpu().numpy()
    # Scaled by the sum, which is 1 but for rounding; strictly below it, so that no action with probability 0 is drawn
    draws = random.random_sample((len(cumulative), 1)) * cumulative[:, -1:]
    return (cumulative > draws).argmax(axis=1)


class SoftActing(Acting):
    """
    Observations → argmaxₐ π(a|s), π(·|s) and Q(s, ·), for ONNX files.

    :param policy: the policy, whose ρ and β are copied
    """

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.register_buffer("prior", policy.reference_prior.clone())
        learned = policy.regularization == "mutual_information"
        self.state_prior = policy.state_prior if learned else None
        # Clamped here: ONNX's exporter rounds the limits inside soft_policy to float32, that is to 0 and ∞
        self.register_buffer("beta", policy.beta.clamp(SMALLEST_BETA, LARGEST_BETA))

    def outputs(self, q_values: th.Tensor, obs: PyTorchObs, masks: th.Tensor | None = None) -> tuple[th.Tensor, ...]:
        """Actions [batch], π(·|s) and Q(s, ·), both [batch, n_actions]; masks as in :class:`Acting`."""
        prior = self.prior if self.state_prior is None else self.state_prior(obs)
        prior = prior if masks is None else masked_prior(prior, masks)  # type: ignore[arg-type]
        probabilities = soft_policy(q_values.double(), prior, self.beta)  # type: ignore[arg-type]
        return probabilities.argmax(dim=1) + self.first_action, probabilities, q_values
