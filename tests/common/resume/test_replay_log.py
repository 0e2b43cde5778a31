"""The replay buffer in checkpoints: only the new part is written, and nothing is missing."""

import numpy as np
import pytest
from probes import Image
from resuming import CNN, IGNORED_WARNINGS, SETTINGS
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_mirl import MIRL, CheckpointCallback
from sb3_mirl.common.resume.reader import Checkpoint

pytestmark = IGNORED_WARNINGS


def test_only_new_transitions_are_written(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "buffer_size": 10_000, "learning_starts": 1000})
    model.learn(900, CheckpointCallback(100, tmp_path))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "replay").iterdir()}
    assert len(sizes) == 9
    a_transition = 2 * 4 * 4 + 8 + 4 + 4 + 4
    assert all(100 * a_transition <= size <= 104 * a_transition + 1000 for size in list(sizes.values())[:-1])


def test_unknown_replay_buffer_class_is_named_in_a_warning(tmp_path):
    class Prioritised(ReplayBuffer):
        largest = 1.0

    settings = {**SETTINGS, "replay_buffer_class": Prioritised}
    with pytest.warns(UserWarning, match="Checkpoints of a Prioritised hold its arrays"):
        MIRL("MlpPolicy", "CartPole-v1", **settings).learn(20, CheckpointCallback(10, tmp_path))


class Weighted(ReplayBuffer):
    """Lowers the weights of what it has sampled."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weights = np.zeros(self.buffer_size)

    def add(self, *args):
        self.weights[self.pos] = 1.0
        super().add(*args)

    def sample(self, *args, **kwargs):
        self.weights *= 0.5
        return super().sample(*args, **kwargs)


@pytest.mark.filterwarnings("ignore:Checkpoints of a Weighted")
def test_rows_that_an_unknown_buffer_changes_later_are_written_again(tmp_path):
    settings = {**SETTINGS, "replay_buffer_class": Weighted, "learning_starts": 10}
    model = MIRL("MlpPolicy", "CartPole-v1", **settings).learn(80, CheckpointCallback(20, tmp_path))
    resumed = MIRL.resume(tmp_path, "CartPole-v1")
    np.testing.assert_array_equal(resumed.replay_buffer.weights, model.replay_buffer.weights)


class Sampled(ReplayBuffer):
    """Adds no array."""

    def sample(self, *args, **kwargs):
        return super().sample(*args, **kwargs)


@pytest.mark.filterwarnings("ignore:Checkpoints of a ")
@pytest.mark.parametrize("buffer", [Sampled, Weighted])
def test_of_unknown_buffers_too_only_new_transitions_are_written(tmp_path, buffer):
    settings = {**SETTINGS, "replay_buffer_class": buffer, "buffer_size": 1000, "learning_starts": 10}
    MIRL("MlpPolicy", "CartPole-v1", **settings).learn(100, CheckpointCallback(20, tmp_path))
    rows = [[*map(int, path.stem.split("_")[-2:])] for path in (tmp_path / "replay").iterdir()]
    assert sorted(rows) == [[first, first + 20] for first in range(0, 100, 20)]


class Labelled(ReplayBuffer):
    dtype: str

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.labels = np.empty((self.buffer_size, 2), self.dtype)

    def add(self, *args):
        self.labels[self.pos] = np.array([self.pos, 2 * self.pos]).astype(self.dtype)
        super().add(*args)


@pytest.mark.filterwarnings("ignore:Checkpoints of a Labelled")
@pytest.mark.parametrize("dtype", ["datetime64[s]", "complex128", "longdouble", "U3"])
def test_rows_of_any_plain_dtype_are_restored(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(Labelled, "dtype", dtype, raising=False)
    model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "replay_buffer_class": Labelled})
    model.learn(20, CheckpointCallback(10, tmp_path))
    resumed = MIRL.resume(tmp_path, "CartPole-v1")
    np.testing.assert_array_equal(resumed.replay_buffer.labels[:20], model.replay_buffer.labels[:20])


def test_rows_of_objects_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Labelled, "dtype", "object", raising=False)
    model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "replay_buffer_class": Labelled})
    with pytest.warns(UserWarning, match="without labels, whose dtype cannot be written"):
        model.learn(20, CheckpointCallback(10, tmp_path))
    resumed = MIRL.resume(tmp_path, "CartPole-v1")
    np.testing.assert_array_equal(resumed.replay_buffer.observations, model.replay_buffer.observations)


class OwnSteps(MIRL):
    """Updates its target network in its own way, and does not count the calls."""

    def _on_step(self):
        if self.num_timesteps % 40 == 0:
            self.q_net_target.load_state_dict(self.q_net.state_dict())


class OwnStores(MIRL):
    """Stores transitions in its own way."""

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos):
        replay_buffer.add(self._last_obs, new_obs, buffer_action, reward, dones, infos)
        self._last_obs = new_obs


@pytest.mark.parametrize("algorithm", [OwnSteps, OwnStores])
def test_steps_are_counted_also_by_subclasses(tmp_path, algorithm):
    # Between two checkpoints each slot is written once, so that the position is the same at both
    model = algorithm("MlpPolicy", "CartPole-v1", **{**SETTINGS, "buffer_size": 40})
    model.learn(160, CheckpointCallback(40, tmp_path))
    resumed = algorithm.resume(tmp_path, "CartPole-v1")
    np.testing.assert_array_equal(resumed.replay_buffer.observations, model.replay_buffer.observations)


def test_replaced_replay_buffer_leaves_older_checkpoints_intact(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    callback = CheckpointCallback(1000, tmp_path)
    model.learn(20, callback)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.replay_buffer.rewards += 1.0
    model.learn(20, callback)
    for path in tmp_path.glob("*.json"):
        Checkpoint(tmp_path, path)
    assert MIRL.resume(tmp_path, "CartPole-v1").replay_buffer.rewards[0] == 2.0


def test_new_folder_gets_the_whole_buffer(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.learn(120, CheckpointCallback(40, tmp_path / "a"))
    resumed = MIRL.resume(tmp_path / "a", "CartPole-v1")
    resumed.learn(160, CheckpointCallback(20, tmp_path / "b"))
    again = MIRL.resume(tmp_path / "b", "CartPole-v1")
    np.testing.assert_array_equal(again.replay_buffer.observations, resumed.replay_buffer.observations)


def test_frames_are_complete_in_each_of_two_folders(tmp_path):
    def env():
        return VecFrameStack(make_vec_env(Image, 1, seed=5), 3)

    settings = {**SETTINGS, **CNN, "buffer_size": 64, "learning_starts": 1000}
    model = MIRL("CnnPolicy", env(), **settings)
    model.learn(120, [CheckpointCallback(8, tmp_path / "a"), CheckpointCallback(24, tmp_path / "b")])
    slots = np.arange(64)
    for folder in "ab":
        resumed = MIRL.resume(tmp_path / folder, env())
        np.testing.assert_array_equal(resumed.replay_buffer.observations[slots, 0], model.replay_buffer.observations[slots, 0])
