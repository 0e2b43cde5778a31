"""
:class:`BaseDQN`: SB3's DQN with checked inputs, an event after each gradient step, exact resumption, data-only exports and
faster gradient steps. Algorithms that differ from DQN in target, loss or acting subclass it.
"""

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.type_aliases import GymEnv, Schedule, TrainFrequencyUnit

from sb3_mirl.common import inputs
from sb3_mirl.common.compilable import check_compiler
from sb3_mirl.common.env_types import check_env_type
from sb3_mirl.common.export.exportable import ExportableDQN
from sb3_mirl.common.export.model import attribute_name
from sb3_mirl.common.gradient import CompiledGradient, full_precision, td_loss, without_denormals
from sb3_mirl.common.inputs import Rule, UnsupportedError
from sb3_mirl.common.masked_dqn import MaskedDQN
from sb3_mirl.common.policies import POLICY_ALIASES, DQNPolicy
from sb3_mirl.common.resume.resumable import ResumableDQN
from sb3_mirl.common.signatures import constructor_signature, refuse_unknown_arguments

#: If train_freq counts episodes, the last one must end within this number of environment steps after total_timesteps
LONGEST_LAST_EPISODE_STEPS = 100_000


class BaseDQN(ExportableDQN, MaskedDQN, ResumableDQN):
    """
    SB3's DQN, resumable and exportable. It uses action masks where the environment has a method ``action_masks()``, as for
    sb3-contrib's ``MaskablePPO``: in acting, in exploration, and in the target, for which the replay buffer stores the masks
    of s'. Vector environments need the wrapper :class:`~sb3_mirl.common.action_masks.ActionMaskInfo`.

    It takes the arguments of :class:`~stable_baselines3.dqn.dqn.DQN`, and:

    :param loss: ``"huber"`` (DQN's) or ``"mse"``
    :param compile_update: compile two functions: the loss with its gradient, and the choice of actions if there are no action
        masks. This is faster, and results differ by rounding only. On a CPU it needs a C++ compiler. The first gradient step
        takes up to a minute. The network's ``forward()`` is traced once for each shape of its input: Python side effects
        (counting, drawing random numbers) happen only during tracing, and attributes that are not parameters keep the value
        that they had then. Networks with dropout, buffers (batch norm), hooks or TorchScript are refused. On a GPU, the
        functions are recorded as CUDA graphs
    :param mixed_precision: run the networks of a gradient step in bfloat16 (``torch.autocast``); weights, target, loss and
        optimiser stay in float32. Faster with large networks on processors that compute in bfloat16, slower on others
    :raises ValueError: if an argument is out of range; the message names it, its value and what is accepted
    """

    #: Written into saved models, which only the same algorithm loads. Subclasses inherit it
    algorithm: str = "BaseDQN"
    policy: DQNPolicy
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = POLICY_ALIASES

    # What subclasses extend or replace
    #: Policies must be subclasses of it
    base_policy: ClassVar[type[BasePolicy]] = DQNPolicy
    #: Rules that check the constructor arguments, by name
    argument_rules: ClassVar[dict[str, Rule]] = inputs.ARGUMENT_RULES
    #: The loss, a pure function of tensors. Arguments: Q(s, ·), Q_target(s', ·), Q_target(s, ·) if
    #: :attr:`needs_current_target_q_values`, actions, rewards, dones, discounts, the :meth:`loss_coefficients` and, if the
    #: environment has action masks, those of s'. Returns the loss and the mean squared TD error
    batch_loss: Callable[..., tuple[th.Tensor, th.Tensor]] = staticmethod(td_loss)
    #: Whether :attr:`batch_loss` takes Q_target(s, ·), which costs another forward pass of the target network
    needs_current_target_q_values: ClassVar[bool] = False

    #: The number of episodes, and the step at which it was first seen
    _latest_episode = (0, 0)

    def __init__(
        self,
        policy: str | type[BasePolicy],
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
        loss: str = "huber",
        compile_update: bool = False,
        mixed_precision: bool = False,
        _init_setup_model: bool = True,
        **unknown: Any,
    ) -> None:
        refuse_unknown_arguments(type(self), unknown)
        # SB3's constructor uses these two. _setup_model() checks all arguments, also those of a loaded model
        inputs.check_arguments({"verbose": verbose, "device": device}, self.argument_rules)
        check_env_type(env)
        env = maybe_make_env(env, verbose)
        if hasattr(env, "action_space"):
            inputs.check_action_space(env.action_space)
            inputs.check_observation_space(env.observation_space)
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
        self.loss = loss
        self.compile_update = compile_update
        self.mixed_precision = mixed_precision
        # (settings, the function that was compiled for them)
        self._compiled_gradient: tuple[tuple[Any, ...], CompiledGradient] | None = None

        if _init_setup_model:
            self._setup_model()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # help() and IPython show all arguments, also where a subclass passes them on as *args and **kwargs
        cls.__signature__ = constructor_signature(cls)  # type: ignore[attr-defined]

    def _setup_model(self) -> None:
        self.check_model_arguments()
        # SB3 overwrites both, and adds n_steps and gamma. The given values are kept, because a loaded model may change these
        given = self.replay_buffer_class, self.replay_buffer_kwargs
        self.replay_buffer_kwargs = dict(self.replay_buffer_kwargs)
        try:
            super()._setup_model()
        except (AssertionError, NotImplementedError) as error:
            # Combinations that SB3 does not support
            raise UnsupportedError(f"{error} (observation_space={self.observation_space}, n_steps={self.n_steps})") from error
        except RuntimeError as error:
            built = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
            if NatureCNN.__init__.__code__ not in built:
                raise
            raise UnsupportedError(
                "Images must be large enough for the policy's network (NatureCNN needs at least 36x36), got "
                f"observation_space={self.observation_space} ({error})"
            ) from error
        except MemoryError as error:
            raise MemoryError(f"buffer_size must fit into memory, got {self.buffer_size} ({error})") from error
        self.replay_buffer_class, self.replay_buffer_kwargs = given
        self.extend_policy(self.policy)
        # Joint training starts from this state of NumPy's generator, which SB3 has just seeded
        self.random_state = np.random.get_state(legacy=False)
        if self.compile_update:
            if type(self)._compute_gradient is not BaseDQN._compute_gradient:
                raise ValueError(
                    f"compile_update=True compiles batch_loss, but {type(self).__name__} has a _compute_gradient of its own; "
                    "set compile_update=False"
                )
            check_compiler(self.device)
            self.policy.compile_acting()

    def check_model_arguments(self) -> None:
        """
        Check the attributes that hold constructor arguments, and convert NumPy's numbers to Python's.

        :raises ValueError: if one is not accepted
        """
        if self.algorithm != type(self).algorithm:
            raise ValueError(f"The file was saved by {self.algorithm}: load it with {self.algorithm}.load")
        policy, base = self.policy_class, self.base_policy
        if not inputs.is_class(policy, base):
            got = policy.__qualname__ if inputs.is_class(policy) else repr(policy)
            got = f"{policy.__module__}.{got}" if inputs.is_class(policy, BasePolicy) else got
            raise ValueError(
                f"policy must be one of {sorted(self.policy_aliases)} or a subclass of {base.__module__}.{base.__qualname__}, "
                f"got {got}. (When loading: the file was saved by another algorithm than {self.algorithm}.)"
            )
        if not hasattr(self, "action_space"):
            raise ValueError("env must be an environment or its id, got None")
        inputs.check_action_space(self.action_space)
        inputs.check_observation_space(self.observation_space)
        names = {name: attribute_name(name) for name in self.argument_rules}
        arguments = {name: getattr(self, attribute) for name, attribute in names.items()}
        sizes = {"n_envs": self.n_envs, "n_actions": int(self.action_space.n)}  # type: ignore[attr-defined]
        for name, value in inputs.check_arguments({**arguments, **sizes}, self.argument_rules).items():
            setattr(self, names[name], value)
        takes_dict = policy is self.policy_aliases.get("MultiInputPolicy")
        if takes_dict and not isinstance(self.observation_space, spaces.Dict):
            if "features_extractor_class" not in (self.policy_kwargs or {}):
                accepted = "policy must be 'MlpPolicy' or 'CnnPolicy' unless observations are a Dict"
                raise UnsupportedError(f"{accepted}, got 'MultiInputPolicy' with observation_space={self.observation_space}")

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"policy must be one of {sorted(self.policy_aliases)} or a class, got {policy_name!r}")
        return super()._get_policy_from_name(policy_name)

    def count_gradient_steps(self, total_timesteps: int) -> int:
        """
        :param total_timesteps: environment transitions of a training that begins now
        :return: gradient steps of that training; ``total_timesteps`` where ``train_freq`` counts episodes of unknown length
        """
        if self.train_freq.unit is TrainFrequencyUnit.EPISODE:  # type: ignore[union-attr]
            return total_timesteps
        per_rollout = self.train_freq.frequency * self.n_envs  # type: ignore[union-attr]
        rollouts = -(-total_timesteps // per_rollout)
        # SB3 learns after a rollout that ends beyond learning_starts
        warm_up = min(rollouts, max(0, self.learning_starts - self.num_timesteps) // per_rollout)
        return (rollouts - warm_up) * (per_rollout if self.gradient_steps < 0 else self.gradient_steps)

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(total_timesteps, *args, **kwargs)
        obs = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        inputs.check_observations(self.observation_space, obs, self.num_timesteps)
        return result

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
        normalize, step = self._vec_normalize_env, self.num_timesteps
        squared = self.loss == "mse" and (normalize is None or not normalize.norm_reward)
        limit = inputs.LARGEST_SQUARABLE if squared else inputs.LARGEST_FLOAT32
        inputs.check_rewards(reward if normalize is None else normalize.old_reward, limit, step)
        inputs.check_observations(self.observation_space, new_obs if normalize is None else normalize.old_obs, step)
        for env in np.flatnonzero(dones):
            if (last := infos[env].get("terminal_observation")) is not None:
                inputs.check_terminal_observation(self.observation_space, last, int(env), step)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        actions, _ = super()._sample_action(learning_starts, action_noise, n_envs)
        # The network's actions count from 0
        return actions, actions - self.action_space.start  # type: ignore[attr-defined]

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Sample the replay buffer and do the updates: SB3's ``train()`` with :attr:`batch_loss` and gradient-step callbacks.

        :param gradient_steps: number of gradient steps
        :param batch_size: transitions per gradient step
        :raises ValueError: if a loss was not finite
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        self._update_learning_rate(self.policy.optimizer)

        coefficients = self.loss_coefficients()
        losses, q_values = [], []
        for gradient_step in range(gradient_steps):
            # Sample replay buffer
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            # For n-step replay, discount factor is gamma**n_steps (when no early termination)
            discounts = replay_data.discounts if replay_data.discounts is not None else self.gamma

            with without_denormals(self.policy.optimizer, self._n_updates + gradient_step):
                # Optimize the policy
                self.policy.optimizer.zero_grad()
                masks = self.next_action_masks(replay_data)
                masked = coefficients if masks is None else (*coefficients, masks)
                loss, squared_td_error, batch_q_values = self._compute_gradient(replay_data, discounts, *masked)
                # Clip gradient norm
                th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            losses.append(loss)
            q_values.append(batch_q_values)
            self._after_gradient_step(squared_td_error)

        # Increase update counter
        self._n_updates += gradient_steps
        self._log_training(losses, q_values)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        # The result is checked, so that the schedule is called only once: it may count its calls
        super()._update_learning_rate(optimizers)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                inputs.check_learning_rate(group["lr"], self._current_progress_remaining)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        # The last rollout may go beyond total_timesteps: SB3's linear schedules would give a negative learning rate there
        self._current_progress_remaining = max(self._current_progress_remaining, 0.0)
        if self._latest_episode[0] != self._episode_num:
            self._latest_episode = self._episode_num, num_timesteps
        in_episodes = self.train_freq.unit is TrainFrequencyUnit.EPISODE  # type: ignore[union-attr]
        if in_episodes and num_timesteps > max(total_timesteps, self._latest_episode[1]) + LONGEST_LAST_EPISODE_STEPS:
            raise ValueError(
                f"train_freq counts episodes, got {self.train_freq}, but no episode ended in the last "
                f"{LONGEST_LAST_EPISODE_STEPS} steps, all of them after total_timesteps = {total_timesteps}: set train_freq "
                "to a number of steps, or limit the length of episodes (gymnasium.wrappers.TimeLimit)"
            )

    def loss_coefficients(self) -> tuple[th.Tensor, ...]:
        """
        The arguments of :attr:`batch_loss` besides the batch. :meth:`train` reads them at each call, joint training only once.

        :return: the last arguments of :attr:`batch_loss`, on the model's device; DQN has none
        """
        return ()

    def _compute_gradient(
        self, replay_data: Any, discounts: th.Tensor | float, *coefficients: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        Compute the loss of one batch, and add its gradient to that of the parameters.

        :param replay_data: the batch
        :param discounts: γ, or γⁿ [batch, 1]
        :param coefficients: the last arguments of :attr:`batch_loss`
        :return: loss [], mean squared TD error [] and Q(s, ·) [batch, n_actions]
        """
        batch = (replay_data.actions, replay_data.rewards, replay_data.dones)
        if self.compile_update:
            discounts = th.as_tensor(discounts, device=self.device)
            observations = (replay_data.observations, replay_data.next_observations)
            return self._get_compiled_gradient()(*observations, *batch, discounts, *coefficients)
        with self._network_precision():
            with th.no_grad():
                # Compute the next Q-values using the target network
                target_outputs = [full_precision(self.q_net_target(replay_data.next_observations))]
                if self.needs_current_target_q_values:
                    target_outputs.append(full_precision(self.q_net_target(replay_data.observations)))
            # Get current Q-values estimates
            q_values = full_precision(self.q_net(replay_data.observations))
        loss, squared_td_error = self.batch_loss(q_values, *target_outputs, *batch, discounts, *coefficients, loss=self.loss)
        loss.backward()
        return loss.detach(), squared_td_error.detach(), q_values.detach()

    def _get_compiled_gradient(self) -> CompiledGradient:
        """The compiled function, compiled anew when one of its settings has changed."""
        needs_current = self.needs_current_target_q_values
        settings = (self.q_net, self.q_net_target, self.batch_loss, self.loss, self.mixed_precision, needs_current)
        if self._compiled_gradient is None or self._compiled_gradient[0] != settings:
            if self.verbose >= 1:
                print("Compiling the gradient step: the first one may take a minute")
            loss = partial(self.batch_loss, loss=self.loss)
            compiled = CompiledGradient(self.q_net, self.q_net_target, loss, self._network_precision, needs_current)
            self._compiled_gradient = settings, compiled
        return self._compiled_gradient[1]

    def _network_precision(self) -> AbstractContextManager:
        return th.autocast(self.device.type, th.bfloat16) if self.mixed_precision else nullcontext()

    def _log_training(self, losses: list[th.Tensor], q_values: list[th.Tensor], **values: th.Tensor) -> None:
        """
        Log what one call of :meth:`train` did, with a single read from the device.

        :param losses: of every gradient step, []
        :param q_values: Q(s, ·) of every gradient step's batch, [batch, n_actions]
        :param values: further values to be logged by name, []
        :raises ValueError: if a loss was not finite
        """
        if not losses:
            return
        numbers = th.stack([*losses, *values.values()]).tolist()
        further = dict(zip(values, numbers[len(losses) :], strict=True))
        self.record_training(numbers[: len(losses)], q_values, **further)

    def record_training(self, losses: list[float], q_values: list[th.Tensor], **values: float) -> None:
        """
        Record what one call of :meth:`train` did. :attr:`_n_updates` counts its gradient steps already.

        :param losses: of every gradient step
        :param q_values: Q(s, ·) of every gradient step's batch, [batch, n_actions]
        :param values: further values to be recorded by name
        :raises ValueError: if a loss was not finite
        """
        finite = np.isfinite(losses)
        if not finite.all():
            first = int(np.argmin(finite))
            raise ValueError(
                f"The {self.loss} loss was {losses[first]} at gradient step {self._n_updates - len(losses) + first + 1} "
                f"(environment step {self.num_timesteps}), with "
                + "".join(f"{name} = {value:g} and " for name, value in values.items())
                + f"largest |Q| = {q_values[first].abs().max():g} and largest |reward| in the replay buffer = "
                f"{np.abs(self.replay_buffer.rewards).max():g}. "  # type: ignore[union-attr]
                "Training stopped: the weights are lost. A smaller learning_rate, loss='huber', or rewards and observations "
                "that are normalised may help."
            )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        for name, value in values.items():
            self.logger.record(f"train/{name}", value)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_compiled_gradient": None}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_compiled_gradient"]


# __init_subclass__() does this for subclasses
BaseDQN.__signature__ = constructor_signature(BaseDQN)  # type: ignore[attr-defined]


class DQNMSE(BaseDQN):
    """:class:`BaseDQN` with the mean squared error as its default loss. Arguments are those of :class:`BaseDQN`."""

    algorithm = "DQNMSE"

    def __init__(self, *args: Any, loss: str = "mse", **kwargs: Any) -> None:
        super().__init__(*args, loss=loss, **kwargs)
