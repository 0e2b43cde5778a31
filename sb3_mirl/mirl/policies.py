"""
The policies of MIRL: DQN policies with two more buffers, the action prior ρ and the inverse temperature β, and how they act.

ρ and β are buffers so that ``save``, ``load``, ``state_dict`` and ``.to(device)`` treat them like the weights, while no
optimiser sees them. Only the callbacks of :mod:`sb3_mirl.mirl.callbacks` change them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_mirl.common import policies
from sb3_mirl.common.action_masks import checked_masks
from sb3_mirl.common.export.onnx import Acting
from sb3_mirl.common.text import shortened
from sb3_mirl.mirl.acting import SoftActing, draw, soft_actions
from sb3_mirl.mirl.operators import masked_prior, soft_policy
from sb3_mirl.mirl.state_priors import StatePrior

#: What the target and π are regularised towards: the learned ρ, or the uniform distribution.
REGULARIZATIONS = ("mutual_information", "entropy")


#: As :meth:`MIRLPolicy.predict` takes them, or tensors with a batch axis
Observations = PyTorchObs | np.ndarray | dict[str, np.ndarray]


class MIRLPolicy(policies.DQNPolicy):
    """
    DQN's policy, which acts by argmaxₐ π(a|s), π(a|s) ∝ ρ(a) exp(β Q(s,a)), and explores by drawing from ρ.

    It takes the arguments of :class:`~stable_baselines3.dqn.policies.DQNPolicy` and two more.

    :param regularization: ``"mutual_information"``: π is drawn towards the learned ρ;
        ``"entropy"``: towards the uniform distribution, and ρ serves for exploration only
    :param state_prior: ρ(·|x), where ρ depends on a view x of the observation
    """

    onnx_outputs: ClassVar[tuple[str, ...]] = ("action", "probabilities", "q_values")
    #: ρ, float64 [n_actions]: in float32 a step of 2e-6 would be lost
    prior: th.Tensor
    #: β, float64 []
    beta: th.Tensor
    #: ρ(·|x), where ρ depends on a view x of the observation; None where it is :attr:`prior`, the marginal
    state_prior: StatePrior | None
    #: π(·|s) of the latest :meth:`predict`, float64 [batch, n_actions]
    last_action_probabilities: th.Tensor | None = None
    #: The prior in that π, if it depends on the state, float64 [batch, n_actions]
    last_reference_prior: th.Tensor | None = None
    acting: Callable[..., list[th.Tensor]] = staticmethod(soft_actions)

    def __init__(
        self,
        *args: Any,
        regularization: str = "mutual_information",
        state_prior: StatePrior | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.regularization = regularization
        self.state_prior = state_prior
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        uniform = th.full((n_actions,), 1.0 / n_actions, dtype=th.float64, device=self.device)
        self.register_buffer("prior", uniform.clone())
        self.register_buffer("beta", th.tensor(th.inf, dtype=th.float64, device=self.device))
        self.register_buffer("_uniform", uniform, persistent=False)

    @property
    def reference_prior(self) -> th.Tensor:
        """The distribution that target and π are regularised towards, float64 [n_actions]."""
        return self.prior if self.regularization == "mutual_information" else self._uniform  # type: ignore[return-value]

    def prior_probabilities(self, obs: Observations, action_masks: np.ndarray | None = None) -> th.Tensor:
        """
        ρ(·|x), from which exploration draws.

        :param obs: observations as :meth:`predict` takes them, or as tensors with a batch axis (images channel-first)
        :param action_masks: which actions are valid, bool [batch, n_actions]; None: all
        :return: float64 [batch, n_actions], rows sum to 1
        """
        with th.no_grad():
            tensors = self._as_tensors(obs)
            prior = self._restricted_prior(
                self.prior if self.state_prior is None else None, tensors, self._as_masks(action_masks)
            )
            return prior.expand(len(next(iter(tensors.values())) if isinstance(tensors, dict) else tensors), -1)

    def reference_prior_at(
        self, obs: PyTorchObs, action_masks: th.Tensor | None = None, marginal: th.Tensor | None = None
    ) -> th.Tensor:
        """
        The distribution that target and π are regularised towards.

        :param obs: observations as the network takes them
        :param action_masks: which actions are valid, bool [batch, n_actions]; None: all
        :param marginal: in place of :attr:`reference_prior` where ρ does not depend on the observation, [n_actions]
        :return: float64 [n_actions] if it is the same everywhere, else [batch, n_actions]
        """
        prior = self.reference_prior if marginal is None else marginal
        sees_state = self.state_prior is not None and self.regularization == "mutual_information"
        return self._restricted_prior(None if sees_state else prior, obs, action_masks)

    def _restricted_prior(self, prior: th.Tensor | None, obs: PyTorchObs, action_masks: th.Tensor | None) -> th.Tensor:
        """``prior``, or ρ(·|x) if ``prior`` is None, restricted to the valid actions."""
        if prior is None:
            prior = self.state_prior(obs)  # type: ignore[misc]
        return prior if action_masks is None else masked_prior(prior, action_masks)

    def action_probabilities(self, obs: Observations, action_masks: np.ndarray | None = None) -> th.Tensor:
        """
        π(·|s).

        :param obs: observations as :meth:`predict` takes them, or as tensors with a batch axis (images channel-first)
        :param action_masks: which actions are valid, bool [batch, n_actions]; None: all
        :return: [batch, n_actions] in the dtype of the network, rows sum to 1
        """
        self.check_masks_are_given(action_masks)
        with th.no_grad():
            tensors = self._as_tensors(obs)
            prior = self.reference_prior_at(tensors, self._as_masks(action_masks))
            return soft_policy(self.q_values(tensors), prior, self.beta)

    def latest_distributions(
        self, obs: Observations, n_observations: int, action_masks: np.ndarray | None
    ) -> tuple[th.Tensor, th.Tensor | None]:
        """
        The distributions of the latest :meth:`predict` of these observations, recomputed if a subclass stored none.

        :return: π(·|s), float64 [batch, n_actions], and its prior, of the same shape; the prior may be None without masks
        """
        probabilities, prior = self.last_action_probabilities, self.last_reference_prior
        if probabilities is None or len(probabilities) != n_observations:
            probabilities, prior = self.action_probabilities(obs, action_masks).double(), None
        if prior is None and action_masks is not None:
            prior = self.reference_prior_at(self._as_tensors(obs), self._as_masks(action_masks))
        return probabilities, prior

    def q_values(self, obs: Observations) -> th.Tensor:
        """
        Q(s, ·), without gradient.

        :param obs: as :meth:`action_probabilities` takes them
        :return: [batch, n_actions] in the dtype of the network, in units of reward
        """
        with self._evaluation_mode(), th.no_grad():
            return self.q_net(self._as_tensors(obs))

    def sample_policy(self, obs: Observations, action_masks: np.ndarray | None = None) -> np.ndarray:
        """
        Actions drawn from π(·|s) with NumPy's global generator. :meth:`MIRL.predict` does not draw from π: its actions are
        argmaxₐ π(a|s), replaced by draws from ρ with probability ε.

        :param obs: as :meth:`action_probabilities` takes them
        :param action_masks: as there
        :return: one action for each observation, int64 [batch]
        """
        return self.to_env_actions(draw(self.action_probabilities(obs, action_masks).double(), np.random))

    def _as_tensors(self, obs: Observations) -> PyTorchObs:
        first = next(iter(obs.values())) if isinstance(obs, dict) else obs
        return obs if isinstance(first, th.Tensor) else self.obs_to_tensor(obs)[0]  # type: ignore[arg-type, return-value]

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """The network in evaluation mode, and back in the mode that it was in."""
        training = self.training
        self.set_training_mode(False)
        try:
            yield
        finally:
            if training:
                self.set_training_mode(True)

    def _apply(self, fn: Callable[[th.Tensor], th.Tensor], recurse: bool = True) -> "MIRLPolicy":
        # policy.float() must not make ρ and β float32: only their device changes
        exact = {name: self._buffers[name] for name in ("prior", "beta", "_uniform")}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            self._buffers[name] = buffer.to(self._buffers[name].device)  # type: ignore[union-attr]
        return self

    def _as_masks(self, action_masks: np.ndarray | None) -> th.Tensor | None:
        if action_masks is not None:
            masks = np.atleast_2d(np.asarray(action_masks))
            action_masks = checked_masks(masks, (len(masks), len(self.prior)))
        return None if action_masks is None else th.as_tensor(action_masks, device=self.device)

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        if self.state_prior is None and self.action_masks is None:
            self.last_action_probabilities, actions = self.compute_acting(obs, self.reference_prior, self.beta)
        else:
            # Not compiled: the compiled function needs tensors at fixed addresses in memory, and this ρ is a new tensor
            self.last_reference_prior = prior = self.reference_prior_at(obs, self.action_masks)
            self.last_action_probabilities, actions = self.acting(self.q_net(obs), prior, self.beta)
        return actions

    def sample_prior(
        self,
        shape: tuple[int, ...],
        random: Any = np.random,
        obs: Observations | None = None,
        action_masks: np.ndarray | None = None,
    ) -> np.ndarray:
        """
        Draw actions of the environment from ρ, int64.

        :param shape: the shape of the result
        :param random: an ``np.random.RandomState``; NumPy's global generator, which ``set_random_seed`` seeds, unless given
        :param obs: observations, one for each action; needed where ρ depends on them
        :param action_masks: which actions are valid, bool [batch, n_actions]; None: all
        """
        self.check_masks_are_given(action_masks)
        if self.state_prior is not None or action_masks is not None:
            if obs is None:
                raise ValueError("obs must be observations if the prior depends on them or with action_masks, got None")
            return self.to_env_actions(draw(self.prior_probabilities(obs, action_masks), random)).reshape(shape)
        prior = self.prior.cpu().numpy()
        # The same draws as random.choice(len(prior), shape, p=prior / prior.sum()), but faster. ρ is checked and normalised
        # here, because set_parameters() or a user's callback may have set it
        cumulative = (prior / prior.sum()).cumsum()
        if not (prior.min() >= 0 and 0 < cumulative[-1] < np.inf):
            raise ValueError(f"The prior must be non-negative numbers with a positive sum, got {shortened(prior.tolist())}")
        cumulative /= cumulative[-1]
        return self.to_env_actions(cumulative.searchsorted(random.random_sample(shape), side="right"))

    def explore(
        self,
        actions: np.ndarray,
        epsilon: float,
        obs: Observations | None = None,
        action_masks: np.ndarray | None = None,
    ) -> np.ndarray:
        """
        The paper's behaviour policy: each action is replaced by a draw from ρ with probability ε.

        :param actions: the actions without exploration, any shape; each is replaced independently
        :param epsilon: ε
        :param obs: observations, one for each action; needed where ρ depends on them
        :param action_masks: which actions are valid, bool [batch, n_actions]; None: all
        :return: actions of the same shape
        """
        exploring = np.random.random(actions.shape) < epsilon
        if exploring.any():
            seen: dict[str, Any] = {} if obs is None and action_masks is None else {"obs": obs, "action_masks": action_masks}
            actions = np.where(exploring, self.sample_prior(actions.shape, **seen), actions)
        return actions

    def check_loaded_state(self) -> None:
        """Check ρ and β of an exported file."""
        prior, beta = self.prior.tolist(), self.beta.item()
        if not all(probability >= 0 for probability in prior) or not abs(sum(prior) - 1) <= 1e-6:
            raise ValueError(f"policy.prior must be non-negative numbers that sum to 1, the file has {shortened(prior)}")
        if not beta >= 0:
            raise ValueError(f"policy.beta must be at least 0, the file has {beta}")
        if self.state_prior is not None:
            self.state_prior.check_loaded_state()

    def onnx_module(self) -> Acting:
        """The function of the ONNX file: observations → actions, π(·|s), Q(s, ·)."""
        return SoftActing(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own: dict[str, Any] = {"regularization": self.regularization}
        own |= {} if self.state_prior is None else {"state_prior": self.state_prior}
        return {**super()._get_constructor_parameters(), **own}


MlpPolicy = MIRLPolicy


class CnnPolicy(MIRLPolicy, policies.CnnPolicy):
    """:class:`MIRLPolicy` for images: ``features_extractor_class`` is NatureCNN unless given."""


class MultiInputPolicy(MIRLPolicy, policies.MultiInputPolicy):
    """:class:`MIRLPolicy` for Dict observations: ``features_extractor_class`` is CombinedExtractor unless given."""


POLICY_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
}
