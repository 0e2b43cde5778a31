"""
The algorithms: :class:`MIRL`, and :class:`SQL` and :class:`SQLm`, which are MIRL with other defaults.

Read it beside ``stable_baselines3/dqn/dqn.py``: what is the same there is the same here, in the same order.
"""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TrainFrequencyUnit
from stable_baselines3.dqn.dqn import DQN
from torch.nn import functional as F

from sb3_mirl.common.export.load import load_model
from sb3_mirl.common.export.onnx import write_onnx
from sb3_mirl.common.export.values import subclasses_in
from sb3_mirl.common.export.writer import export_model
from sb3_mirl.common.gradient import CompiledGradient, check_compiler, clear_tiny_averages, flushed_denormals
from sb3_mirl.common.inputs import (
    LARGEST_FLOAT32,
    LARGEST_SQUARED,
    RULES,
    UnsupportedError,
    check_action_space,
    check_arguments,
    check_integer,
    check_observation_space,
    check_observations,
    check_rewards,
    check_scheduled_learning_rate,
    check_terminal_observation,
    has_small_image,
    is_class,
)
from sb3_mirl.common.learning_curve import add_return, new_curve
from sb3_mirl.common.resume.checkpoints import Checkpoint, new_run_id
from sb3_mirl.common.text import printable, shortened
from sb3_mirl.mirl import policies
from sb3_mirl.mirl.callbacks import (
    BetaUpdateCallback,
    MIRLCallback,
    PriorUpdateCallback,
    RolloutEvents,
    find_action_names,
    flatten,
    inside_of_events,
)
from sb3_mirl.mirl.operators import kl_divergence, soft_policy, soft_td_target
from sb3_mirl.mirl.policies import CnnPolicy, MIRLPolicy, MlpPolicy, MultiInputPolicy, SoftActing

SelfMIRL = TypeVar("SelfMIRL", bound="MIRL")

#: The paper's values for Atari as far as they are known, see the README: ``MIRL("CnnPolicy", env, **PAPER_ATARI)``
PAPER_ATARI: dict[str, Any] = {
    "learning_rate": 2e-5,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "batch_size": 32,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
    "max_grad_norm": 10,
    "prior_lr": 2e-6,
    "beta_schedule": "adaptive",
    "beta_init": 0.01,
    "beta_lr": 3.3e-6,
    "loss": "mse",
}

# With more actions than this, ρ is not logged entry by entry
MAX_LOGGED_ACTIONS = 32
# Attributes that belong to one call of learn()
_OF_ONE_LEARN = ("_gradient_step_callbacks", "_callbacks", "_num_timesteps_at_start", "_total_timesteps")
# With train_freq in episodes, training ends with one: so many steps are waited for it
LONGEST_LAST_EPISODE = 100_000


class MIRL(DQN):
    """
    Soft Q-learning with mutual-information regularisation.

    Paper: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019,
    https://openreview.net/forum?id=HyEtjoCqFX

    It is DQN with the maximum in the target replaced by β⁻¹ log Σₐ ρ(a) exp(β Q(s',a)), where the action prior ρ follows
    the marginal of the policy over visited states and the inverse temperature β follows 1 / (mean squared TD error).

    What MIRL shares with DQN has DQN's defaults. The paper's values for Atari are :data:`PAPER_ATARI`:
    ``MIRL("CnnPolicy", env, **PAPER_ATARI)``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of
        :class:`~sb3_mirl.mirl.policies.MIRLPolicy`
    :param env: the environment, or its id; its action space is Discrete. Where that starts at another number than 0, actions
        are the environment's own everywhere, and ``prior[0]`` is of the first of them
    :param learning_rate: of the optimiser; a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: transitions in the replay buffer
    :param learning_starts: environment steps before learning, in which actions are drawn from ρ
    :param batch_size: of a gradient step
    :param tau: Polyak coefficient of the target network's update; 1 copies
    :param gamma: discount factor
    :param train_freq: learn every so many steps, or ``(n, "step" | "episode")``
    :param gradient_steps: gradient steps each time; -1: as many as environment steps since the last time
    :param replay_buffer_class: by default chosen by observation space and ``n_steps``
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: SB3's memory-saving variant of the replay buffer
    :param n_steps: length of the n-step return. SB3's buffer sums rewards only: with ``n_steps > 1`` the divergences
        KL(π‖ρ)/β of the steps between are left out of the target
    :param target_update_interval: environment steps between two updates of the target network
    :param exploration_fraction: fraction of the training in which ε falls
    :param exploration_initial_eps: first ε
    :param exploration_final_eps: last ε
    :param max_grad_norm: bound on the norm of the gradient
    :param stats_window_size: episodes in the logged averages
    :param tensorboard_log: folder for TensorBoard logs
    :param policy_kwargs: arguments of the policy
    :param verbose: 0: no output, 1: info messages, 2: debug messages
    :param seed: of the pseudo-random generators
    :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
    :param prior_lr: α_ρ in [0, 1], the step of ρ per environment transition; 0 keeps ρ fixed. ``"auto"`` scales the paper's
        memory, 5e5 of 1e7 transitions, to the length of the first :meth:`learn`: 20 / ``total_timesteps``, between 2e-6 and
        1e-2, see :func:`auto_prior_lr`
    :param prior_init: the first ρ, [n_actions], non-negative and summing to 1; by default uniform. With
        ``"mutual_information"``, an action that has 0 here is never tried nor used in the target.
        :func:`~sb3_mirl.load_prior` reads that of another model
    :param beta_schedule: ``"normalized"``: β follows ``beta_scale`` / √L with L the mean squared TD error, so that a change of
        the rewards' unit changes nothing; ``"adaptive"``: β follows 1/L (paper, Atari), for clipped or normalised rewards;
        ``"linear"``: β = β₀ + ``beta_lr`` · i at the i-th environment transition (paper, grid worlds), whatever ``learn`` is
        called how often; ``"constant"``: β = β₀
    :param beta_init: β₀ ≥ 0 in 1/reward; ∞ is allowed for ``"constant"``. Like ``prior_init`` it is for new models: a loaded
        one goes on with the β and ρ of its file
    :param beta_lr: α_β in [0, 1] per gradient step for ``"normalized"`` and ``"adaptive"``, or the increase of β per
        environment transition for ``"linear"``, which needs a number. ``"auto"`` scales the paper's value, 3.3e-6 for 2.5e6
        gradient steps, to those of the first :meth:`learn`: 8.25 / gradient steps, between 3e-5 and 1e-2, see
        :func:`auto_beta_lr`
    :param beta_scale: k > 0, without unit, of ``"normalized"``: the larger, the less regularised
    :param beta_max: the largest β that schedules may reach, see ``benchmarks/beta_limits.py``
    :param loss: ``"huber"`` (DQN's) or ``"mse"`` (paper); β follows the mean squared TD error with either
    :param regularization: ``"mutual_information"``: target and π use the learned ρ; ``"entropy"``: they use the uniform
        distribution, as in soft Q-learning, and ρ serves for exploration only
    :param compile_update: run the loss and gradient of each gradient step, and each choice of actions, as one compiled
        function, which is faster and differs by rounding only. Needs a C++ compiler; the first gradient step takes up to a
        minute. The network's ``forward()`` is traced once for each shape of its input: what it does in Python (counting, say,
        or drawing random numbers) is not repeated, and attributes that are no parameters keep the value of that time. Networks
        with dropout, buffers (batch norm), hooks or TorchScript are refused. On a GPU the function is recorded as a CUDA graph
        (not measured yet)
    :param mixed_precision: run the networks of a gradient step in bfloat16 (``torch.autocast``); weights, target, loss and
        optimiser stay in float32. Faster with large networks on processors that compute in bfloat16, slower on others
    :param _init_setup_model: whether to build the network at once
    :raises ValueError: if an argument is out of range; the message names it, its value and what is accepted
    """

    #: Written into saved models, which only the same algorithm loads; subclasses of yours inherit it
    algorithm: str = "MIRL"

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: MIRLPolicy
    exported_attributes: ClassVar[tuple[str, ...]] = ("resolved_prior_lr", "resolved_beta_lr")
    exportable_classes: ClassVar[dict[str, type]] = subclasses_in(policies, "sb3_mirl.mirl.policies", MIRLPolicy)
    argument_rules: ClassVar[dict[str, Any]] = RULES
    onnx_outputs: ClassVar[tuple[str, ...]] = ("action", "probabilities", "q_values")

    def __init__(
        self,
        policy: str | type[MIRLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 32,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 10_000,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        *,
        prior_lr: float | str = "auto",
        prior_init: np.ndarray | list[float] | None = None,
        beta_schedule: str = "normalized",
        beta_init: float = 0.01,
        beta_lr: float | str = "auto",
        beta_scale: float = 30.0,
        beta_max: float = 1e4,
        loss: str = "huber",
        regularization: str = "mutual_information",
        compile_update: bool = False,
        mixed_precision: bool = False,
        _init_setup_model: bool = True,
    ) -> None:
        # The others are checked in _setup_model, where those of a loaded model are checked too: SB3 uses these before
        check_arguments({"verbose": verbose, "device": device}, RULES)
        env = maybe_make_env(env, verbose)
        if hasattr(env, "action_space"):
            check_action_space(env.action_space)
            check_observation_space(env.observation_space)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            replay_buffer_class,
            replay_buffer_kwargs,
            optimize_memory_usage,
            n_steps,
            target_update_interval,
            exploration_fraction,
            exploration_initial_eps,
            exploration_final_eps,
            max_grad_norm,
            stats_window_size,
            tensorboard_log,
            policy_kwargs,
            verbose,
            seed,
            device,
            _init_setup_model=False,
        )
        self.algorithm = type(self).algorithm
        self.prior_lr = prior_lr
        self.prior_init = prior_init
        self.beta_schedule = beta_schedule
        self.beta_init = beta_init
        self.beta_lr = beta_lr
        self.beta_scale = beta_scale
        self.beta_max = beta_max
        self.loss = loss
        self.regularization = regularization
        self.compile_update = compile_update
        self.mixed_precision = mixed_precision
        #: What ``"auto"`` became in the first :meth:`learn`, for good; None before it
        self.resolved_prior_lr: float | None = None
        self.resolved_beta_lr: float | None = None
        #: What the actions are called, where an environment has said it to :meth:`learn`; plain text in saved files
        self.action_names: list[str] | None = None
        #: The returns of the episodes since the counters began, see learning_curve.py; plain numbers in saved files
        self.learning_curve: dict[str, Any] = new_curve()
        self._compiled_gradient: CompiledGradient | None = None
        # π(·|s) behind the actions just taken, float64 [n_envs, n_actions]; None during the warm-up
        self.rollout_action_probabilities: th.Tensor | None = None
        # Those of the current learn() that want to know of gradient steps
        self._gradient_step_callbacks: list[MIRLCallback] = []
        # What the checkpoints of this model go by, see checkpoints.py
        self._callbacks: list[BaseCallback] = []
        self._run_id, self._checkpoint_serial = new_run_id(), 0
        # Between resume() and learn()
        self._resumed_from: Checkpoint | None = None

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_arguments()
        # What SB3 itself makes of n_steps: in a model that is loaded it would warn of it
        made = {"n_steps": self.n_steps, "gamma": self.gamma}.items()
        if self.n_steps > 1 and self.replay_buffer_class is NStepReplayBuffer and made <= self.replay_buffer_kwargs.items():
            self.replay_buffer_class = None
        try:
            super()._setup_model()
        except (AssertionError, NotImplementedError) as error:
            # What SB3 says of combinations that it does not support
            raise UnsupportedError(f"{error} (observation_space={self.observation_space}, n_steps={self.n_steps})") from error
        except RuntimeError as error:
            if not has_small_image(self.observation_space):
                raise
            raise UnsupportedError(
                f"Images must be large enough for the policy's network, which are 36x36 for NatureCNN, got "
                f"observation_space={self.observation_space} ({error})"
            ) from error
        except MemoryError as error:
            raise MemoryError(f"buffer_size must fit into memory, got {self.buffer_size} ({error})") from error
        self.policy.regularization = self.regularization
        if self.prior_init is not None:
            prior = th.as_tensor(np.asarray(self.prior_init, dtype=np.float64))
            self.policy.prior.copy_(prior / prior.sum())
        self.policy.beta.fill_(self.beta_init)
        if self.compile_update:
            if type(self)._compute_gradient is not MIRL._compute_gradient:
                raise ValueError(
                    f"compile_update=True computes the gradient of MIRL, but {type(self).__name__} has a _compute_gradient of "
                    "its own; set compile_update=False"
                )
            check_compiler(self.device)
            self.policy.compile_acting()

    def _check_arguments(self) -> None:
        policy = self.policy_class
        if not is_class(policy, MIRLPolicy):
            got = policy.__name__ if is_class(policy) else repr(policy)
            raise ValueError(
                f"policy must be one of {sorted(self.policy_aliases)} or a subclass of MIRLPolicy, got {got}. "
                f"(When loading: the file was saved by another algorithm than {self.algorithm}.)"
            )
        if self.algorithm != type(self).algorithm:
            raise ValueError(f"The file was saved by {self.algorithm}: load it with {self.algorithm}.load")
        if not hasattr(self, "action_space"):
            raise ValueError("env must be an environment or its id, got None")
        check_action_space(self.action_space)
        check_observation_space(self.observation_space)
        # SB3 keeps this one under another name
        arguments = {name: getattr(self, "_stats_window_size" if name == "stats_window_size" else name) for name in RULES}
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        checked = check_arguments({**arguments, "n_envs": self.n_envs, "n_actions": n_actions}, RULES)
        self._stats_window_size = checked.pop("stats_window_size")
        self.__dict__.update(checked)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"policy must be one of {sorted(self.policy_aliases)} or a class, got {policy_name!r}")
        return super()._get_policy_from_name(policy_name)

    @property
    def prior(self) -> np.ndarray:
        """ρ, float64 [n_actions], a copy."""
        return self.policy.prior.cpu().numpy().copy()

    @property
    def beta(self) -> float:
        """β, in 1/reward."""
        return self.policy.beta.item()

    @property
    def prior_step_size(self) -> float | None:
        """α_ρ per environment transition; None for ``"auto"`` before the first :meth:`learn`."""
        return self.resolved_prior_lr if self.prior_lr == "auto" else self.prior_lr  # type: ignore[return-value]

    @property
    def beta_step_size(self) -> float | None:
        """α_β per gradient step, or per environment transition; None for ``"auto"`` before the first :meth:`learn`."""
        return self.resolved_beta_lr if self.beta_lr == "auto" else self.beta_lr  # type: ignore[return-value]

    def _resolve_step_sizes(self, total_timesteps: int) -> None:
        """Turns ``"auto"`` into numbers, once in the life of a model."""
        if self.prior_lr == "auto" and self.resolved_prior_lr is None:
            self.resolved_prior_lr = auto_prior_lr(total_timesteps)
        if self.beta_lr == "auto" and self.resolved_beta_lr is None:
            self.resolved_beta_lr = auto_beta_lr(self._count_gradient_steps(total_timesteps))

    def _count_gradient_steps(self, total_timesteps: int) -> int:
        """
        :param total_timesteps: environment transitions of a training that begins now
        :return: gradient steps of that training; ``total_timesteps`` where ``train_freq`` counts episodes, whose length is
            not known
        """
        if self.train_freq.unit is TrainFrequencyUnit.EPISODE:  # type: ignore[union-attr]
            return total_timesteps
        per_rollout = self.train_freq.frequency * self.n_envs  # type: ignore[union-attr]
        rollouts = -(-total_timesteps // per_rollout)
        # SB3 learns after a rollout that ends beyond learning_starts
        warm_up = min(rollouts, max(0, self.learning_starts - self.num_timesteps) // per_rollout)
        return (rollouts - warm_up) * (per_rollout if self.gradient_steps < 0 else self.gradient_steps)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if isinstance(callback, list):
            callback = CallbackList(callback)
        if not isinstance(callback, BaseCallback):
            callback = ConvertCallback(callback)  # type: ignore[arg-type]
        given = [one for one in flatten(callback) if isinstance(one, MIRLCallback)]
        defaults: list[MIRLCallback] = []
        for default in (PriorUpdateCallback, BetaUpdateCallback):
            count = sum(isinstance(one, default) for one in given)
            if count > 1:
                raise ValueError(f"callback must hold at most one {default.__name__}, got {count}")
            if count == 0:
                defaults.append(default())
        self._gradient_step_callbacks = [*defaults, *given]
        self._callbacks = [*defaults, *flatten(callback)]
        # At last, when nothing draws random numbers any more before the first step
        events = [RolloutEvents(inside)] if (inside := inside_of_events(callback)) else []
        resumption = [_Resumption()] if self._resumed_from is not None else []
        self.action_names = find_action_names(self.env, len(self.policy.prior)) or self.action_names
        return super()._init_callback(CallbackList([*defaults, callback, *events, *resumption]), progress_bar)

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(total_timesteps, *args, **kwargs)
        if total_timesteps > 0:
            self._resolve_step_sizes(total_timesteps)
        if self.num_timesteps == 0:
            self.learning_curve = new_curve()
        obs = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        check_observations(self.observation_space, obs, self.num_timesteps)
        return result

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        for info in infos:
            if (episode := info.get("episode")) is not None:
                add_return(self.learning_curve, episode["r"])

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        # Before anything is stored: one number that is not finite would turn every weight into NaN
        normalize = self._vec_normalize_env
        limit = LARGEST_SQUARED if self.loss == "mse" and (normalize is None or not normalize.norm_reward) else LARGEST_FLOAT32
        check_rewards(reward if normalize is None else normalize.old_reward, limit, self.num_timesteps)
        check_observations(self.observation_space, new_obs if normalize is None else normalize.old_obs, self.num_timesteps)
        for env in np.flatnonzero(dones):
            if (last := infos[env].get("terminal_observation")) is not None:
                check_terminal_observation(self.observation_space, last, int(env), self.num_timesteps)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.num_timesteps < learning_starts:
            # Warm-up: ρ does not follow the π of a random initial network
            self.rollout_action_probabilities = None
            actions = self.policy.sample_prior((n_envs,))
        else:
            self.policy.last_action_probabilities = None
            actions, _ = self.predict(self._last_obs, deterministic=False)  # type: ignore[arg-type]
            # Taken now: evaluations by callbacks use the same policy object
            probabilities = self.policy.last_action_probabilities
            if probabilities is None or len(probabilities) != n_envs:
                # A subclass acts in its own way
                probabilities = self.policy.action_probabilities(self._last_obs).double()  # type: ignore[arg-type]
            self.rollout_action_probabilities = probabilities
        # The network's actions count from 0
        return actions, actions - self.action_space.start  # type: ignore[attr-defined]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        argmaxₐ π(a|s) or, unless ``deterministic``, the paper's behaviour policy: with probability ε, tossed for each
        environment by itself, a draw from ρ instead. Neither is a draw from π: that is ``policy.sample_policy(observation)``.

        :param observation: the input observation
        :param state: the last states (used in recurrent policies)
        :param episode_start: the last masks (used in recurrent policies)
        :param deterministic: whether to leave exploration out
        :return: the actions, and the next state (used in recurrent policies)
        """
        actions, state = self.policy.predict(observation, state, episode_start, deterministic)
        if not deterministic:
            actions = self.policy.explore(actions, self.exploration_rate)
        return actions, state

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Sample the replay buffer and do the updates. β moves only inside :meth:`learn`, which attaches the callbacks.

        :param gradient_steps: how many
        :param batch_size: of each
        :raises ValueError: if a loss was not finite
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        self._update_learning_rate(self.policy.optimizer)

        prior, beta = self.policy.reference_prior, self.policy.beta
        compute_gradient = self._compute_gradient_compiled if self.compile_update else self._compute_gradient
        losses: list[th.Tensor] = []
        q_values: list[th.Tensor] = []
        for gradient_step in range(gradient_steps):
            # A callback of the gradient step before may have called predict()
            if not self.policy.training:
                self.policy.set_training_mode(True)
            # Sample replay buffer
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            # For n-step replay, discount factor is gamma**n_steps (when no early termination)
            discounts = replay_data.discounts if replay_data.discounts is not None else self.gamma

            if (self._n_updates + gradient_step) % 100 == 0:
                clear_tiny_averages(self.policy.optimizer)
            with flushed_denormals():
                # Optimize the policy
                self.policy.optimizer.zero_grad()
                loss, squared_td_error, all_q_values = compute_gradient(replay_data, discounts, prior, beta)
                # Clip gradient norm
                th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            losses.append(loss)
            q_values.append(all_q_values)

            for callback in self._gradient_step_callbacks:
                callback._on_gradient_step(squared_td_error)

        if not losses:
            return

        # Increase update counter
        self._n_updates += gradient_steps

        # The penalty on the last batch
        kl = kl_divergence(soft_policy(all_q_values, prior, beta), prior).mean()
        self._log_training(losses, q_values, kl)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        check_scheduled_learning_rate(self.lr_schedule, self._current_progress_remaining)
        super()._update_learning_rate(optimizers)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        # The last rollout may go beyond total_timesteps: SB3's linear schedules would give a negative learning rate there
        self._current_progress_remaining = max(self._current_progress_remaining, 0.0)
        if (
            num_timesteps > total_timesteps + LONGEST_LAST_EPISODE and self.train_freq.unit is TrainFrequencyUnit.EPISODE  # type: ignore[union-attr]
        ):
            raise ValueError(
                f"train_freq counts episodes, got {self.train_freq}, but no episode ended in the {LONGEST_LAST_EPISODE} steps "
                f"after total_timesteps = {total_timesteps}: count steps, or limit the episodes (gymnasium.wrappers.TimeLimit)"
            )

    def _compute_gradient(
        self, replay_data: Any, discounts: th.Tensor | float, prior: th.Tensor, beta: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        The loss of one batch and its gradient, which is added to that of the parameters.

        :param replay_data: the batch
        :param discounts: γ, or γⁿ [batch, 1]
        :param prior: ρ of the target, [n_actions]
        :param beta: β, []
        :return: loss [], mean squared TD error [] and Q(s, ·) [batch, n_actions]
        """
        with self._network_precision():
            with th.no_grad():
                # Compute the next Q-values using the target network
                next_q_values = self.q_net_target(replay_data.next_observations).float()
            # Get current Q-values estimates
            q_values = self.q_net(replay_data.observations).float()
        loss, squared_td_error = soft_td_loss(
            q_values,
            next_q_values,
            replay_data.actions,
            replay_data.rewards,
            replay_data.dones,
            discounts,
            prior,
            beta,
            loss=self.loss,
        )
        loss.backward()
        return loss.detach(), squared_td_error.detach(), q_values.detach()

    def _compute_gradient_compiled(
        self, replay_data: Any, discounts: th.Tensor | float, prior: th.Tensor, beta: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """:meth:`_compute_gradient` as one compiled function, made anew when networks or loss have been exchanged."""
        compiled = self._compiled_gradient
        used = (self.q_net, self.q_net_target, self.loss)
        if compiled is None or (compiled.q_net, compiled.q_net_target, compiled.loss.keywords["loss"]) != used:  # type: ignore[attr-defined]
            if self.verbose >= 1:
                print("Compiling the gradient step: the first one may take a minute")
            loss = partial(soft_td_loss, loss=self.loss)
            compiled = CompiledGradient(self.q_net, self.q_net_target, loss, self._network_precision)
            self._compiled_gradient = compiled
        return compiled(
            replay_data.observations,
            replay_data.next_observations,
            replay_data.actions,
            replay_data.rewards,
            replay_data.dones,
            th.as_tensor(discounts, device=self.device),
            prior,
            beta,
        )

    def _network_precision(self) -> AbstractContextManager:
        return th.autocast(self.device.type, th.bfloat16) if self.mixed_precision else nullcontext()

    def _log_training(self, losses: list[th.Tensor], q_values: list[th.Tensor], kl: th.Tensor) -> None:
        """
        Log what one call of :meth:`train` did, with a single read from the device.

        :param losses: of every gradient step, []
        :param q_values: Q(s, ·) of every gradient step's batch, [batch, n_actions]
        :param kl: the penalty on the last batch
        :raises ValueError: if a loss was not finite
        """
        *loss_values, kl_value, beta = th.stack([*losses, kl, self.policy.beta]).tolist()

        finite = np.isfinite(loss_values)
        if not finite.all():
            first = int(np.argmin(finite))
            raise ValueError(
                f"The {self.loss} loss was {loss_values[first]} at gradient step {self._n_updates - len(losses) + first + 1} "
                f"(environment step {self.num_timesteps}), with beta = {beta:g} and "
                f"largest |Q| = {q_values[first].abs().max():g} and largest |reward| in the replay buffer = "
                f"{np.abs(self.replay_buffer.rewards).max():g}. "  # type: ignore[union-attr]
                "Training stopped: the weights are lost, beta and the prior are still finite. A smaller learning_rate, "
                "loss='huber', or rewards and observations that are normalised may help."
            )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(loss_values))
        self.logger.record("train/beta", beta)
        self.logger.record("train/kl", kl_value)

    def dump_logs(self) -> None:
        prior = self.policy.prior
        self.logger.record("rollout/prior_entropy", -th.special.xlogy(prior, prior).sum().item())
        if len(prior) <= MAX_LOGGED_ACTIONS:
            for action, probability in enumerate(prior.tolist()):
                first = self.action_space.start  # type: ignore[attr-defined]
                name = self.action_names[action] if self.action_names else f"action_{first + action}"
                self.logger.record(f"prior/{printable(name)}", probability)
        super().dump_logs()

    def learn(
        self: SelfMIRL,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMIRL:
        total_timesteps = check_integer("total_timesteps", total_timesteps, 0)
        # Where a callback calls learn() inside of another learn(), that one goes on with what is its own
        outer = {name: getattr(self, name) for name in _OF_ONE_LEARN} if self._gradient_step_callbacks else {}
        if self._resumed_from is not None:
            self._resumed_from.set_logger(self)
            if reset_num_timesteps:  # of the call that is continued
                total_timesteps += self._num_timesteps_at_start - self.num_timesteps
                reset_num_timesteps = False
        try:
            return super().learn(
                total_timesteps=total_timesteps,
                callback=callback,
                log_interval=log_interval,
                tb_log_name=tb_log_name or self.algorithm,
                reset_num_timesteps=reset_num_timesteps,
                progress_bar=progress_bar,
            )
        finally:
            self._gradient_step_callbacks = []
            self.__dict__.update(outer)

    @classmethod
    def load(cls: type[SelfMIRL], path: Any, *args: Any, **kwargs: Any) -> SelfMIRL:  # type: ignore[override]
        """SB3's ``load``. A ``prior_lr`` or ``beta_lr`` that is given anew, as ``"auto"`` too, is resolved anew."""
        model = super().load(path, *args, **kwargs)
        for name in {"prior_lr", "beta_lr"} & kwargs.keys():
            setattr(model, f"resolved_{name}", None)
        return model

    @classmethod
    def resume(
        cls: type[SelfMIRL],
        folder: str | os.PathLike[str],
        env: GymEnv | str,
        device: th.device | str = "auto",
        **kwargs: Any,
    ) -> SelfMIRL:
        """
        The model of the newest whole checkpoint that a :class:`~sb3_mirl.CheckpointCallback` wrote, ready to go on.

        Call :meth:`learn` with the arguments that it had: it continues the interrupted call, so that on a CPU the end is bit
        for bit that of a run which was never interrupted. With ``reset_num_timesteps=False`` it is SB3's: so many steps more.
        Logs and monitor files are put back to what they held at the checkpoint; a logger of your own must be set again.

        Where the state of the environment cannot be read (Box2D, say), new episodes begin, with a warning. The model file is
        unpickled, as SB3's ``load`` does: resume only what you wrote yourself.

        :param folder: of the checkpoints
        :param env: made like that of the interrupted run, with the same wrappers
        :param device: as in :meth:`load`
        :param kwargs: as in :meth:`load`: attributes to be changed
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if all checkpoints are damaged, or if ``env`` is another than that of the interrupted run
        """
        return cls._resume(Checkpoint.newest(folder), env, device, **kwargs)

    @classmethod
    def _resume(
        cls: type[SelfMIRL], checkpoint: Checkpoint, env: GymEnv | str, device: th.device | str, **kwargs: Any
    ) -> SelfMIRL:
        if isinstance(env, str):
            env = gym.make(env)
        model = cls.load(checkpoint.model_file, cls._wrap_env(env, verbose=0), device, force_reset=False, **kwargs)
        checkpoint.restore_replay(model)
        checkpoint.restore_env(model)
        model._resumed_from = checkpoint
        return model

    def export(self, path: str | Path, **arguments: Any) -> Path:
        """
        Write the model to one file that can be loaded without running code in it, for :meth:`load_exported`.

        It holds the policy with ρ and β, which parameters are frozen (``requires_grad=False``), the optimiser's state, the
        constructor's arguments and the counters of training, so that training goes on as after ``save`` and ``load``, which
        do not know what was frozen. As with these the replay buffer is left out, and in
        addition the folder of TensorBoard logs, the last observation and the statistics of the latest episodes.

        :param path: of the file, replaced as a whole; ``.safetensors`` is added if it has no suffix
        :param arguments: constructor arguments to be written in place of the model's, such as a number for a
            ``learning_rate`` that is a function
        :return: the path of the file
        :raises ValueError: if something of the model cannot be written as data; the message names it
        """
        return export_model(self, path, arguments)

    @classmethod
    def load_exported(
        cls: type[SelfMIRL],
        path: str | Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, type] | None = None,
        **arguments: Any,
    ) -> SelfMIRL:
        """
        The model of a file that :meth:`export` wrote. No code in the file is run, whoever it is from.

        :param path: of the file; ``.safetensors`` may be left out
        :param env: the environment to go on with; not needed to predict
        :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
        :param custom_objects: classes of yours by the names that the file has for them, such as
            ``{"my_package.nets.Net": Net}``; those of torch, SB3 and this package are known
        :param arguments: constructor arguments to be used in place of the file's
        :return: the model
        :raises ValueError: if the file is refused; the message says what in it, and what is accepted
        """
        model = load_model(cls, path, env, device, custom_objects, arguments)
        model._check_loaded_state()
        return model

    def export_onnx(self, path: str | Path) -> None:
        """
        Write the policy that acts, argmaxₐ π(a|s), as one ONNX file.

        Inputs are observations with a batch axis of any length, as the environment gives them and in its dtype, images
        channel-first: ``observation``, or for Dict spaces one by the name of each key. Outputs are ``action`` int64 [batch],
        ``probabilities`` π(·|s) float64 [batch, n_actions] and ``q_values`` float32 [batch, n_actions]. Preprocessing of
        observations, ρ and β (both in float64) are inside; exploration and ``VecNormalize`` are not.

        :param path: of the file, written atomically
        :raises ImportError: without the packages of the extra ``onnx``
        :raises ValueError: if a key of a Dict space has the name of an output
        """
        metadata = {"algorithm": self.algorithm, "action_names": json.dumps(self.action_names)}
        write_onnx(path, self._onnx_module(), self.observation_space, self.onnx_outputs, metadata)

    def _onnx_module(self) -> SoftActing:
        return SoftActing(self.policy)

    def _check_loaded_state(self) -> None:
        prior, beta = self.policy.prior, self.beta
        if not bool((prior >= 0).all()) or not abs(prior.sum().item() - 1) <= 1e-6:
            raise ValueError(
                f"policy.prior must be non-negative numbers that sum to 1, the file has {shortened(prior.tolist())}"
            )
        if not beta >= 0:
            raise ValueError(f"policy.beta must be at least 0, the file has {beta}")
        for name in self.exported_attributes:
            number = getattr(self, name)
            if number is not None and not 0 <= number <= 1:
                raise ValueError(f"training: {name} must be a number in [0, 1] or null, got {number}")

    def __getstate__(self) -> dict[str, Any]:
        # Copies made by a callback in the midst of learn() do not take the callbacks along, nor a compiled function, and are
        # runs of their own
        none = {"_compiled_gradient": None, "_resumed_from": None, "_run_id": new_run_id(), "_checkpoint_serial": 0}
        return {**self.__dict__, "_gradient_step_callbacks": [], "_callbacks": [], **none}

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "rollout_action_probabilities",
            "_gradient_step_callbacks",
            "_compiled_gradient",
            "_callbacks",
            "_run_id",
            "_checkpoint_serial",
            "_resumed_from",
        ]


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
    The loss of Q(s,a) against r + (1 - done) γ β⁻¹ log Σ ρ(a') exp(β Q_target(s',a')).

    :param q_values: Q(s, ·), [batch, n_actions]
    :param next_q_values: Q_target(s', ·), [batch, n_actions]
    :param actions: a, [batch, 1]
    :param rewards: r, [batch, 1]
    :param dones: 1 where the episode ended at s', else 0, [batch, 1]
    :param discounts: γ, or γⁿ [batch, 1]
    :param prior: ρ, [n_actions]
    :param beta: β, []
    :param loss: ``"huber"`` or ``"mse"``
    :return: the loss, [], and the mean squared TD error, [], which β follows whatever the loss is
    """
    with th.no_grad():
        # The log-sum-exp weighted by ρ, where DQN has the maximum
        target_q_values = soft_td_target(rewards, dones, discounts, next_q_values, prior, beta)
    # Retrieve the q-values for the actions from the replay buffer
    current_q_values = th.gather(q_values, dim=1, index=actions.long())
    squared_td_error = F.mse_loss(current_q_values, target_q_values)
    if loss == "mse":
        return squared_td_error, squared_td_error
    return F.smooth_l1_loss(current_q_values, target_q_values), squared_td_error


def auto_prior_lr(total_timesteps: int) -> float:
    """
    The paper's α_ρ, 2e-6 for 1e7 environment steps, scaled to another length of training.

    :param total_timesteps: environment transitions
    :return: 20 / ``total_timesteps``, at least 2e-6 and at most 1e-2
    """
    return float(np.clip(20 / max(total_timesteps, 1), 2e-6, 1e-2))


def auto_beta_lr(gradient_steps: int) -> float:
    """
    The paper's α_β, 3.3e-6 for 2.5e6 gradient steps, scaled to another length of training.

    :param gradient_steps: of the training
    :return: 8.25 / ``gradient_steps``, at least 3e-5 and at most 1e-2
    """
    return float(np.clip(8.25 / max(gradient_steps, 1), 3e-5, 1e-2))


class SQL(MIRL):
    """
    Soft Q-learning: :class:`MIRL` with ρ uniform and fixed.

    Its target is the normalised one, β⁻¹ log (1/n) Σₐ exp(β Q(s',a)): without the 1/n every step would earn log(n)/β.
    Arguments are those of :class:`MIRL`, with other defaults for ``prior_lr`` and ``regularization``.
    """

    algorithm = "SQL"

    def __init__(self, *args: Any, prior_lr: float | str = 0.0, regularization: str = "entropy", **kwargs: Any) -> None:
        super().__init__(*args, prior_lr=prior_lr, regularization=regularization, **kwargs)


class SQLm(MIRL):
    """
    The paper's ablation SQL_m: target and π of :class:`SQL`, exploration from the learned marginal ρ.

    Arguments are those of :class:`MIRL`, with another default for ``regularization``.
    """

    algorithm = "SQLm"

    def __init__(self, *args: Any, regularization: str = "entropy", **kwargs: Any) -> None:
        super().__init__(*args, regularization=regularization, **kwargs)


class _Resumption(BaseCallback):
    """Puts the state of the interrupted run in place when training begins."""

    model: MIRL

    def _on_training_start(self) -> None:
        checkpoint, self.model._resumed_from = self.model._resumed_from, None
        assert checkpoint is not None
        checkpoint.restore_run(self.model, self.model._callbacks)

    def _on_step(self) -> bool:
        return True
