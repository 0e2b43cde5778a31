"""
The updates of ρ and β: the two callbacks that :meth:`sb3_mirl.MIRL.learn` adds, and the step sizes that ``"auto"`` stands for.
:class:`PriorInfluenceCallback` logs how much ρ influences the choice of actions.

To change a rule, subclass a callback, write to ``self.prior`` or ``self.beta`` in place, and pass an instance to
``learn(callback=...)``: it replaces the default one.
"""

import math
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.common.events import GradientStepCallback
from sb3_mirl.mirl.operators import LARGEST_BETA, soft_policy, update_beta, update_beta_normalized, update_prior
from sb3_mirl.mirl.policies import MIRLPolicy


class MIRLCallback(GradientStepCallback):
    """An SB3 callback with access to ρ and β, and with one more event: ``_on_gradient_step``, after each gradient step."""

    #: A MIRL; typed as Any, because the module of MIRL imports this one
    model: Any

    def _init_callback(self) -> None:
        # The policy may be wrapped by th.compile
        if not isinstance(getattr(self.model.policy, "_orig_mod", self.model.policy), MIRLPolicy):
            raise TypeError(f"{type(self).__name__} works with MIRL and its variants, not with {type(self.model).__name__}")

    @property
    def prior(self) -> th.Tensor:
        """ρ, float64 [n_actions], to be changed in place."""
        return self.model.policy.prior

    @property
    def beta(self) -> th.Tensor:
        """β, float64 [], to be changed in place."""
        return self.model.policy.beta


class PriorUpdateCallback(MIRLCallback):
    """
    Updates ρ at each environment step: ρ ← (1 - α_ρ) ρ + α_ρ π(·|s), with the π of the latest actions. Of a table ρ(·|x), only
    the visited rows change. A network ρ(·|x) makes one step of Adam at each gradient step, with the batch of that step.

    With α_ρ = 0, ρ is constant.

    During the warm-up (``learning_starts``) ρ is constant: π is then an artefact of the random initial network.

    :param verbose: 0: no output, 1: info messages
    """

    def _on_step(self) -> bool:
        probabilities = self.model.rollout_action_probabilities
        step_size = self._step_size()
        if probabilities is not None and step_size > 0:
            policy = self.model.policy
            if policy.state_prior is None:
                self.prior.copy_(update_prior(self.prior, probabilities, step_size))
            else:
                # _last_obs are the states of the latest actions: SB3 replaces them after this event
                policy.state_prior.move(policy.obs_to_tensor(self.model._last_obs)[0], probabilities, step_size)
        return True

    def _on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        if self.model.gradient_batch is not None and self._step_size() > 0:
            obs, q_values = self.model.gradient_batch
            policy = self.model.policy
            with th.no_grad():
                probabilities = soft_policy(q_values.double(), policy.reference_prior_at(obs), policy.beta)
            policy.state_prior.fit(obs, probabilities)

    def _step_size(self) -> float:
        step_size = self.model.prior_step_size
        assert step_size is not None  # learn() has resolved it
        return step_size


class BetaUpdateCallback(MIRLCallback):
    """
    Updates β by the model's ``beta_schedule``.

    ``"normalized"``: β ← (1 - α_β) β + α_β k / √L at each gradient step. ``"adaptive"``: β ← (1 - α_β) β + α_β / L at each
    gradient step. ``"linear"``: β = β₀ + ``beta_lr`` · i at the i-th environment transition. ``"constant"``: never. With
    ``reference_n_actions``, β and its limit ``beta_max`` are multiplied by the model's ``beta_factor``.
    """

    def _on_step(self) -> bool:
        model = self.model
        if model.beta_schedule == "linear":
            increase = model.beta_factor * self._step_size() * self.training_env.num_envs
            self.beta.add_(increase).clamp_(max=model.beta_factor * model.beta_max)
        return True

    def _on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        model, factor = self.model, self.model.beta_factor
        largest = factor * model.beta_max
        if model.beta_schedule == "adaptive":
            self.beta.copy_(update_beta(self.beta, squared_td_error.double() / factor, self._step_size(), largest))
        elif model.beta_schedule == "normalized":
            scale = factor * model.beta_scale
            self.beta.copy_(update_beta_normalized(self.beta, squared_td_error, self._step_size(), largest, scale))

    def _step_size(self) -> float:
        step_size = self.model.beta_step_size
        assert step_size is not None  # learn() has resolved it
        return step_size


class PriorInfluenceCallback(MIRLCallback):
    """
    Logs how much ρ, and how much Q, decides what the agent does, as means over some of the latest states:
    ``train/prior_influence``, ``train/value_gap`` and ``train/prior_range``, see :func:`prior_influence`. It changes nothing.

    :param log_freq: steps of the vector environment between two measurements
    :param n_states: steps of the vector environment whose states are in a measurement, equally spaced
    :param verbose: 0: no output, 1: info messages
    :raises ValueError: if ``log_freq`` or ``n_states`` is not a positive integer
    """

    def __init__(self, log_freq: int = 1000, n_states: int = 100, verbose: int = 0) -> None:
        super().__init__(verbose)
        for name, value in (("log_freq", log_freq), ("n_states", n_states)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.log_freq = log_freq
        self.n_states = n_states
        self._values: list[th.Tensor] = []

    def _on_training_start(self) -> None:
        if self.model.uses_action_masks:
            raise ValueError(
                "PriorInfluenceCallback compares all actions: its model must be without action masks, got a model with masks"
            )
        if self.model.policy.state_prior is not None:
            raise ValueError(
                f"PriorInfluenceCallback needs prior_type='marginal', the model has prior_type={self.model.prior_type!r}"
            )
        self._values = []

    def _on_step(self) -> bool:
        if self.n_calls % max(self.log_freq // self.n_states, 1) == 0:
            self._values.append(self.model.policy.q_values(self.model._last_obs))
        # There are no values if the training has just begun
        if self.n_calls % self.log_freq == 0 and self._values:
            self.record(th.cat(self._values))
            self._values = []
        return True

    def record(self, q_values: th.Tensor) -> None:
        """
        Compute the three measurements and log them.

        :param q_values: Q(s, ·) of the latest states, each by the network of its time, [n_states · n_envs, n_actions]
        """
        measured = prior_influence(q_values, self.model.policy.reference_prior, self.beta)
        for name, value in zip(("prior_influence", "value_gap", "prior_range"), measured, strict=True):
            self.logger.record(f"train/{name}", value.item())


def prior_influence(q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """
    How much ρ, and how much Q, decides what the agent does.

    :param q_values: Q(s, ·) of several states, [n_states, n_actions]
    :param prior: ρ, [n_actions]
    :param beta: β, []
    :return: the share of states in which argmaxₐ π(a|s) is not the best action by Q alone; the mean of β (Q of the best action
        - Q of the second best), which differences of log ρ must exceed to change the choice; and the largest log ρ(a) - the
        smallest. All [] float64, over the actions with ρ(a) > 0
    """
    supported = prior > 0
    q_values, prior = q_values.double()[:, supported], prior[supported]
    best = q_values.argmax(dim=1)
    changed = (soft_policy(q_values, prior, beta).argmax(dim=1) != best).double().mean()
    largest = q_values.topk(min(2, len(prior)), dim=1).values
    gap = beta.clamp(max=LARGEST_BETA) * (largest[:, 0] - largest[:, -1]).mean()
    return changed, gap, (prior.max() / prior.min()).log()


def auto_prior_lr(total_timesteps: int) -> float:
    """
    The paper's α_ρ, 2e-6 for 1e7 environment steps, scaled to another length of training.

    :param total_timesteps: environment transitions
    :return: 20 / ``total_timesteps``, at least 2e-6 and at most 1e-2
    """
    return float(np.clip(20 / max(total_timesteps, 1), 2e-6, 1e-2))


def auto_beta_lr(gradient_steps: int) -> float:
    """
    The paper's α_β, 3.3e-6 for 2.5e6 gradient steps, scaled to another length of training. From 275,000 gradient steps on
    the lower limit applies, so that a training as long as the paper's gets nine times the paper's value.

    :param gradient_steps: of the training
    :return: 8.25 / ``gradient_steps``, at least 3e-5 and at most 1e-2
    """
    return float(np.clip(8.25 / max(gradient_steps, 1), 3e-5, 1e-2))


def decoupling_factor(n_actions: int, reference_n_actions: int | None) -> float:
    """
    The factor that converts a β chosen for |A₀| actions into a β for |A| actions. It keeps the largest penalty under a uniform
    ρ, log|A| / β, at its value for |A₀| actions.

    Paper: Mohammadpour, Frejinger and Bacon, *Decoupling regularization from the action space*, ICLR 2024,
    https://arxiv.org/abs/2406.05953, with the static temperature

    :param n_actions: |A|
    :param reference_n_actions: |A₀| ≥ 2, or None
    :return: log|A| / log|A₀|; 1 without |A₀|, and for a single action, where nothing is regularised
    """
    if reference_n_actions is None or n_actions == 1:
        return 1.0
    return math.log(n_actions) / math.log(reference_n_actions)
