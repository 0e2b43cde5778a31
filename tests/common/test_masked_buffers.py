"""Each sample has the mask of its own s', and is otherwise what the buffer without masks gives."""

import pickle

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import ActionMaskInfo, DeviceReplayBuffer, FrameReplayBuffer
from sb3_mirl.common.masked_buffers import MASKED_BUFFERS

KINDS = [
    (ReplayBuffer, "one-hot", {}),
    (ReplayBuffer, "number", {}),
    (DictReplayBuffer, "dict", {}),
    (NStepReplayBuffer, "one-hot", {"n_steps": 3, "gamma": 0.9}),
    (FrameReplayBuffer, "image", {}),
    (FrameReplayBuffer, "image", {"n_steps": 3, "gamma": 0.9}),
    (DeviceReplayBuffer, "one-hot", {}),
]


def filled(kind, observation, kwargs, n_steps=80, size=100, n_envs=2):
    """Both buffers with the same transitions of random valid actions; the slots have been used more than once."""
    env = make_vec_env(lambda: MaskedProbe(observation=observation), n_envs, seed=0, wrapper_class=ActionMaskInfo)
    spaces = env.observation_space, env.action_space
    buffers = [cls(size, *spaces, "cpu", n_envs, **kwargs) for cls in (MASKED_BUFFERS[kind], kind)]
    rng = np.random.default_rng(0)
    obs, truncations = env.reset(), 0
    for _ in range(n_steps):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in env.env_method("action_masks")])
        new_obs, rewards, dones, infos = env.step(actions)
        next_obs = {key: value.copy() for key, value in new_obs.items()} if isinstance(new_obs, dict) else new_obs.copy()
        for index, done in enumerate(dones):
            if done:
                last = infos[index]["terminal_observation"]
                truncations += infos[index]["TimeLimit.truncated"]
                for key in next_obs if isinstance(next_obs, dict) else ():
                    next_obs[key][index] = last[key]
                if not isinstance(next_obs, dict):
                    next_obs[index] = last
        for buffer in buffers:
            buffer.add(obs, next_obs, actions, rewards, dones, infos)
        obs = new_obs
    assert truncations > 5 and all(buffer.full for buffer in buffers)
    return buffers


def states(observations):
    """The number of the state of each observation."""
    if isinstance(observations, dict):
        observations = observations["one-hot"]
    if observations.dim() == 4:
        return observations[:, 0, 0, 0].long()
    return observations.argmax(dim=1) if observations.shape[1] > 1 else observations[:, 0].long()


@pytest.mark.parametrize(("kind", "observation", "kwargs"), KINDS)
def test_samples_have_the_mask_of_their_next_state(kind, observation, kwargs):
    with_masks, without = filled(kind, observation, kwargs)
    table = th.as_tensor(MaskedProbe().masks)
    # It ends episodes: nothing is done there
    table[0] = True
    np.random.seed(3)
    samples = with_masks.sample(500)
    assert samples.next_action_masks.dtype == th.bool
    th.testing.assert_close(samples.next_action_masks, table[states(samples.next_observations)])
    # Otherwise nothing has changed, and the buffer is as it was
    np.random.seed(3)
    expected = without.sample(500)
    for name in expected._fields:
        th.testing.assert_close(getattr(samples, name), getattr(expected, name))
    assert type(with_masks.next_observations) is type(without.next_observations)
    if "n_steps" in kwargs:
        assert len(set(samples.discounts.ravel().tolist())) == 3


def test_masks_take_a_byte_for_each_action():
    buffer, _ = filled(ReplayBuffer, "one-hot", {})
    assert buffer.next_action_masks.nbytes == 100 * MaskedProbe().action_space.n


def test_pickled_buffer_keeps_its_masks():
    buffer, _ = filled(ReplayBuffer, "one-hot", {})
    copied = pickle.loads(pickle.dumps(buffer))
    for one in (buffer, copied):
        np.random.seed(0)
        one.found = one.sample(50).next_action_masks
    assert th.equal(buffer.found, copied.found)


def test_transition_without_mask_is_refused():
    buffer, _ = filled(ReplayBuffer, "one-hot", {})
    row = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="info of environment 0 must have the key 'action_masks'"):
        buffer.add(row, row, np.zeros(2, int), np.zeros(2), np.zeros(2), [{}, {}])
