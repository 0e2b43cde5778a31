"""
The algorithms: :class:`MIRL`, and :class:`SQL`, :class:`SQLDecoupled` and :class:`SQLm`, which are MIRL with other defaults.

Methods have the order of ``stable_baselines3/dqn/dqn.py``: a diff of both files shows what MIRL changes.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.events import GradientStepCallback
from sb3_mirl.common.gradient import without_denormals
from sb3_mirl.common.inputs import Rule
from sb3_mirl.mirl import arguments
from sb3_mirl.mirl.callbacks import BetaUpdateCallback, PriorUpdateCallback, auto_beta_lr, auto_prior_lr
from sb3_mirl.mirl.loss import soft_td_loss
from sb3_mirl.mirl.operators import kl_divergence, soft_policy
from sb3_mirl.mirl.policies import POLICY_ALIASES, MIRLPolicy
from sb3_mirl.mirl.regularized import RegularizedDQN
from sb3_mirl.mirl.tensorboard import write_layout


class MIRL(RegularizedDQN):
    """
    Soft Q-learning with mutual-information regularisation.

    Paper: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019,
    https://openreview.net/forum?id=HyEtjoCqFX

    It is DQN with the maximum in the target replaced by β⁻¹ log Σₐ ρ(a) exp(β Q(s',a)). The action prior ρ follows the
    marginal of the policy over visited states, and the inverse temperature β the inverse of the root mean squared TD error
    (in the paper, of the mean squared one).

    It takes the arguments of :class:`~sb3_mirl.common.dqn.BaseDQN`, whose defaults are those of DQN, and the ones below.
    :data:`~sb3_mirl.PAPER_ATARI` holds the paper's values for Atari. With ``n_steps > 1`` the target omits the penalties
    KL(π‖ρ)/β of the n_steps - 1 intermediate steps.

    With action masks ρ is restricted to the valid actions of a state: ρ(a|s) ∝ ρ(a) · mask(a,s). If ρ has no mass on them,
    ρ(·|s) is uniform over them. ρ(a) follows the average policy, as without masks. That ρ is not optimal for a fixed policy:
    the optimal ρ satisfies ρ(a) ∝ E[π(a|s)] / E[mask(a,s) / Σ_b ρ(b) mask(b,s)]. The logged ``train/kl`` is the mean over the
    latest states of the environments, because the replay buffer has no masks of s. It does not estimate a mutual information.

    :param prior_lr: α_ρ in [0, 1], the step of ρ per environment transition; 0 keeps ρ fixed. ``"auto"``: 20 divided by the
        ``total_timesteps`` of the first :meth:`learn`, see :func:`~sb3_mirl.mirl.callbacks.auto_prior_lr`
    :param prior_init: the first ρ, [n_actions] or, for a table ρ(a|x), [n_x, n_actions], non-negative and summing to 1; by
        default uniform. With ``"mutual_information"`` an action that has 0 here is never tried nor used in the target.
        :func:`~sb3_mirl.load_prior` reads the prior of another model, of any kind
    :param beta_schedule: ``"normalized"``: β follows ``beta_scale`` / √L with L the mean squared TD error, so that the unit of
        rewards does not matter; ``"adaptive"``: β follows 1/L (paper, Atari), for clipped or normalised rewards; ``"linear"``:
        β = β₀ + ``beta_lr`` · i at the i-th environment transition (paper, grid worlds); ``"constant"``: β = β₀
    :param beta_init: β₀ ≥ 0 in 1/reward; ∞ is allowed for ``"constant"``. ``beta_init`` and ``prior_init`` are for new models
        only: a loaded model continues with the β and ρ of its file
    :param beta_lr: α_β in [0, 1] per gradient step for ``"normalized"`` and ``"adaptive"``; the increase of β per environment
        transition for ``"linear"``. ``"auto"``: 8.25 divided by the gradient steps of the first :meth:`learn`, see
        :func:`~sb3_mirl.mirl.callbacks.auto_beta_lr`; not for ``"linear"``
    :param beta_scale: k > 0 of ``"normalized"``, dimensionless; a larger k regularises less
    :param beta_max: the largest β that schedules may reach
    :param reference_n_actions: |A₀| ≥ 2, the number of actions for which β was chosen. The β of every schedule is multiplied
        by :func:`~sb3_mirl.mirl.callbacks.decoupling_factor`. None: no factor
    :param regularization: ``"mutual_information"``: target and π use the learned ρ; ``"entropy"``: they use the uniform
        distribution, as in soft Q-learning, and ρ serves for exploration only
    :param prior_type: ``"marginal"``: ρ(a); ``"conditional"``: ρ(a|x), where x = g(s) is what ``prior_observation`` names;
        ``"skills"``: Σ_z ρ(z|x_H) ρ(a|z, x_L), a mixture of ``n_skills`` skills. See :mod:`sb3_mirl.mirl.skills`
    :param prior_observation: keys of a Dict observation; a slice or a list of indices of a vector; ``"all"``; or a function,
        see :class:`~sb3_mirl.mirl.views.View`. For skills ``{"high": ..., "low": ...}``; None: the level does not depend on s
    :param n_skills: K ≥ 1, for skills
    :param prior_kwargs: ``n_values`` of functions that return integers (for skills by level); for a continuous x ``net_arch``
        and ``learning_rate`` of its network, [64, 64] and 1e-3; for skills ``concentration`` of their first draws, 10
    :raises ValueError: if an argument is out of range; the message names it, its value and what is accepted
    """

    algorithm = "MIRL"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = POLICY_ALIASES
    base_policy: ClassVar[type[BasePolicy]] = MIRLPolicy
    argument_rules: ClassVar[dict[str, Rule]] = {**BaseDQN.argument_rules, **arguments.ARGUMENT_RULES}
    exported_attributes: ClassVar[dict[str, Rule]] = arguments.RESOLVED_RULES
    default_callbacks: ClassVar[tuple[type[GradientStepCallback], ...]] = (PriorUpdateCallback, BetaUpdateCallback)
    batch_loss: Callable[..., tuple[th.Tensor, th.Tensor]] = staticmethod(soft_td_loss)

    def __init__(
        self,
        policy: str | type[MIRLPolicy],
        env: GymEnv | str,
        *args: Any,
        prior_lr: float | str = "auto",
        prior_init: np.ndarray | list[float] | dict[str, Any] | None = None,
        beta_schedule: str = "normalized",
        beta_init: float = 0.01,
        beta_lr: float | str = "auto",
        beta_scale: float = 30.0,
        beta_max: float = 1e4,
        reference_n_actions: int | None = None,
        regularization: str = "mutual_information",
        prior_type: str = "marginal",
        prior_observation: Any = None,
        n_skills: int | None = None,
        prior_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, _init_setup_model=False, **kwargs)
        self.prior_lr = prior_lr
        self.prior_init = prior_init
        self.beta_schedule = beta_schedule
        self.beta_init = beta_init
        self.beta_lr = beta_lr
        self.beta_scale = beta_scale
        self.beta_max = beta_max
        self.reference_n_actions = reference_n_actions
        self.regularization = regularization
        self.prior_type = prior_type
        self.prior_observation = prior_observation
        self.n_skills = n_skills
        self.prior_kwargs = prior_kwargs
        # The step sizes that the first learn() computed for "auto"; None before
        self.resolved_prior_lr: float | None = None
        self.resolved_beta_lr: float | None = None
        # Of the latest actions, [n_envs, n_actions]: π(·|s), None during the warm-up, and its prior if it depends on the state
        self.rollout_action_probabilities: th.Tensor | None = None
        self.rollout_prior: th.Tensor | None = None

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.prior_type == "marginal" and self.prior_init is not None:
            prior = th.as_tensor(np.asarray(self.prior_init, dtype=np.float64))
            self.policy.prior.copy_(prior / prior.sum())
        self.policy.beta.fill_(self.beta_factor * self.beta_init)

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(total_timesteps, *args, **kwargs)
        if total_timesteps > 0 and self.prior_step_size is None:
            self.resolved_prior_lr = auto_prior_lr(total_timesteps)
        if total_timesteps > 0 and self.beta_step_size is None:
            self.resolved_beta_lr = auto_beta_lr(self.count_gradient_steps(total_timesteps))
        write_layout(self.logger, self.logs_prior)
        return result

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        masks = self.get_action_masks()
        # Without masks the argument is left out, because the predict() of a subclass may not have it
        masked = {} if masks is None else {"action_masks": masks}
        if self.num_timesteps < learning_starts:
            # Warm-up: ρ does not follow the π of a random initial network
            self.rollout_action_probabilities = None
            actions = self.policy.sample_prior((n_envs,), **self.prior_inputs(self._last_obs, masks))
        else:
            self.policy.last_action_probabilities = self.policy.last_reference_prior = None
            actions, _ = self.predict(self._last_obs, deterministic=False, **masked)  # type: ignore[arg-type]
            # Read now, because an evaluation in a callback overwrites them: it uses the same policy object
            latest = self.policy.latest_distributions(self._last_obs, n_envs, masks)  # type: ignore[arg-type]
            self.rollout_action_probabilities, self.rollout_prior = latest
        # The network's actions count from 0
        return actions, actions - self.action_space.start  # type: ignore[attr-defined]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Return argmaxₐ π(a|s). Unless ``deterministic``, each action is replaced by a draw from ρ with probability ε, as in the
        paper. Arguments and results are those of DQN. To draw actions from π, use ``policy.sample_policy(observation)``.

        :param action_masks: which actions are valid, bool [n_envs, n_actions], or [n_actions] for a single observation. None:
            all; a model that was trained with masks needs them
        :raises ValueError: if masks are missing or not valid
        """
        masked = {} if action_masks is None else {"action_masks": action_masks}
        actions, state = self.policy.predict(observation, state, episode_start, deterministic, **masked)
        if not deterministic:
            actions = self.policy.explore(actions, self.exploration_rate, **self.prior_inputs(observation, action_masks))
        return actions, state

    def loss_coefficients(self) -> tuple[th.Tensor, ...]:
        """ρ of the target, float64 [n_actions], and β, float64 []; a subclass may add others."""
        return self.policy.reference_prior, self.policy.beta

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Sample the replay buffer and do the updates. ρ and β change only in :meth:`learn`, whose callbacks update them.

        The logged ``train/kl`` is the mean of KL(π(·|s)‖ρ(·|x)). It estimates the mutual information I(S;A), and with ρ(·|x)
        the conditional one, I(S;A|X).

        :param gradient_steps: number of gradient steps
        :param batch_size: transitions per gradient step
        :raises ValueError: if a loss was not finite
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        self._update_learning_rate(self.policy.optimizer)

        marginal, beta, *more = self.loss_coefficients()
        losses, q_values = [], []
        for gradient_step in range(gradient_steps):
            # Sample replay buffer
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            # For n-step replay, discount factor is gamma**n_steps (when no early termination)
            discounts = replay_data.discounts if replay_data.discounts is not None else self.gamma
            next_masks = self.next_action_masks(replay_data)
            with th.no_grad():
                # ρ at s'
                prior = self.policy.reference_prior_at(replay_data.next_observations, next_masks, marginal)

            with without_denormals(self.policy.optimizer, self._n_updates + gradient_step):
                # Optimize the policy, with the loss of soft_td_loss
                self.policy.optimizer.zero_grad()
                loss, squared_td_error, batch_q_values = self._compute_gradient(replay_data, discounts, prior, beta, *more)
                # Clip gradient norm
                th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            losses.append(loss)
            q_values.append(batch_q_values)
            if self.policy.state_prior is not None and self.policy.state_prior.learns_from_batches:
                self.gradient_batch = replay_data.observations, batch_q_values
            # β follows the error of this batch
            self._after_gradient_step(squared_td_error)

        # Increase update counter
        self._n_updates += gradient_steps
        self.gradient_batch = None

        if losses:
            # KL(π‖ρ) of the last batch. With masks, of the latest actions: the buffer has no masks of s
            if next_masks is None:
                if self.policy.state_prior is not None:
                    with th.no_grad():
                        prior = self.policy.reference_prior_at(replay_data.observations)
                kl = {"kl": kl_divergence(soft_policy(q_values[-1], prior, beta), prior).mean()}
            else:
                policy, reference = self.rollout_action_probabilities, self.rollout_prior
                kl = {} if policy is None else {"kl": kl_divergence(policy, reference).mean()}  # type: ignore[arg-type]
            self._log_training(losses, q_values, beta=beta, **kl)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "rollout_action_probabilities", "rollout_prior"]


class SQL(MIRL):
    """
    Soft Q-learning: :class:`MIRL` with a uniform, fixed ρ. The defaults of ``prior_lr`` and ``regularization`` differ.

    Its target is the normalised one, β⁻¹ log (1/n) Σₐ exp(β Q(s',a)). Without 1/n each step would add log(n)/β.
    """

    algorithm = "SQL"

    def __init__(self, *args: Any, prior_lr: float | str = 0.0, regularization: str = "entropy", **kwargs: Any) -> None:
        prior_type = kwargs.get("prior_type", "marginal")
        if prior_type != "marginal":
            raise ValueError(f"prior_type must be 'marginal' for {self.algorithm}, got {prior_type!r}: use SQLm or MIRL")
        super().__init__(*args, prior_lr=prior_lr, regularization=regularization, **kwargs)


class SQLDecoupled(SQL):
    """:class:`SQL` with a temperature that depends on the number of actions: by default β is multiplied by log₂|A|."""

    algorithm = "SQLDecoupled"

    def __init__(self, *args: Any, reference_n_actions: int | None = 2, **kwargs: Any) -> None:
        super().__init__(*args, reference_n_actions=reference_n_actions, **kwargs)


class SQLm(MIRL):
    """The paper's ablation SQL_m: :class:`MIRL` with target and π of :class:`SQL`; the learned ρ is for exploration only."""

    algorithm = "SQLm"

    def __init__(self, *args: Any, regularization: str = "entropy", **kwargs: Any) -> None:
        super().__init__(*args, regularization=regularization, **kwargs)
