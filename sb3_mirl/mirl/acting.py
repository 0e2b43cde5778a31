"""
How MIRL acts, as functions of Q(s, ·): the policy π, draws from distributions, and the module of ONNX files; and
:class:`DrawsFromPolicy`, a model that acts by draws from π.
"""

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
    """Draw an index from each row of ``probabilities``, float64 [batch, n_actions], with NumPy's ``random``; int64 [batch]."""
    cumulative = probabilities.cumsum(dim=1).cpu().numpy()
    # Scaled by the sum, which is 1 up to rounding: each draw is below it, so no action with probability 0 is drawn
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


class DrawsFromPolicy:
    """
    A wrapper of a model whose ``predict`` draws from π(·|s), for SB3's ``evaluate_policy`` or a loop of your own.

    ``MIRL.predict`` itself acts as DQN's does: by argmaxₐ π(a|s), and with ``deterministic=False`` it explores.

    :param model: a :class:`~sb3_mirl.MIRL` or a subclass, such as SQL. The wrapper also gives read access to its attributes
    :raises ValueError: for other models, which have no π(·|s)
    """

    def __init__(self, model: Any) -> None:
        if not hasattr(getattr(model, "policy", None), "sample_policy"):
            raise ValueError(f"model must be MIRL, SQL, SQLDecoupled, SQLm or a subclass, got {type(model).__name__}")
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # while this object is unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Draw with NumPy's global generator.

        :param observation: one, or several with a batch axis
        :param state: is returned as it is
        :param episode_start: has no effect
        :param deterministic: has no effect: actions are always drawn
        :param action_masks: which actions are valid, bool [batch, n_actions] or [n_actions]; None: all
        :return: actions, int64 [batch], or [] for a single observation; and ``state``
        :raises ValueError: for a tuple, or if masks are missing or have another shape
        """
        if isinstance(observation, tuple):
            raise ValueError(f"observation must be the first of what Gymnasium's reset() returns, got a tuple: {observation}")
        observations, vectorized = self.model.policy.obs_to_tensor(observation)
        actions = self.model.policy.sample_policy(observations, action_masks)
        return actions if vectorized else actions.squeeze(axis=0), state
