"""The wrapper that makes masks a part of transitions, and what is refused."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.toy_text.taxi import TaxiEnv
from masked import MaskedProbe, MaskInInfo
from probes import ConstantReward
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from sb3_mirl import MIRL, ActionMaskInfo
from sb3_mirl.common.action_masks import (
    MASK_IN_INFO,
    checked_masks,
    masks_in_infos,
    supports_action_masks,
    with_masks_in_info,
)


class Fixed(ConstantReward):
    """Always gives the same mask, whatever it is."""

    def __init__(self, mask, **kwargs):
        super().__init__(n_actions=3, **kwargs)
        self.mask = mask

    def action_masks(self):
        return self.mask


class Reused(ConstantReward):
    """State t forbids action t. The mask is one array, which changes in place."""

    def __init__(self):
        super().__init__(n_actions=4)
        self.mask = np.ones(4, dtype=bool)

    def _forbid(self, action):
        self.mask[:] = True
        self.mask[action] = False

    def reset(self, **kwargs):
        self._forbid(0)
        self.t = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.t += 1
        self._forbid(self.t)
        return super().step(action)

    def action_masks(self):
        return self.mask


@pytest.mark.parametrize("vec_env", [DummyVecEnv, partial(SubprocVecEnv, start_method="fork")])
def test_mask_of_a_truncated_state_is_not_that_of_the_next_episode(vec_env):
    env = vec_env([lambda: ActionMaskInfo(gym.wrappers.TimeLimit(Reused(), 3))])
    env.reset()
    for _ in range(3):
        *_, infos = env.step(np.array([0]))
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0][MASK_IN_INFO].tolist() == [True, True, True, False]
    env.close()


def test_the_wrapper_is_in_the_environments_spec():
    env = ActionMaskInfo(gym.make("Taxi-v4"), info_key="action_mask")
    assert gym.make(env.spec).get_wrapper_attr("info_key") == "action_mask"


def walk(env, steps, seed=0):
    """Masks of the infos, the state of the environment after each step, and whether an episode ended."""
    probe, rng = env.unwrapped, np.random.default_rng(seed)
    env.reset(seed=seed)
    for _ in range(steps):
        mask = env.get_wrapper_attr("action_masks")()
        np.testing.assert_array_equal(mask, probe.masks[probe.state])
        _, _, terminated, truncated, info = env.step(rng.choice(np.flatnonzero(mask)))
        yield info[MASK_IN_INFO], probe.state, terminated or truncated
        if terminated or truncated:
            env.reset()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ActionMaskInfo(MaskedProbe()),
        lambda: ActionMaskInfo(gym.wrappers.TimeLimit(MaskedProbe(), 3)),
        lambda: ActionMaskInfo(MaskInInfo(MaskedProbe()), info_key="action_mask"),
        lambda: ActionMaskInfo(ActionMasker(MaskInInfo(MaskedProbe()), lambda env: env.unwrapped.action_masks())),
    ],
    ids=["own method", "inside other wrappers", "info", "ActionMasker"],
)
def test_info_holds_the_mask_of_the_new_state(make):
    env = make()
    ended = 0
    for mask, state, end in walk(env, 40):
        assert mask.dtype == bool
        # Nothing is done in state 0, which ends an episode
        np.testing.assert_array_equal(mask, env.unwrapped.masks[state] | (state == 0 and end))
        ended += end
    assert ended > 2


def test_taxi_gives_its_mask_in_the_info():
    env = ActionMaskInfo(TaxiEnv(), info_key="action_mask")
    env.reset(seed=0)
    for _ in range(20):
        mask = env.action_masks()
        np.testing.assert_array_equal(mask, env.unwrapped.action_mask(env.unwrapped.s))
        *_, info = env.step(np.flatnonzero(mask)[-1])
        np.testing.assert_array_equal(info[MASK_IN_INFO], env.unwrapped.action_mask(env.unwrapped.s))


def test_environment_of_sb3_contrib():
    env = ActionMaskInfo(InvalidActionEnvDiscrete(dim=6, n_invalid_actions=4))
    env.reset(seed=0)
    for _ in range(20):
        mask = env.action_masks()
        assert mask.sum() == 2 and mask[env.unwrapped.state]
        *_, info = env.step(env.unwrapped.state)
        np.testing.assert_array_equal(info[MASK_IN_INFO], env.unwrapped.action_masks())


def test_vector_environment_keeps_the_mask_of_the_last_state():
    env = make_vec_env(MaskedProbe, 1, seed=0, wrapper_class=ActionMaskInfo)
    env.reset()
    ended = 0
    for _ in range(30):
        actions = [int(np.argmax(mask)) for mask in env.env_method("action_masks")]
        _, _, dones, infos = env.step(np.array(actions))
        if dones[0]:
            ended += 1
            last = int(infos[0]["terminal_observation"].argmax())
            np.testing.assert_array_equal(infos[0][MASK_IN_INFO], MaskedProbe().masks[last] | (last == 0))
    assert ended > 2


def test_terminal_state_needs_no_valid_action():
    env = ActionMaskInfo(Fixed(np.ones(3, bool), length=1))
    env.reset()
    env.unwrapped.mask = np.zeros(3, bool)
    *_, terminated, truncated, info = env.step(0)
    assert terminated and not truncated and info[MASK_IN_INFO].all()
    env = ActionMaskInfo(gym.wrappers.TimeLimit(Fixed(np.ones(3, bool)), 1))
    env.reset()
    env.unwrapped.mask = np.zeros(3, bool)
    # Truncated: its value is used
    with pytest.raises(ValueError, match="at least one valid action"):
        env.step(0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, False], r"of shape \(3,\), got shape \(2,\): \[True, False\]"),
        ([[True, False, True]], r"got shape \(1, 3\)"),
        ([0, 2, 1], r"got \[0, 2, 1\]"),
        ([0.5, 1, 1], r"got \[0.5, 1, 1\]"),
        ([np.nan, 1.0, 1.0], "got"),
        (["yes", "no", "no"], "got"),
        ([False] * 3, "at least one valid action in each state, got"),
        (None, "got shape"),
    ],
)
def test_bad_masks_are_refused_by_name(mask, message):
    env = ActionMaskInfo(Fixed(mask))
    with pytest.raises(ValueError, match=f"(?s)The action mask of .*Fixed.* must be True or 1 for valid actions.*{message}"):
        env.action_masks()


@pytest.mark.parametrize("mask", [[True, False, True], np.array([1, 0, 1], np.int8), [1.0, 0.0, 1.0]])
def test_accepted_masks_become_bool(mask):
    found = checked_masks(mask, (3,))
    assert found.dtype == bool and found.tolist() == [True, False, True]


def test_what_the_wrapper_refuses():
    with pytest.raises(ValueError, match=r"must have a method action_masks\(\).*ConstantReward.*info_key"):
        ActionMaskInfo(ConstantReward())
    with pytest.raises(ValueError, match=r"Discrete action space .*got MultiBinary"):
        continuous = Fixed([True])
        continuous.action_space = spaces.MultiBinary(3)
        ActionMaskInfo(continuous)
    with pytest.raises(ValueError, match=r"info_key must be None or a key .*got 3"):
        ActionMaskInfo(MaskedProbe(), info_key=3)
    with pytest.raises(ValueError, match=r"info_key .*got 'masks'; the info has \['action_mask'\]"):
        ActionMaskInfo(MaskInInfo(MaskedProbe()), info_key="masks").reset()


def test_masks_of_infos():
    infos = [{MASK_IN_INFO: np.array([True, False])}, {MASK_IN_INFO: np.array([True, True])}]
    assert masks_in_infos(infos, 2).tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"info of environment 1 must have the key 'action_masks'.*got \['other'\]"):
        masks_in_infos([infos[0], {"other": 0}], 2)
    with pytest.raises(ValueError, match=r"The action mask of environment 0 must be .* of shape \(3,\)"):
        masks_in_infos(infos, 3)


def test_single_environments_are_wrapped_once():
    env = with_masks_in_info(MaskedProbe())
    assert isinstance(env, ActionMaskInfo)
    outside = gym.wrappers.TimeLimit(env, 5)
    assert with_masks_in_info(outside) is outside
    without = ConstantReward()
    assert with_masks_in_info(without) is without


def test_vector_environments_need_the_wrapper():
    wrapped = VecMonitor(make_vec_env(MaskedProbe, 2, wrapper_class=ActionMaskInfo))
    assert with_masks_in_info(wrapped) is wrapped
    without = DummyVecEnv([ConstantReward])
    assert with_masks_in_info(without) is without and not supports_action_masks(without)
    mixed = DummyVecEnv([lambda: ActionMaskInfo(MaskedProbe()), MaskedProbe])
    with pytest.raises(ValueError, match=r"make_vec_env\(\.\.\., wrapper_class=sb3_mirl\.ActionMaskInfo\)"):
        with_masks_in_info(mixed)


def test_masks_that_some_environments_lack():
    env = DummyVecEnv([lambda: ActionMaskInfo(MaskedProbe()), lambda: MaskInInfo(MaskedProbe())])
    with pytest.raises(ValueError, match=r"action_masks\(\).*missing in \[1\] of 2 environments"):
        supports_action_masks(env)


class Batch(VecEnv):
    """A vector environment that is not made of single ones, and has every attribute."""

    def get_attr(self, attr_name, indices=None):
        return [None] * self.num_envs

    def nothing(self, *args, **kwargs):
        raise NotImplementedError

    reset = step_async = step_wait = close = set_attr = env_method = env_is_wrapped = nothing


@pytest.mark.parametrize("error", [None, AttributeError, KeyError, NotImplementedError])
def test_vector_environment_of_its_own_kind_has_no_masks(error):
    class Without(Batch):
        def get_attr(self, attr_name, indices=None):
            if error is not None and attr_name == "action_masks":
                raise error(attr_name)
            return super().get_attr(attr_name)

    env = ConstantReward()
    assert not supports_action_masks(Without(2, env.observation_space, env.action_space))


def test_vector_environment_of_its_own_kind_with_masks_is_refused():
    class Masked(Batch):
        def get_attr(self, attr_name, indices=None):
            return [lambda: [1, 0]] * self.num_envs if attr_name == "action_masks" else [None] * self.num_envs

    env = ConstantReward()
    with pytest.raises(ValueError, match="env with action masks must be a DummyVecEnv or a SubprocVecEnv"):
        MIRL("MlpPolicy", Masked(2, env.observation_space, env.action_space))


def test_attribute_that_is_no_method_is_refused():
    env = ConstantReward()
    env.action_masks = None
    with pytest.raises(ValueError, match=r"env must have a method action_masks\(\), got the attribute None"):
        with_masks_in_info(env)


def test_terminal_states_are_not_asked_for_their_mask():
    class Game(Fixed):
        def action_masks(self):
            if self.over:
                raise RuntimeError("The game is over")
            return super().action_masks()

        def reset(self, **kwargs):
            self.over = False
            return super().reset(**kwargs)

        def step(self, action):
            result = super().step(action)
            self.over = result[2]
            return result

    env = ActionMaskInfo(Game(np.ones(3, bool), length=1))
    env.reset()
    *_, info = env.step(0)
    assert info[MASK_IN_INFO].all()
