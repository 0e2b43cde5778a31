"""
Action masks, which say which actions are valid in a state: :class:`ActionMaskInfo`, the wrapper that makes the mask of a new
state part of the transition, and the checks of masks.

The convention is that of sb3-contrib's ``MaskablePPO``: an environment has a method ``action_masks()``.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from sb3_contrib.common.maskable.utils import EXPECTED_METHOD_NAME, get_action_masks, is_masking_supported
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_mirl.common.inputs import UnsupportedError

#: Where :class:`ActionMaskInfo` writes the mask of the new state, in the ``info`` of a step
MASK_IN_INFO = "action_masks"


class ActionMaskInfo(gym.Wrapper, RecordConstructorArgs):
    """
    Writes the mask of the new state into ``info["action_masks"]`` at each step, bool [n_actions].

    A replay buffer stores the mask of s' with each transition. The mask of an episode's last state must be read within the
    step, because a vector environment then begins the next episode. It is used if the episode was truncated. If the episode
    was terminated, no action follows, and the wrapper writes a mask of True for all actions.

    Algorithms of this package put single environments into this wrapper themselves. For vector environments:
    ``make_vec_env(..., wrapper_class=ActionMaskInfo)``, and in rl-zoo3 ``env_wrapper: sb3_mirl.ActionMaskInfo``.

    :param env: with a method ``action_masks()``, its own or that of sb3-contrib's ``ActionMasker``, and Discrete actions
    :param info_key: take masks from this key of the environment's ``info`` of ``reset()`` and ``step()`` instead
        (``"action_mask"`` for Taxi); the wrapper then has the method ``action_masks()``
    :raises ValueError: if the environment has no masks, or actions that are not Discrete
    """

    def __init__(self, env: gym.Env, info_key: str | None = None) -> None:
        RecordConstructorArgs.__init__(self, info_key=info_key)
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"env must have a Discrete action space for ActionMaskInfo, got {env.action_space} of {env}")
        if info_key is not None and not isinstance(info_key, str):
            raise ValueError(f"info_key must be None or a key of the environment's info, got {info_key!r}")
        if info_key is None and not is_masking_supported(env):
            raise UnsupportedError(
                f"env must have a method {EXPECTED_METHOD_NAME}(), as sb3_contrib's ActionMasker adds one, got {env}. For "
                "masks in the environment's info: ActionMaskInfo(env, info_key=...), in the zoo env_wrapper: "
                "[{sb3_mirl.ActionMaskInfo: {info_key: ...}}]"
            )
        if info_key is None and not callable(method := env.get_wrapper_attr(EXPECTED_METHOD_NAME)):
            raise ValueError(f"env must have a method {EXPECTED_METHOD_NAME}(), got the attribute {method!r} of {env}")
        self.info_key = info_key
        # With info_key, that of the present state
        self._mask: np.ndarray | None = None

    def action_masks(self) -> np.ndarray:
        """
        :return: which actions are valid in the present state, bool [n_actions]
        :raises ValueError: if the environment's mask has another shape, other values or no valid action
        """
        return self._checked(self._present_mask())

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, as in Gymnasium."""
        observation, info = self.env.reset(**kwargs)
        self._take(info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, as in Gymnasium, and add the mask of the new state to ``info``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            # No action follows a terminal state, and games may have no valid action or no mask there
            mask = np.full(int(self.action_space.n), True)  # type: ignore[attr-defined]
        else:
            self._take(info)
            mask = self.action_masks()
        return observation, reward, terminated, truncated, {**info, MASK_IN_INFO: mask}

    def _present_mask(self) -> Any:
        return get_action_masks(self.env) if self.info_key is None else self._mask

    def _take(self, info: dict[str, Any]) -> None:
        if self.info_key is None:
            return
        if self.info_key not in info:
            raise ValueError(
                f"info_key must be a key of the info that reset() and step() of {self.env} return, got {self.info_key!r}; "
                f"the info has {sorted(info)}"
            )
        self._mask = np.array(info[self.info_key])

    def _checked(self, mask: Any) -> np.ndarray:
        return checked_masks(mask, (int(self.action_space.n),), f"The action mask of {self.env}")  # type: ignore[attr-defined]


def checked_masks(masks: Any, shape: tuple[int, ...], name: str = "action_masks") -> np.ndarray:
    """
    :param masks: True or 1 for valid actions, False or 0 for others, [..., n_actions]
    :param shape: the shape that is needed
    :param name: for the error
    :return: bool, of this shape; a copy, since an environment may change its own array at the next step
    :raises ValueError: for another shape, other values, or a state without a valid action
    """
    given = np.array(masks)
    accepted = f"{name} must be True or 1 for valid actions and False or 0 for others, of shape {shape}"
    if given.shape != shape:
        raise ValueError(f"{accepted}, got shape {given.shape}: {masks!r}")
    valid = given if given.dtype == bool else given == 1
    if given.dtype.kind not in "biuf" or not (valid | (given == 0)).all():
        raise ValueError(f"{accepted}, got {masks!r}")
    if not valid.any(axis=-1).all():
        raise ValueError(f"{accepted}, with at least one valid action in each state, got {masks!r}")
    return valid


def masks_in_infos(infos: list[dict[str, Any]], n_actions: int) -> np.ndarray:
    """
    :param infos: of one step, those of all environments
    :param n_actions: number of actions
    :return: which actions are valid in the new states, at the end of an episode in its last state, bool [n_envs, n_actions]
    :raises ValueError: if one is missing or not valid
    """
    for env, info in enumerate(infos):
        if MASK_IN_INFO not in info:
            raise ValueError(
                f"info of environment {env} must have the key {MASK_IN_INFO!r}, which ActionMaskInfo writes, "
                f"got {sorted(info)}"
            )
    masks = [info[MASK_IN_INFO] for info in infos]
    return np.stack([checked_masks(mask, (n_actions,), f"The action mask of environment {i}") for i, mask in enumerate(masks)])


def supports_action_masks(env: VecEnv) -> bool:
    """
    :param env: a vector environment
    :return: whether its environments have a method ``action_masks()``
    :raises ValueError: if only some of them have it, or if they have it but cannot be wrapped by :class:`ActionMaskInfo`
    """
    if not isinstance(env.unwrapped, (DummyVecEnv, SubprocVecEnv)):
        try:
            methods = env.get_attr(EXPECTED_METHOD_NAME)
        except (AttributeError, KeyError, NotImplementedError):
            return False
        if all(map(callable, methods)):
            raise ValueError(
                f"env with action masks must be a DummyVecEnv or a SubprocVecEnv, whose environments are in the wrapper "
                f"ActionMaskInfo, got {env}, which is not made of single environments"
            )
        return False
    if is_masking_supported(env):
        return True
    supported = env.env_method("has_wrapper_attr", EXPECTED_METHOD_NAME)
    if any(supported):
        without = [index for index, found in enumerate(supported) if not found]
        raise ValueError(
            f"All environments must have a method {EXPECTED_METHOD_NAME}(), or none of them: it is missing in {without} of "
            f"{env.num_envs} environments"
        )
    return False


def with_masks_in_info(env: GymEnv) -> GymEnv:
    """
    :param env: an environment, or a vector environment
    :return: ``env`` wrapped by :class:`ActionMaskInfo` if it has action masks, otherwise ``env`` itself
    :raises ValueError: for a vector environment with action masks whose environments are not in this wrapper
    """
    if not isinstance(env, VecEnv):
        needs_wrapper = isinstance(env, gym.Env) and is_masking_supported(env) and not is_wrapped(env, ActionMaskInfo)
        return ActionMaskInfo(env) if needs_wrapper else env
    if supports_action_masks(env) and not all(env.env_is_wrapped(ActionMaskInfo)):
        raise ValueError(
            "env has action masks: each of its environments must be in the wrapper ActionMaskInfo, which keeps the mask of "
            f"the last state of an episode for the replay buffer, got {env} without it. Make it by "
            "make_vec_env(..., wrapper_class=sb3_mirl.ActionMaskInfo), or in rl-zoo3 with the hyper-parameter "
            "env_wrapper: sb3_mirl.ActionMaskInfo"
        )
    return env
