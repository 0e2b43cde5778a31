"""The frame-sharing replay buffer returns what SB3's returns, and takes less memory."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_mirl import MIRL
from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer


class Frames(gym.Env):
    """Random images; episodes end or are cut off at random; some images are black or the same as the one before."""

    def __init__(self, shape=(8, 8, 1), seed=0):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(3)
        self.rng = np.random.default_rng(seed)
        self.image = np.zeros(shape, np.uint8)

    def next_image(self):
        kind = self.rng.random()
        if kind < 0.1:
            self.image = np.zeros_like(self.image)
        elif kind < 0.8:
            self.image = self.rng.integers(0, 256, self.image.shape, dtype=np.uint8)
        return self.image.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.next_image(), {}

    def step(self, action):
        end = self.rng.random()
        return self.next_image(), float(self.rng.normal()), end < 0.1, 0.1 <= end < 0.2, {}


def stacked(n_envs, shape=(8, 8, 1), channels_order="last", n_stack=4, transpose=True):
    envs = DummyVecEnv([lambda seed=seed: Frames(shape, seed) for seed in range(n_envs)])
    envs = VecFrameStack(envs, n_stack, channels_order=channels_order)
    return VecTransposeImage(envs) if transpose else envs


def fill(buffers, env, n_steps, seed=0):
    """The same transitions into every buffer, as SB3's off-policy algorithms store them."""
    rng = np.random.default_rng(seed)
    obs = env.reset()
    for _ in range(n_steps):
        actions = rng.integers(0, env.action_space.n, env.num_envs)
        new_obs, rewards, dones, infos = env.step(actions)
        next_obs = new_obs.copy()
        for k, done in enumerate(dones):
            if done:
                next_obs[k] = infos[k]["terminal_observation"]
        for buffer in buffers:
            buffer.add(obs, next_obs, actions, rewards, dones, infos)
        obs = new_obs


def assert_same_samples(ours, theirs, batch_size=64, repeats=3):
    for seed in range(repeats):
        samples = []
        for buffer in (ours, theirs):
            np.random.seed(seed)
            samples.append(buffer.sample(batch_size))
        for name, mine, other in zip(samples[0]._fields, *samples, strict=True):
            if other is None:
                assert mine is None, name
            else:
                assert mine.dtype == other.dtype and mine.shape == other.shape, name
                assert th.equal(mine, other), name


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("steps", [20, 37, 150])  # not full, wrapped around once, several times
@pytest.mark.parametrize("kind", ["first", "last", "colours", "one frame", "two-channel frames", "odd size"])
def test_samples_equal_sb3s(kind, steps, n_envs, n_steps):
    env = {
        "first": lambda: stacked(n_envs),
        "last": lambda: stacked(n_envs, transpose=False),
        "colours": lambda: stacked(n_envs, (16, 16, 3)),
        "one frame": lambda: stacked(n_envs, n_stack=1),
        "two-channel frames": lambda: stacked(n_envs, (2, 8, 8), channels_order="first", n_stack=3, transpose=False),
        "odd size": lambda: stacked(n_envs, (7, 5, 1)),
    }[kind]()
    spaces_and_size = (30 * n_envs, env.observation_space, env.action_space)
    ours = FrameReplayBuffer(*spaces_and_size, device="cpu", n_envs=n_envs, n_steps=n_steps)
    if n_steps == 1:
        theirs = ReplayBuffer(*spaces_and_size, device="cpu", n_envs=n_envs)
    else:
        theirs = NStepReplayBuffer(*spaces_and_size, device="cpu", n_envs=n_envs, n_steps=n_steps)
    fill([ours, theirs], env, steps)
    assert_same_samples(ours, theirs)
    np.testing.assert_array_equal(ours.observations[:], theirs.observations)
    np.testing.assert_array_equal(ours.next_observations[:], theirs.next_observations)


def test_timeouts_are_handled_as_in_sb3():
    env = stacked(2)
    ours, theirs = (
        kind(60, env.observation_space, env.action_space, device="cpu", n_envs=2, handle_timeout_termination=handle)
        for kind, handle in ((FrameReplayBuffer, False), (ReplayBuffer, False))
    )
    fill([ours, theirs], env, 40)
    assert_same_samples(ours, theirs)
    assert not ours.timeouts.any()


def test_observations_that_are_not_stacked_are_stored():
    rng = np.random.default_rng(0)
    space = spaces.Box(0, 255, (4, 8, 8), np.uint8)
    ours, theirs = (kind(10, space, spaces.Discrete(2), device="cpu") for kind in (FrameReplayBuffer, ReplayBuffer))
    for _ in range(35):
        obs, next_obs = (rng.integers(0, 256, (1, 4, 8, 8), dtype=np.uint8) for _ in range(2))
        for buffer in (ours, theirs):
            buffer.add(obs, next_obs, np.array([0]), np.array([1.0]), np.array([False]), [{}])
    assert_same_samples(ours, theirs)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_observations_may_have_another_dtype_than_their_space(dtype):
    # SubprocVecEnv passes them on as the environment gives them
    env = stacked(2)
    kinds = (FrameReplayBuffer, ReplayBuffer)
    ours, theirs = (kind(20, env.observation_space, env.action_space, device="cpu", n_envs=2) for kind in kinds)
    obs = env.reset()
    for _ in range(30):
        new_obs, reward, done, infos = env.step([env.action_space.sample() for _ in range(2)])
        last = np.stack([info.get("terminal_observation", state) for info, state in zip(infos, new_obs, strict=True)])
        for buffer in (ours, theirs):
            buffer.add(obs.astype(dtype), last.astype(dtype), np.zeros(2, int), reward, done, infos)
        obs = new_obs
    assert_same_samples(ours, theirs)


def test_a_buffer_of_one_transition():
    env = stacked(1)
    ours, theirs = (
        kind(1, env.observation_space, env.action_space, device="cpu") for kind in (FrameReplayBuffer, ReplayBuffer)
    )
    fill([ours, theirs], env, 10)
    assert_same_samples(ours, theirs, batch_size=2)


def test_floats_are_compared_by_their_bytes():
    space = spaces.Box(-1, 1, (2, 2, 2), np.float32)
    buffer = FrameReplayBuffer(5, space, spaces.Discrete(2), device="cpu")
    obs = np.array([0.0, -0.0, np.nan, 1.0, 2.0, -0.0, 0.0, np.nan], dtype=np.float32).reshape(1, 2, 2, 2)
    for _ in range(3):
        buffer.add(obs, -obs, np.array([0]), np.array([1.0]), np.array([False]), [{}])
    assert buffer.observations[2].tobytes() == obs.tobytes()
    assert buffer.next_observations[2].tobytes() == (-obs).tobytes()


@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 16, 3)])
def test_a_frame_is_stored_once(shape):
    env = stacked(1, shape)
    buffer = FrameReplayBuffer(200, env.observation_space, env.action_space, device="cpu")
    fill([buffer], env, 2000)
    planes = buffer.observations.planes
    in_use = len(planes.images) - len(planes.free) - 1
    # At most one frame per transition and one per beginning of an episode; equal and black frames need none
    starts = int(buffer.dones.sum()) + 1
    assert in_use <= shape[2] * (200 + starts + 1)
    distinct = {image.tobytes() for image in buffer.next_observations[:].reshape(-1, *shape[:2])}
    assert in_use >= len(distinct) - 1 - shape[2] * 4
    # Every reference is one that the tables hold
    counts = np.bincount(buffer.observations.index.ravel(), minlength=len(planes.images))
    counts += np.bincount(buffer.next_observations.index.ravel(), minlength=len(planes.images))
    np.testing.assert_array_equal(planes.references[1:], counts[1:])
    assert (planes.references[planes.free] == 0).all() and len(set(planes.free)) == len(planes.free)


def test_memory_of_an_atari_transition():
    env = VecTransposeImage(VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4))
    buffer = FrameReplayBuffer(1000, env.observation_space, env.action_space, device="cpu")
    fill([buffer], env, 1200)
    planes = buffer.observations.planes
    arrays = [planes.images, planes.references, buffer.observations.index, buffer.next_observations.index]
    arrays += [buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
    in_use = len(planes.images) - len(planes.free)
    assert in_use <= 1.02 * 1000
    per_transition = sum(array.nbytes / len(array) for array in arrays)
    assert per_transition < 7150  # 84 · 84 for the frame, less than 100 bytes for the rest


@pytest.mark.parametrize("algorithm", [MIRL, DQN])
def test_training_equals_sb3s_buffer_bit_for_bit(algorithm):
    weights = []
    for buffer_class in (ReplayBuffer, FrameReplayBuffer):
        env = stacked(1, (36, 36, 1))
        settings = {"buffer_size": 60, "learning_starts": 20, "train_freq": 4, "batch_size": 8, "learning_rate": 1e-3}
        model = algorithm("CnnPolicy", env, seed=1, device="cpu", replay_buffer_class=buffer_class, **settings).learn(120)
        weights.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*weights)


def test_a_loaded_buffer_continues_like_the_saved_one(tmp_path):
    env = stacked(1, (36, 36, 1))
    model = MIRL("CnnPolicy", env, buffer_size=50, learning_starts=10, replay_buffer_class=FrameReplayBuffer, device="cpu")
    model.learn(80)
    model.save_replay_buffer(tmp_path / "buffer")
    before = model.replay_buffer
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is not before
    assert_same_samples(model.replay_buffer, before)
    # More images than ever before make the loaded one grow
    other = stacked(1, (36, 36, 1))
    fill([model.replay_buffer, before], other, 300)
    assert_same_samples(model.replay_buffer, before)
    buffer = model.replay_buffer
    buffer.observations.planes._grow()
    assert_same_samples(buffer, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"observation_space": spaces.Box(0, 1, (8,))},
            r"observation_space must be a Box of shape \[C, H, W\] or \[H, W, C\]",
        ),
        ({"observation_space": spaces.Dict({"a": spaces.Box(0, 1, (8, 8, 1))})}, "observation_space must be a Box"),
        ({"observation_space": spaces.Discrete(4)}, "observation_space must be a Box"),
        ({"optimize_memory_usage": True}, "optimize_memory_usage must be False, got True"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    good = {"observation_space": spaces.Box(0, 255, (4, 8, 8), np.uint8), "action_space": spaces.Discrete(2)}
    with pytest.raises(ValueError, match=message):
        FrameReplayBuffer(10, **{**good, **arguments})


def test_too_little_memory_causes_a_warning():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    with pytest.warns(UserWarning, match="buffer_size=10000000000 takes at least 70560.00 GB"):
        FrameReplayBuffer._warn_of_little_memory(
            type("Planned", (), {"buffer_size": 10**10, "n_envs": 1})(),
            FrameReplayBuffer(1, space, spaces.Discrete(2)).observations.planes,
        )


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [20, 70])
def test_device_buffer_samples_equal_sb3s(n_envs, n_steps, tmp_path):
    env = stacked(n_envs)
    theirs, ours = (
        kind(60, env.observation_space, env.action_space, device="cpu", n_envs=n_envs)
        for kind in (ReplayBuffer, DeviceReplayBuffer)
    )
    fill([theirs, ours], env, n_steps)
    copied = pickle.loads(pickle.dumps(ours))
    for buffer in (ours, copied):
        samples = []
        for one in (theirs, buffer):
            np.random.seed(1)
            samples.append(one.sample(200))
        for their_field, our_field in zip(*samples, strict=True):
            assert (their_field is our_field is None) or (
                their_field.dtype == our_field.dtype and th.equal(their_field, our_field)
            )


def test_learning_from_the_device_buffer():
    settings = {"learning_starts": 50, "buffer_size": 100, "seed": 0, "device": "cpu"}
    models = [
        MIRL("MlpPolicy", "CartPole-v1", replay_buffer_class=kind, **settings).learn(150)
        for kind in (None, DeviceReplayBuffer)
    ]
    for theirs, ours in zip(models[0].q_net.parameters(), models[1].q_net.parameters(), strict=True):
        assert th.equal(theirs, ours)


def test_device_buffer_refuses_unsupported_observations():
    box = spaces.Box(0, 1, (2,))
    with pytest.raises(ValueError, match="observation_space must not be a Dict"):
        DeviceReplayBuffer(10, spaces.Dict({"a": box}), spaces.Discrete(2))
    with pytest.raises(ValueError, match="optimize_memory_usage must be False, got True"):
        DeviceReplayBuffer(10, box, spaces.Discrete(2), optimize_memory_usage=True)
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    model = MIRL("MlpPolicy", env, replay_buffer_class=DeviceReplayBuffer, learning_starts=10, buffer_size=100)
    with pytest.raises(ValueError, match=r"does not work with VecNormalize\(norm_obs=True\)"):
        model.learn(50)
