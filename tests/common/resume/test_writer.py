"""A folder of checkpoints: what is kept, whose files stay, full disks, locks and killed processes."""

import errno
import gc
import json
import pickle
import resource
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import gymnasium as gym
import pytest
from probes import ConstantReward
from resuming import IGNORED_WARNINGS, SETTINGS, cartpole, content, manifest_names, run
from stable_baselines3.common.callbacks import (
    BaseCallback,
    ConvertCallback,
)

from sb3_mirl import MIRL, CheckpointCallback
from sb3_mirl.common.resume import manifest
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.common.resume.writer import _locks

pytestmark = IGNORED_WARNINGS


def test_newest_checkpoints_are_kept(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "learning_starts": 1000})
    model.learn(400, CheckpointCallback(40, tmp_path, keep=2))
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["rl_model_360_steps.zip", "rl_model_400_steps.zip"]
    own = [
        path.name for path in tmp_path.iterdir() if not path.name.startswith(("rl_model_360_steps.", "rl_model_400_steps."))
    ]
    assert sorted(own) == [".lock", "replay"]
    # Of the replay buffer, what was overwritten is gone: 150 slots in files of 40 steps each
    first = min(int(path.stem.split("_")[-2]) for path in (tmp_path / "replay").iterdir())
    assert 360 - 150 - 40 < first <= 360 - 150
    MIRL.load(tmp_path / "rl_model_400_steps.zip")


def test_folder_of_another_run_is_refused(tmp_path):
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
    with pytest.raises(ValueError, match="save_path must be a folder without checkpoints of another run"):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))


def test_other_files_are_not_removed(tmp_path):
    (tmp_path / "replay").mkdir()
    others = ["rl_model_long_8_steps.json", "rl_model_notes_steps.json", "replay/rl_model_long_0_8.safetensors"]
    for name in others:
        (tmp_path / name).write_text("")
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(40, CheckpointCallback(10, tmp_path, keep=1))
    assert all((tmp_path / name).exists() for name in others)


def test_second_learn_continues_in_the_folder(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.learn(100, CheckpointCallback(40, tmp_path))
    model.learn(100, CheckpointCallback(40, tmp_path), reset_num_timesteps=False)
    assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 200
    model.learn(100, CheckpointCallback(40, tmp_path))  # from the beginning, in SB3's way
    assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 100


@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")
@pytest.mark.parametrize("same", [True, False])
def test_an_episode_that_a_second_learn_has_ended(same, tmp_path):
    memory = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    model = MIRL("MlpPolicy", ConstantReward(length=50), **SETTINGS, **memory)
    callbacks = [CheckpointCallback(40, tmp_path) for _ in range(2)]
    for callback in [callbacks[0]] * 2 if same else callbacks:
        model.learn(60, callback)
    # SB3 ends it in the buffer, in a step that a checkpoint has already
    resumed = MIRL.resume(tmp_path, ConstantReward(length=50))
    dones = model.replay_buffer.dones[:120]
    assert dones.ravel().nonzero()[0].tolist() == [49, 59, 109]
    assert (resumed.replay_buffer.dones[:120] == dones).all()


def test_repeated_learning_keeps_the_same_number_of_checkpoints(tmp_path, monkeypatch):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    for _ in range(4):
        model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))
    assert manifest_names(tmp_path, "*.json") == [f"rl_model_{n}_20_steps.json" for n in (2, 3, 4)]
    model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))  # the name is free again
    assert manifest_names(tmp_path, "*.json")[0] == "rl_model_20_steps.json"
    assert Checkpoint.newest(tmp_path).manifest["serial"] == 5
    for path in tmp_path.glob("*.json"):
        Checkpoint(tmp_path, path)
    write = manifest.write_whole

    def killed(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(manifest, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Checkpoint.newest(tmp_path).manifest["serial"] == 5
    for path in tmp_path.glob("*.json"):
        Checkpoint(tmp_path, path)


def test_two_callbacks_can_write_alternately(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    first, second = (CheckpointCallback(1000, tmp_path) for _ in range(2))
    for callback in (first, second, first):
        model.learn(20, callback, reset_num_timesteps=False)
    assert manifest_names(tmp_path, "*.json") == [f"rl_model_{n}_steps.json" for n in (20, 40, 60)]
    assert MIRL.resume(tmp_path, "CartPole-v1").replay_buffer.pos == 60


def test_two_runs_of_one_process_cannot_share_a_folder(tmp_path):
    class Begins(BaseCallback):
        def _on_step(self):
            if self.n_calls == 6:
                MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
            return True

    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    with pytest.raises(ValueError, match="save_path must be a folder without checkpoints of another run") as error:
        model.learn(40, [CheckpointCallback(10, tmp_path), Begins()])
    assert str(tmp_path) in str(error.value) and model.run_id[:8] in str(error.value)
    assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 20
    copied = pickle.loads(pickle.dumps(MIRL.resume(tmp_path, "CartPole-v1")))
    copied.set_env(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="checkpoints of another run"):
        copied.learn(40, CheckpointCallback(10, tmp_path))


def test_subfolders_are_left_alone(tmp_path):
    inner = tmp_path / "replay" / "inner"
    inner.mkdir(parents=True)
    (inner / ".rl_model_8_steps.zip.1.unfinished").write_text("")
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
    assert [path.name for path in inner.iterdir()] == [".rl_model_8_steps.zip.1.unfinished"]


def test_model_files_of_sb3_are_not_replaced(tmp_path):
    (tmp_path / "rl_model_20_steps.zip").write_text("another's")
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path, keep=1))
    assert (tmp_path / "rl_model_20_steps.zip").read_text() == "another's"
    assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 20


def test_unfinished_checkpoints_are_removed(tmp_path):
    for name in ("rl_model_7_steps.safetensors", "rl_model_7_steps.zip", "rl_model_20_steps.safetensors"):
        (tmp_path / name).write_text("")
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path))
    assert manifest_names(tmp_path, "rl_model*") == [f"rl_model_20_steps.{end}" for end in ("json", "safetensors", "zip")]


def test_folder_of_an_active_process_is_refused(tmp_path):
    hold = "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, tmp_path / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="save_path must be a folder that no other process writes to"):
            MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
        other.kill()
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))


def test_lock_outlives_an_older_callback(tmp_path):
    # Closing any file of the same name ends a lock of POSIX
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.learn(40, CheckpointCallback(20, tmp_path))
    callback = CheckpointCallback(20, tmp_path)
    model.learn(40, callback, reset_num_timesteps=False)
    gc.collect()
    take = "import sys, fcntl; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    other = subprocess.run([sys.executable, "-c", take, tmp_path / ".lock"], capture_output=True, text=True)
    assert "BlockingIOError" in other.stderr


class LimitFileSize(BaseCallback):
    """Makes the system refuse files beyond a size, as it does when a disk is full, from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def _on_step(self) -> bool:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if self.n_calls == self.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        if self.n_calls == self.last:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        return True


@pytest.mark.filterwarnings("ignore:No checkpoint at step")
def test_full_disk_stops_the_checkpoint_but_not_the_training(tmp_path):
    options = {"total": 480, "save_freq": 36, "settings": SETTINGS}
    whole = run(tmp_path / "whole", lambda: cartpole(tmp_path / "whole"), **options)
    folder = tmp_path / "full"
    found: list[list[str]] = []

    def look(local, _):
        if local["self"]._n_calls == 290:
            found.append(manifest_names(folder))
        return True

    with pytest.warns(UserWarning, match="No checkpoint at step 144.*Training goes on"):
        run(
            folder,
            lambda: cartpole(folder),
            **options,
            callbacks=lambda: [LimitFileSize(120, 300), ConvertCallback(look)],
            interrupted_at=420,
        )
    assert found == [["rl_model_108_steps.json", "rl_model_36_steps.json", "rl_model_72_steps.json"]]
    assert not list(folder.rglob("*.unfinished"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The interrupted run had a")
        resumed = run(folder, lambda: cartpole(folder), **options)
    assert content(resumed, folder) == content(whole, tmp_path / "whole")


def test_warning_if_no_space_is_left(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(manifest, "write_whole", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(100, CheckpointCallback(20, tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["random", "--kills", "12", "--total", "600", "--longest", "0.3"], marks=pytest.mark.slow),
        ["operations", "--total", "60", "--save-freq", "20"],
        pytest.param(["operations", "--run", "image", "--total", "40", "--save-freq", "20"], marks=pytest.mark.slow),
        pytest.param(["random", "--kills", "200"], marks=pytest.mark.slow),
        pytest.param(["random", "--kills", "100", "--run", "image", "--total", "300"], marks=pytest.mark.slow),
        pytest.param(["operations", "--run", "image", "--total", "300", "--save-freq", "30"], marks=pytest.mark.slow),
    ],
)
def test_killed_run_equals_uninterrupted_run(arguments, run_script):
    done = run_script(Path(__file__).parents[2] / "helpers" / "killed_run.py", *arguments)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["failures"] == 0, done.stderr
    if arguments[0] == "random":
        assert summary["kills"] == int(arguments[2])
        assert summary["equal"] == summary["runs"] > 0
    else:
        assert summary["equal"] == summary["kills"] > 20


def test_folder_is_unlocked_without_a_warning_when_its_writers_are_gone(tmp_path, recwarn):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
    model.learn(20, CheckpointCallback(10, tmp_path))
    (lock,) = (weakref.ref(lock) for lock in _locks.values() if lock.file.name == str(tmp_path / ".lock"))
    file = lock().file
    del model
    gc.collect()
    assert lock() is None and file.closed
    assert not [warning for warning in recwarn if str(tmp_path) in str(warning.message)]
