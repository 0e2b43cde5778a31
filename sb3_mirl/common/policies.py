"""SB3's DQN policies with fused Adam, images in channels-last format for NatureCNN, and compiled acting."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn import policies
from stable_baselines3.dqn.policies import QNetwork

from sb3_mirl.common.action_masks import checked_masks
from sb3_mirl.common.export.onnx import Acting
from sb3_mirl.common.gradient import CompiledActing, channels_last
from sb3_mirl.common.inputs import is_number


def greedy_actions(q_values: th.Tensor) -> list[th.Tensor]:
    """argmaxₐ Q(s,a), [batch], of Q(s, ·), [batch, n_actions]."""
    return [q_values.argmax(dim=1)]


class DQNPolicy(policies.DQNPolicy):
    """
    SB3's ``DQNPolicy``, with its arguments. Adam, the default optimiser, is fused unless ``optimizer_kwargs`` decide
    otherwise. The action space may start at another number than 0.

    :param needs_action_masks: whether :meth:`predict` needs action masks
    """

    #: What acting computes: a pure function of Q(s, ·) and further tensors; its last result is the network's actions
    acting: Callable[..., list[th.Tensor]] = staticmethod(greedy_actions)
    _compiled_acting: CompiledActing | None = None
    #: During :meth:`predict`, which actions are valid, bool [batch, n_actions]; None: all
    action_masks: th.Tensor | None = None
    #: Whether the policy was trained with action masks, which :meth:`predict` then needs
    needs_action_masks: bool = False
    #: Outputs of :meth:`onnx_module`
    onnx_outputs: ClassVar[tuple[str, ...]] = ("action", "q_values")

    def __init__(self, *args: Any, needs_action_masks: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs_action_masks = needs_action_masks

    def make_q_net(self) -> QNetwork:
        """SB3's network, with images in channels-last format; raises ValueError for the ``net_arch`` of other algorithms."""
        layers: Any = self.net_args["net_arch"]
        if isinstance(layers, Mapping) or not all(is_number(layer) for layer in layers):
            raise ValueError(f"policy_kwargs['net_arch'] must be a list of integers >= 1 with DQN's network, got {layers!r}")
        net_args = self._update_features_extractor(self.net_args, features_extractor=None)
        return _QNetwork(**net_args).to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # Not for a user's function that creates an Adam, which chooses ``fused`` itself
        if self.optimizer_class is th.optim.Adam and _can_be_fused(self.optimizer, self.optimizer_kwargs):
            self.optimizer_kwargs = {**self.optimizer_kwargs, "fused": True}
            self.optimizer = th.optim.Adam(
                self.q_net.parameters(), lr=self.optimizer.param_groups[0]["lr"], **self.optimizer_kwargs
            )
        self.optimizer.register_load_state_dict_pre_hook(_keep_fused)

    def set_training_mode(self, mode: bool) -> None:
        """As in SB3, but skipped if all modules are in evaluation mode already, to make :meth:`predict` faster."""
        if mode or self.training or _has_training_mode(self.q_net):
            super().set_training_mode(mode)

    def compute_acting(self, obs: PyTorchObs, *tensors: th.Tensor) -> list[th.Tensor]:
        """
        Run the network and :attr:`acting`; after :meth:`compile_acting`, as one compiled function.

        :param obs: observations, as the network takes them
        :param tensors: further arguments of :attr:`acting`
        """
        if self._compiled_acting is None:
            return self.acting(self.q_net(obs), *tensors)
        if self._compiled_acting.q_net is not self.q_net:
            self.compile_acting()
        return self._compiled_acting(obs, *tensors)

    def compile_acting(self) -> None:
        """
        Make :meth:`predict` run the network and :attr:`acting` as one compiled function, which differs by rounding only. It is
        compiled in the next call, and again for each new number of observations.

        :raises ValueError: if the network cannot be compiled; the message says why
        """
        self.check_acts_greedily("compile_update=True")
        self._compiled_acting = CompiledActing(self.q_net, self.acting)

    def _q_net_overrides_predict(self) -> bool:
        return self.acting is greedy_actions and type(self.q_net)._predict is not QNetwork._predict

    def check_acts_greedily(self, what: str) -> None:
        """
        :param what: that needs it, for the error
        :raises ValueError: if the network has a ``_predict`` of its own, which SB3 lets choose the actions
        """
        if self._q_net_overrides_predict():
            raise ValueError(f"{what} takes argmax Q(s,a), but {type(self.q_net).__name__} has a _predict of its own")

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        if self._q_net_overrides_predict():
            if self.action_masks is not None:
                self.check_acts_greedily("Acting with action masks")
            return self.q_net._predict(obs, deterministic=deterministic)
        if self.action_masks is None:
            return self.compute_acting(obs)[-1]
        return self.acting(self.q_net(obs).masked_fill(~self.action_masks, -th.inf))[-1]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in SB3, with actions of the environment, and with ``action_masks`` as in :meth:`checked_action_masks`."""
        masks = self.checked_action_masks(observation, action_masks)
        if masks is not None:
            self.action_masks = th.as_tensor(masks, device=self.device)
        try:
            actions, state = super().predict(observation, state, episode_start, deterministic)
        finally:
            self.action_masks = None
        if masks is not None and not masks[np.arange(len(masks)), np.reshape(actions, -1)].all():
            raise ValueError(
                f"{type(self).__name__}._predict must choose valid actions, those of self.action_masks, got {actions} for "
                f"{masks}"
            )
        return self.to_env_actions(actions), state

    def checked_action_masks(self, observation: np.ndarray | dict[str, np.ndarray], action_masks: Any) -> np.ndarray | None:
        """
        :param observation: as :meth:`predict` takes it
        :param action_masks: which actions are valid, bool [batch, n_actions], or [n_actions] for a single observation. None:
            all
        :return: bool [batch, n_actions], or None
        :raises ValueError: if masks are not valid, or missing for a policy that was trained with masks
        """
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        self.check_masks_are_given(action_masks)
        if action_masks is None:
            return None
        if isinstance(observation, tuple):
            gave = "got a tuple: env.reset() returns (observation, info)"
            raise ValueError(f"observation must be an array or a dict of arrays, {gave}")
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        if self.is_vectorized_observation(observation):
            return checked_masks(action_masks, (len(first), n_actions))
        # get_action_masks() of a single environment gives [n_actions]
        masks = np.asarray(action_masks)
        return checked_masks(masks if masks.ndim == 2 else masks[None], (1, n_actions))

    def check_masks_are_given(self, action_masks: Any) -> None:
        """
        :param action_masks: any, or None
        :raises ValueError: for None, if the policy needs masks
        """
        if action_masks is None and self.needs_action_masks:
            raise ValueError(
                f"action_masks must say which actions are valid, bool [batch, {self.action_space.n}], because the model uses "  # type: ignore[attr-defined]
                "masks, got None. sb3_contrib.common.maskable.utils.get_action_masks(env) gives those of an environment; to "
                "evaluate: evaluate_policy and MaskableEvalCallback in sb3_contrib.common.maskable"
            )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # Named only where it differs from the default, for subclasses that do not know it
        own = {"needs_action_masks": True} if self.needs_action_masks else {}
        return {**super()._get_constructor_parameters(), **own}

    def to_env_actions(self, actions: np.ndarray) -> np.ndarray:
        """The network's actions, which count from 0, as the environment's, which count from ``action_space.start``."""
        start = self.action_space.start  # type: ignore[attr-defined]
        return np.asarray(actions + start) if start else actions

    def check_loaded_state(self) -> None:
        """
        Check the buffers after they were loaded from a file. Subclasses with buffers override this method.

        :raises ValueError: if a buffer is not valid
        """

    def onnx_module(self) -> Acting:
        """The function that an ONNX file holds: observations, as the network takes them, → :attr:`onnx_outputs`."""
        self.check_acts_greedily("ONNX export")
        return Acting(self)


def _has_training_mode(module: th.nn.Module) -> bool:
    """Whether a module, or a module in it, is in training mode."""
    return module.training or any(_has_training_mode(child) for child in module._modules.values() if child is not None)


class _QNetwork(QNetwork):
    """SB3's, with images in channels-last format while gradients are computed."""

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        # For this extractor only: others may contain a view(), which fails on such tensors
        if th.is_grad_enabled() and type(features_extractor) is NatureCNN:
            obs = channels_last(obs)  # type: ignore[arg-type]
        return super().extract_features(obs, features_extractor)


def _can_be_fused(optimizer: th.optim.Optimizer, kwargs: dict[str, Any]) -> bool:
    """Whether Adam can be fused for its parameters, and its arguments don't decide."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return all(map(th.is_floating_point, parameters)) and not kwargs.keys() & {"fused", "foreach", "differentiable"}


def _keep_fused(optimizer: th.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """``load_state_dict`` would take over whether the *saved* optimiser was fused: keep what this one was built with."""
    fused = optimizer.defaults.get("fused")
    groups = [{**group, "fused": fused} if "fused" in group else group for group in state_dict["param_groups"]]
    return {**state_dict, "param_groups": groups}


MlpPolicy = DQNPolicy


class CnnPolicy(DQNPolicy):
    """:class:`DQNPolicy` for images: ``features_extractor_class`` is NatureCNN unless given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(DQNPolicy):
    """:class:`DQNPolicy` for Dict observations: ``features_extractor_class`` is CombinedExtractor unless given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})


POLICY_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
}
