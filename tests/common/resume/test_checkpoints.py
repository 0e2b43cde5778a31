"""Runs that were interrupted end as those that were not; files that were damaged are noticed."""

import dataclasses
import errno
import gc
import itertools
import json
import pickle
import random
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import FlattenObservation, FrameStackObservation
from probes import ConstantReward, Image, Mixed
from resuming import content, copy, run
from stable_baselines3.common import callbacks
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.her import HerReplayBuffer
from test_state import CANNOT_BE_READ, VALUES_OF_OTHERS

from sb3_mirl import MIRL, SQL, CheckpointCallback, checkpoints
from sb3_mirl.common.buffers import DeviceReplayBuffer, FrameReplayBuffer
from sb3_mirl.envs.atari import AtariVecEnv

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore:`n_steps=3` is ignored",
    "ignore:.*Monitor",
    "ignore:builtin type (Swig|swig)",
    "ignore:torch.quantize",
    "ignore:`torch.jit:DeprecationWarning",
)

SETTINGS = {
    "learning_starts": 50,
    "buffer_size": 150,
    "learning_rate": 1e-3,
    "target_update_interval": 70,
    "batch_size": 8,
    "prior_lr": 1e-3,
    "beta_lr": 1e-2,
    "seed": 1,
    "policy_kwargs": {"net_arch": [16]},
}
CNN = {"policy_kwargs": {}, "replay_buffer_class": FrameReplayBuffer}


def cartpole(folder, n_envs=1, **kwargs):
    return make_vec_env("CartPole-v1", n_envs, seed=5, monitor_dir=str(folder), **kwargs)


def atari(game, folder, n_envs=1, **kwargs):
    return VecFrameStack(make_atari_env(f"{game}NoFrameskip-v4", n_envs, seed=5, monitor_dir=str(folder), **kwargs), 4)


def evaluation():
    return [EvalCallback(make_vec_env("CartPole-v1", 1, seed=9), eval_freq=50, n_eval_episodes=2, verbose=0)]


# Environment, settings, and what else `run` takes
CASES = {
    "one environment": (cartpole, {}, {}),
    "several": (lambda folder: cartpole(folder, 3), {"gradient_steps": -1}, {}),
    "worker processes": (
        lambda folder: cartpole(folder, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        {},
        {},
    ),
    "VecNormalize": (lambda folder: VecNormalize(cartpole(folder, 2)), {}, {}),
    "VecMonitor": (lambda folder: VecMonitor(make_vec_env("CartPole-v1", 2, seed=5), str(folder / "0.monitor.csv")), {}, {}),
    "n steps": (cartpole, {"n_steps": 3}, {}),
    "optimize_memory_usage": (
        cartpole,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
        {},
    ),
    "whole episodes": (cartpole, {"train_freq": (1, "episode"), "gradient_steps": -1}, {}),
    "learning rate that falls": (cartpole, {"learning_rate": lambda progress: 1e-3 * progress}, {}),
    "compiled": (cartpole, {"compile_update": True}, {}),
    "linear beta": (cartpole, {"beta_schedule": "linear", "beta_lr": 1e-3}, {}),
    "evaluations": (cartpole, {}, {"callbacks": evaluation}),
    "SQL": (cartpole, {}, {"algorithm": SQL}),
    "grid world": (lambda folder: make_vec_env("MIRLSquare-v0", 1, seed=5, monitor_dir=str(folder)), {}, {}),
    "on the device": (cartpole, {"replay_buffer_class": DeviceReplayBuffer}, {}),
    "Dict": (lambda folder: make_vec_env(Mixed, 2, seed=5, monitor_dir=str(folder)), {}, {"policy": "MultiInputPolicy"}),
    "hindsight": (
        lambda folder: make_vec_env(lambda: BitFlippingEnv(n_bits=4, max_steps=7), 1, seed=5, monitor_dir=str(folder)),
        {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": True}},
        {"policy": "MultiInputPolicy"},
    ),
    "stacked by Gymnasium": (
        lambda folder: cartpole(folder, wrapper_class=lambda env: FlattenObservation(FrameStackObservation(env, 3))),
        {},
        {},
    ),
    "frames": (
        lambda folder: VecFrameStack(make_vec_env(Image, 2, seed=5, monitor_dir=str(folder)), 3),
        {**CNN, "replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.99}},
        {"policy": "CnnPolicy"},
    ),
    "Pong": (lambda folder: atari("Pong", folder), CNN, {"policy": "CnnPolicy", "total": 240}),
    "Breakout, worker processes": (
        lambda folder: atari("Breakout", folder, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        CNN,
        {"policy": "CnnPolicy", "total": 240},
    ),
    "Breakout, SB3's buffer": (
        lambda folder: atari("Breakout", folder),
        {"policy_kwargs": {}},
        {"policy": "CnnPolicy", "total": 240},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_ends_like_one_that_was_not(case, tmp_path, monkeypatch):
    make_env, settings, options = CASES[case]
    if case == "frames":  # several files for one checkpoint
        monkeypatch.setattr(checkpoints, "SEGMENT_BYTES", 100_000)
    options = {"total": 360, "save_freq": 36, "settings": {**SETTINGS, **settings}, **options}

    def part(name, **more):
        folder = tmp_path / name
        return run(folder, lambda: make_env(folder), **options, **more)

    whole = part("whole")
    n_calls = whole._n_calls
    moments = (n_calls // 3, n_calls // 3 + 5, 4 * n_calls // 5)
    step = 3 if case == "compiled" else 2 if options.get("policy") == "CnnPolicy" else 1  # these take seconds each time
    for interrupted_at in moments[::step]:
        assert part("parts", interrupted_at=interrupted_at)._n_calls == interrupted_at
    resumed = part("parts")

    expected, found = content(whole, tmp_path / "whole"), content(resumed, tmp_path / "parts")
    assert found["counters"][0] >= options["total"]
    for key in expected:
        assert found[key] == expected[key], key
    whole.env.close()
    resumed.env.close()


def test_files_of_logs_hold_what_was_logged_once(tmp_path):
    options = {"make_env": lambda: cartpole(tmp_path), "total": 600, "save_freq": 100, "settings": SETTINGS}
    run(tmp_path, **options, interrupted_at=350)
    model = run(tmp_path, **options)
    steps = [int(line.split(",")[1]) for line in (tmp_path / "0.monitor.csv").read_text().splitlines()[2:]]
    log = (tmp_path / "progress.csv").read_text().splitlines()
    column = log[0].split(",").index("time/total_timesteps")
    assert np.cumsum(steps).tolist() == [int(line.split(",")[column]) for line in log[1:]]
    assert 550 < sum(steps) <= 600 == model.num_timesteps


def test_tensorboard_shows_each_step_once(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def begin_or_go_on(interrupted_at):
        env = make_vec_env("CartPole-v1", 1, seed=5)
        folder = tmp_path / "checkpoints"
        settings = {**SETTINGS, "tensorboard_log": str(tmp_path)}
        model = MIRL.resume(folder, env) if folder.exists() else MIRL("MlpPolicy", env, **settings)
        stop = ConvertCallback(lambda local, _: local["self"]._n_calls != interrupted_at)
        return model.learn(600, [CheckpointCallback(100, folder), stop], log_interval=1)

    begin_or_go_on(350)
    (tmp_path / "MIRL_2").mkdir()  # another run's, begun in the meantime
    begin_or_go_on(None)
    events = event_accumulator.EventAccumulator(str(tmp_path / "MIRL_1"))
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/ep_len_mean")]
    assert steps == sorted(set(steps)) and steps[-1] > 500
    assert not list((tmp_path / "MIRL_2").iterdir())


class TestWithoutTheEnvironmentsState:
    def resume(self, make_env, folder, settings=SETTINGS, policy="MlpPolicy"):
        """A run that was interrupted, what it was at its last checkpoint, and the resumed model."""
        model = MIRL(policy, make_env(), **settings)
        model.learn(180, CheckpointCallback(1000, folder))
        with pytest.warns(UserWarning, match="environment's state is not in the checkpoint") as warned:
            resumed = MIRL.resume(folder, make_env())
        assert len([one for one in warned if one.category is UserWarning]) == 1
        return model, resumed

    def test_new_episodes_begin_and_nothing_else_is_lost(self, tmp_path):
        model, resumed = self.resume(lambda: VecNormalize(make_vec_env("LunarLander-v3", 2, seed=5)), tmp_path)
        for name, value in model.policy.state_dict().items():
            assert th.equal(value, resumed.policy.state_dict()[name]), name
        before, after = model.replay_buffer, resumed.replay_buffer
        np.testing.assert_array_equal(after.observations, before.observations)
        np.testing.assert_array_equal(after.rewards, before.rewards)
        # The episodes that were under way end there, but are not over
        assert after.dones[after.pos - 1].tolist() == after.timeouts[after.pos - 1].tolist() == [1, 1]
        assert before.dones[before.pos - 1].tolist() == [0, 0]
        # Statistics go on, and have seen one observation more
        assert resumed.env.obs_rms.count == pytest.approx(model.env.obs_rms.count + 2)
        assert resumed._last_obs.shape == (2, 8)
        resumed.learn(400)
        assert resumed.num_timesteps == 400

    def test_the_end_of_these_episodes_is_in_the_next_checkpoint(self, tmp_path):
        _, resumed = self.resume(lambda: make_vec_env("LunarLander-v3", 1, seed=5), tmp_path)
        slot = resumed.replay_buffer.pos - 1
        resumed.learn(200, CheckpointCallback(5, tmp_path))
        with pytest.warns(UserWarning, match="environment's state"):
            again = MIRL.resume(tmp_path, make_vec_env("LunarLander-v3", 1, seed=5))
        assert again.replay_buffer.dones[slot] == 1

    def test_native_atari(self, tmp_path):
        _, resumed = self.resume(
            lambda: VecFrameStack(AtariVecEnv("PongNoFrameskip-v4", 2, seed=5), 4),
            tmp_path,
            {**SETTINGS, **CNN},
            "CnnPolicy",
        )
        resumed.learn(224)
        assert resumed.num_timesteps == 224


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with three checkpoints, and what it is when it goes on to its end."""
    folder = tmp_path_factory.mktemp("finished")
    options = {"total": 400, "save_freq": 60, "settings": SETTINGS}
    run(folder, lambda: cartpole(folder), **options, interrupted_at=380)
    ended = copy(folder, tmp_path_factory.mktemp("ended"))
    model = run(ended, lambda: cartpole(ended), **options)
    return folder, options, content(model, ended)


def names(folder, pattern="checkpoints/*.json"):
    return sorted(path.name for path in folder.glob(pattern))


class TestDamage:
    def end(self, folder, options):
        with pytest.warns(UserWarning, match="Damaged checkpoint.*going on with rl_model"):
            model = run(folder, lambda: cartpole(folder), **options)
        return content(model, folder)

    def newest_files(self, folder):
        manifest = json.loads((folder / "checkpoints" / names(folder)[-1]).read_text())
        own = [*manifest["files"], f"{manifest['name']}.json", f"replay/{manifest['replay']['segments'][-1]['file']}"]
        return [folder / "checkpoints" / name for name in own]

    @pytest.mark.parametrize("kind", range(4))
    @pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "one bit", "longer"])
    def test_the_checkpoint_before_is_used(self, finished, tmp_path, kind, how):
        source, options, expected = finished
        folder = copy(source, tmp_path / "run")
        path = self.newest_files(folder)[kind]
        before = path.read_bytes()
        if how == "removed":
            path.unlink()
            if path.suffix == ".json":
                return  # without its manifest there is no checkpoint: the one before is the newest
        elif how == "one bit":
            index = len(before) // 2
            path.write_bytes(before[:index] + bytes([before[index] ^ 4]) + before[index + 1 :])
        else:
            path.write_bytes({"truncated": before[: len(before) // 2], "emptied": b"", "longer": before + b"\0"}[how])
        assert self.end(folder, options) == expected

    def test_every_flipped_byte_is_noticed(self, finished, tmp_path):
        folder = copy(finished[0], tmp_path / "run") / "checkpoints"
        draw = random.Random(0)
        newest = self.newest_files(folder.parent)
        assert checkpoints.Checkpoint.newest(folder).manifest["name"] == newest[0].stem
        for trial in range(100):
            path = newest[trial % len(newest)]
            content = bytearray(path.read_bytes())
            index = draw.randrange(len(content))
            before = content[index]
            content[index] ^= draw.randrange(1, 256)
            path.write_bytes(content)
            with pytest.warns(UserWarning, match="Damaged checkpoint"):
                found = checkpoints.Checkpoint.newest(folder)
            assert found.manifest["name"] != newest[0].stem, (path, index)
            content[index] = before
            path.write_bytes(content)

    def test_all_are_damaged(self, finished, tmp_path):
        folder = copy(finished[0], tmp_path / "run") / "checkpoints"
        for path in folder.glob("*.zip"):
            path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"all are damaged.*\.zip has 0 bytes"):
            MIRL.resume(folder, cartpole(tmp_path))

    def test_there_is_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="folder must hold a checkpoint"):
            MIRL.resume(tmp_path, "CartPole-v1")
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, callbacks.CheckpointCallback(10, tmp_path))
        with pytest.raises(ValueError, match=r"stable_baselines3's CheckpointCallback \(rl_model_10_steps\.zip, rl_model_20"):
            MIRL.resume(tmp_path, "CartPole-v1")


class TestFolder:
    def test_the_newest_are_kept(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "learning_starts": 1000})
        model.learn(400, CheckpointCallback(40, tmp_path, keep=2))
        assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["rl_model_360_steps.zip", "rl_model_400_steps.zip"]
        own = [
            path.name
            for path in tmp_path.iterdir()
            if not path.name.startswith(("rl_model_360_steps.", "rl_model_400_steps."))
        ]
        assert sorted(own) == [".lock", "replay"]
        # Of the replay buffer, what was overwritten is gone: 150 slots in files of 40 steps each
        first = min(int(path.stem.split("_")[-2]) for path in (tmp_path / "replay").iterdir())
        assert 360 - 150 - 40 < first <= 360 - 150
        MIRL.load(tmp_path / "rl_model_400_steps.zip")

    def test_only_what_is_new_is_written(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **{**SETTINGS, "buffer_size": 10_000, "learning_starts": 1000})
        model.learn(900, CheckpointCallback(100, tmp_path))
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "replay").iterdir()}
        assert len(sizes) == 9
        a_transition = 2 * 4 * 4 + 8 + 4 + 4 + 4
        assert all(100 * a_transition <= size <= 104 * a_transition + 1000 for size in list(sizes.values())[:-1])

    def test_of_another_run(self, tmp_path):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
        with pytest.raises(ValueError, match="save_path must be a folder without checkpoints of another run"):
            MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))

    def test_of_two_callbacks(self, tmp_path):
        both = [CheckpointCallback(10, tmp_path), CheckpointCallback(20, tmp_path / ".", "other")]
        with pytest.raises(ValueError, match="save_path must be another folder for each CheckpointCallback"):
            MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, both)

    def test_files_of_others_stay(self, tmp_path):
        (tmp_path / "replay").mkdir()
        others = ["rl_model_long_8_steps.json", "rl_model_notes_steps.json", "replay/rl_model_long_0_8.safetensors"]
        for name in others:
            (tmp_path / name).write_text("")
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(40, CheckpointCallback(10, tmp_path, keep=1))
        assert all((tmp_path / name).exists() for name in others)

    def test_a_replay_buffer_of_an_unknown_class(self, tmp_path):
        class Prioritised(ReplayBuffer):
            largest = 1.0

        settings = {**SETTINGS, "replay_buffer_class": Prioritised}
        with pytest.warns(UserWarning, match="Of a Prioritised, checkpoints hold the arrays"):
            MIRL("MlpPolicy", "CartPole-v1", **settings).learn(20, CheckpointCallback(10, tmp_path))

    def test_learning_again_goes_on_in_the_folder(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        model.learn(100, CheckpointCallback(40, tmp_path))
        model.learn(100, CheckpointCallback(40, tmp_path), reset_num_timesteps=False)
        assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 200
        model.learn(100, CheckpointCallback(40, tmp_path))  # from the beginning, in SB3's way
        assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 100

    def test_repeated_learning_keeps_as_many_checkpoints(self, tmp_path, monkeypatch):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        for _ in range(4):
            model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))
        assert names(tmp_path, "*.json") == [f"rl_model_{n}_20_steps.json" for n in (2, 3, 4)]
        model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))  # the name is free again
        assert names(tmp_path, "*.json")[0] == "rl_model_20_steps.json"
        assert checkpoints.Checkpoint.newest(tmp_path).manifest["serial"] == 5
        for path in tmp_path.glob("*.json"):
            checkpoints.Checkpoint(tmp_path, path)
        write = checkpoints._write

        def killed(path, content):
            if path.suffix == ".json":
                raise KeyboardInterrupt
            return write(path, content)

        monkeypatch.setattr(checkpoints, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            model.learn(20, CheckpointCallback(1000, tmp_path, keep=3))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checkpoints.Checkpoint.newest(tmp_path).manifest["serial"] == 5
        for path in tmp_path.glob("*.json"):
            checkpoints.Checkpoint(tmp_path, path)

    def test_another_replay_buffer_leaves_older_checkpoints_whole(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        callback = CheckpointCallback(1000, tmp_path)
        model.learn(20, callback)
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        model.load_replay_buffer(tmp_path / "buffer.pkl")
        model.replay_buffer.rewards += 1.0
        model.learn(20, callback)
        for path in tmp_path.glob("*.json"):
            checkpoints.Checkpoint(tmp_path, path)
        assert MIRL.resume(tmp_path, "CartPole-v1").replay_buffer.rewards[0] == 2.0

    def test_two_callbacks_by_turns(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        first, second = (CheckpointCallback(1000, tmp_path) for _ in range(2))
        for callback in (first, second, first):
            model.learn(20, callback, reset_num_timesteps=False)
        assert names(tmp_path, "*.json") == [f"rl_model_{n}_steps.json" for n in (20, 40, 60)]
        assert MIRL.resume(tmp_path, "CartPole-v1").replay_buffer.pos == 60

    def test_two_runs_of_one_process(self, tmp_path):
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

    def test_folder_inside_of_the_folder_of_another_run(self, tmp_path):
        inner = tmp_path / "replay" / "inner"
        inner.mkdir(parents=True)
        (inner / ".rl_model_8_steps.zip.1.unfinished").write_text("")
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
        assert [path.name for path in inner.iterdir()] == [".rl_model_8_steps.zip.1.unfinished"]

    def test_model_files_of_others_stay(self, tmp_path):
        (tmp_path / "rl_model_20_steps.zip").write_text("another's")
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path, keep=1))
        assert (tmp_path / "rl_model_20_steps.zip").read_text() == "another's"
        assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == 20

    def test_files_of_a_checkpoint_that_was_never_finished_go(self, tmp_path):
        for name in ("rl_model_7_steps.safetensors", "rl_model_7_steps.zip", "rl_model_20_steps.safetensors"):
            (tmp_path / name).write_text("")
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path))
        assert names(tmp_path, "rl_model*") == [f"rl_model_20_steps.{end}" for end in ("json", "safetensors", "zip")]

    @pytest.mark.parametrize(
        "malformed", [b"", b"{}", b"[]", b'{"format": "sb3_mirl checkpoint", "run": 1}', b"\xff", b"[" * 99999]
    )
    def test_malformed_manifest(self, tmp_path, malformed):
        (tmp_path / "rl_model_5_steps.json").write_bytes(malformed)
        with pytest.raises(ValueError, match=r"all are damaged.*remove rl_model_5_steps\.json"):
            MIRL.resume(tmp_path, "CartPole-v1")
        with pytest.raises(ValueError, match=r"rl_model_5_steps\.json .*Remove these files, or choose another folder"):
            MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))

    def test_manifest_of_another_run(self, tmp_path):
        for folder in "ab":
            MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path / folder, folder))
        manifest = (tmp_path / "a" / "a_20_steps.json").read_bytes()
        model = MIRL.resume(tmp_path / "b", "CartPole-v1")
        (tmp_path / "b" / "a_20_steps.json").write_bytes(manifest)
        with pytest.raises(ValueError, match=r"(?s)lie \(a_20_steps\.json\).*remove these files"):
            model.learn(40, CheckpointCallback(10, tmp_path / "b"))
        with pytest.raises(ValueError, match=r"holds those of 2: a_20_steps\.json and b_20_steps\.json\. Remove"):
            MIRL.resume(tmp_path / "b", "CartPole-v1")
        (tmp_path / "a" / "copy_steps.json").write_bytes(manifest)
        with pytest.warns(UserWarning, match=r"copy_steps\.json is a copy of a_20_steps\.json.*remove copy_steps"):
            MIRL.resume(tmp_path / "a", "CartPole-v1")

    def test_a_new_folder_gets_the_whole_buffer(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        model.learn(120, CheckpointCallback(40, tmp_path / "a"))
        resumed = MIRL.resume(tmp_path / "a", "CartPole-v1")
        resumed.learn(160, CheckpointCallback(20, tmp_path / "b"))
        again = MIRL.resume(tmp_path / "b", "CartPole-v1")
        np.testing.assert_array_equal(again.replay_buffer.observations, resumed.replay_buffer.observations)

    def test_of_a_process_that_goes_on(self, tmp_path):
        hold = (
            "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", hold, tmp_path / ".lock"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            with pytest.raises(ValueError, match="save_path must be a folder that no other process writes to"):
                MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
            other.kill()
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))

    def test_the_lock_outlives_an_older_callback(self, tmp_path):
        # Closing any file of the same name ends a lock of POSIX
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        model.learn(40, CheckpointCallback(20, tmp_path))
        callback = CheckpointCallback(20, tmp_path)
        model.learn(40, callback, reset_num_timesteps=False)
        gc.collect()
        take = "import sys, fcntl; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", take, tmp_path / ".lock"], capture_output=True, text=True)
        assert "BlockingIOError" in other.stderr

    def test_inside_of_an_event(self, tmp_path):
        model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)
        model.learn(210, EveryNTimesteps(50, CheckpointCallback(1, tmp_path)))
        steps = [52, 100, 152, 200, 212]  # between rollouts of 4 steps
        assert {path.stem for path in tmp_path.glob("*.zip")} <= {f"rl_model_{step}_steps" for step in steps}
        assert MIRL.resume(tmp_path, "CartPole-v1").num_timesteps == model.num_timesteps

    def test_two_folders_with_images(self, tmp_path):
        def env():
            return VecFrameStack(make_vec_env(Image, 1, seed=5), 3)

        settings = {**SETTINGS, **CNN, "buffer_size": 64, "learning_starts": 1000}
        model = MIRL("CnnPolicy", env(), **settings)
        model.learn(120, [CheckpointCallback(8, tmp_path / "a"), CheckpointCallback(24, tmp_path / "b")])
        slots = np.arange(64)
        for folder in "ab":
            resumed = MIRL.resume(tmp_path / folder, env())
            np.testing.assert_array_equal(
                resumed.replay_buffer.observations[slots, 0], model.replay_buffer.observations[slots, 0]
            )

    @pytest.mark.parametrize("arguments", [{"save_freq": 0}, {"save_freq": 1.5}, {"save_freq": 5, "keep": 0}])
    def test_arguments(self, tmp_path, arguments):
        with pytest.raises(ValueError, match="must be a positive integer, got"):
            CheckpointCallback(save_path=tmp_path, **arguments)

    def test_it_cannot_be_written_at_all(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError):
            MIRL("MlpPolicy", "CartPole-v1").learn(10, CheckpointCallback(10, tmp_path / "file"))


class TestResume:
    @pytest.fixture
    def folder(self, tmp_path):
        env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5))
        MIRL("MlpPolicy", env, **SETTINGS).learn(96, CheckpointCallback(20, tmp_path))
        return tmp_path

    def test_another_number_of_environments(self, folder):
        with pytest.raises(ValueError, match="env must have 2 environments as it had, got 1"):
            MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 1)))

    def test_without_the_wrapper(self, folder):
        with pytest.raises(ValueError, match=r"env must be made like that of the interrupted run.*VecNormalize"):
            MIRL.resume(folder, make_vec_env("CartPole-v1", 2))

    def test_worker_processes_without_the_wrapper(self, tmp_path):
        def env(name):
            return make_vec_env(name, 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})

        first = env("CartPole-v1")
        MIRL("MlpPolicy", first, **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
        other = env(lambda: gym.wrappers.TransformReward(gym.make("CartPole-v1"), float))
        with pytest.raises(ValueError, match=r"env must be made like that of the interrupted run.*envs\[0\].*TransformReward"):
            MIRL.resume(tmp_path, other)
        first.close()
        other.close()

    def test_another_algorithm(self, folder):
        with pytest.raises(ValueError, match=r"saved by MIRL: load it with MIRL\.load"):
            SQL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))

    def test_the_same_call_again_does_nothing(self, folder):
        model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
        before = model.policy.state_dict()["q_net.q_net.0.weight"].clone()
        model.learn(96, CheckpointCallback(20, folder))
        assert model.num_timesteps == 96
        assert th.equal(before, model.policy.state_dict()["q_net.q_net.0.weight"])

    @pytest.mark.parametrize(("total", "reset", "end"), [(152, True, 152), (152, False, 248)])
    def test_further_than_planned(self, folder, total, reset, end):
        model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
        model.learn(total, reset_num_timesteps=reset)
        assert model.num_timesteps == end

    def test_only_once(self, folder):
        model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
        model.learn(120)
        model.learn(30)
        assert model.num_timesteps == 32

    def test_other_versions_are_named(self, folder, monkeypatch):
        model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
        monkeypatch.setattr(th, "__version__", "9.9")
        with pytest.warns(UserWarning, match=r"other versions \(torch .* -> 9\.9\)"):
            model.learn(120)

    def test_other_callbacks_are_named(self, tmp_path):
        env = make_vec_env("CartPole-v1", 1)
        stop = StopTrainingOnMaxEpisodes(1000)
        MIRL("MlpPolicy", env, **SETTINGS).learn(100, [CheckpointCallback(20, tmp_path), stop])
        with pytest.warns(UserWarning, match="StopTrainingOnMaxEpisodes among its callbacks, this one has not"):
            MIRL.resume(tmp_path, env).learn(120)

    def test_stopped_by_a_callback(self, tmp_path):
        # SB3 does not store the transition at which a callback stops the training: no checkpoint there
        env = make_vec_env("CartPole-v1", 1)
        MIRL("MlpPolicy", env, **SETTINGS).learn(500, [CheckpointCallback(20, tmp_path), StopTrainingOnMaxEpisodes(3)])
        assert MIRL.resume(tmp_path, env).num_timesteps % 4 == 0


@dataclasses.dataclass
class Record:
    step: int


class Keeps(BaseCallback):
    """Makes its objects during training."""

    def __init__(self) -> None:
        super().__init__()
        self.best: Record | None = None

    def _on_step(self) -> bool:
        self.best = Record(self.n_calls)
        return True


def test_objects_that_a_callback_has_made_come_back(tmp_path):
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, [CheckpointCallback(20, tmp_path), Keeps()])
    callback = Keeps()
    MIRL.resume(tmp_path, "CartPole-v1").learn(80, callback)
    assert callback.best == Record(80)


def test_what_is_lost_of_a_callback_is_named(tmp_path):
    def counts():
        callback = Keeps()
        callback.numbers = itertools.count()
        return callback

    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, [CheckpointCallback(20, tmp_path), counts()])
    with pytest.warns(UserWarning, match=r"state of the test_checkpoints\.Keeps is not restored.*itertools\.count"):
        MIRL.resume(tmp_path, "CartPole-v1").learn(80, counts())


class Grows(ConstantReward):
    """Holds objects that are made during an episode."""

    made = Record

    def reset(self, **kwargs):
        self.things = []
        return super().reset(**kwargs)

    def step(self, action):
        self.things.append(self.made(self.steps))
        return super().step(action)


class OfItsOwn(Grows):
    @staticmethod
    def made(step):
        @dataclasses.dataclass
        class Local:
            step: int

        return Local(step)


def test_objects_of_a_class_that_is_not_there_cost_the_episodes_only(tmp_path):
    env = Grows()
    MIRL("MlpPolicy", env, **SETTINGS).learn(84, CheckpointCallback(1000, tmp_path / "a"))
    resumed = MIRL.resume(tmp_path / "a", Grows())
    assert resumed.env.envs[0].unwrapped.things == env.things == [Record(step) for step in range(4)]
    MIRL("MlpPolicy", OfItsOwn(), **SETTINGS).learn(84, CheckpointCallback(1000, tmp_path / "b"))
    with pytest.warns(UserWarning, match=r"environment's state.*Local, of which no object can be made"):
        resumed = MIRL.resume(tmp_path / "b", OfItsOwn())
    assert resumed.env.envs[0].unwrapped.things == []
    assert resumed.num_timesteps == 84


class AgainstAnother(ConstantReward):
    """Draws its observations from the policy of an opponent that it plays against, and remembers those before."""

    def __init__(self, model=None):
        super().__init__()
        self.own, self.pool, self.opponent = model, [], MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)

    def step(self, action):
        if self.own is not None and self.steps == 3:
            self.pool.append(copy_of(self.own.policy))
            self.opponent.policy.load_state_dict(
                {name: value + 0.1 for name, value in self.opponent.policy.state_dict().items()}
            )
        return super().step(action)


def copy_of(policy):
    return pickle.loads(pickle.dumps(policy))


class Odd(ConstantReward):
    """Holds what no checkpoint can hold, and more."""

    def __init__(self, seed=0):
        super().__init__()
        self.held = {name: make() for name, make in CANNOT_BE_READ.items()} if seed else {}
        for name, make in CANNOT_BE_READ.items():
            setattr(self, name, make() if seed else None)
        for name, value in VALUES_OF_OTHERS.items():
            setattr(self, f"value {name}", value if seed else None)


class OddCallback(Keeps):
    def __init__(self, seed=0):
        super().__init__()
        self.odd = Odd(seed)
        self.odd_values = list(self.odd.held.values())
        self.generator = iter([1])


@pytest.mark.parametrize("workers", [False, True])
def test_odd_attributes_are_restored_or_named(tmp_path, workers):
    def env(seed):
        options = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "fork"}} if workers else {}
        return make_vec_env(lambda: Odd(seed), 1, **options)

    first = env(1)
    MIRL("MlpPolicy", first, **SETTINGS).learn(20, [CheckpointCallback(10, tmp_path), OddCallback(1)])
    with pytest.warns(UserWarning, match=r"environment's state is not in the checkpoint.*held\['.*queue"):
        resumed = MIRL.resume(tmp_path, env(0))
    assert resumed.env.get_attr("value tuple")[0] == (1, [2])
    callback = OddCallback()
    with pytest.warns(UserWarning, match=r"state of the test_checkpoints\.OddCallback is not restored.*odd_values\[0\]"):
        resumed.learn(24, callback)
    assert callback.best == Record(24) and callback.odd_values == []
    first.close()
    resumed.env.close()


class OddInfo(BitFlippingEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {**info, "sparse": th.ones(2).to_sparse()}


class Records(BaseCallback):
    def _on_step(self):
        self.logger.record("view", memoryview(b"a"), exclude=("stdout", "csv", "log", "json", "tensorboard"))
        return True


def test_what_is_lost_of_the_replay_buffer_and_the_logger_is_named(tmp_path):
    her = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": True}}
    model = MIRL("MultiInputPolicy", OddInfo(n_bits=4, max_steps=7), **{**SETTINGS, **her})
    model.learn(20, [CheckpointCallback(1000, tmp_path), Records()], log_interval=None)
    with pytest.warns(UserWarning, match=r"The replay buffer is not restored as a whole: infos\[.*torch.Tensor"):
        resumed = MIRL.resume(tmp_path, OddInfo(n_bits=4, max_steps=7))
    with pytest.warns(UserWarning, match=r"What the logger has recorded is not restored as a whole: name_to_value"):
        resumed.learn(24, Records(), log_interval=None)


class KeepsModels(BaseCallback):
    def __init__(self):
        super().__init__()
        self.best, self.same = None, None

    def _on_step(self):
        if self.n_calls == 60:
            self.best, self.same = copy_of(self.model.policy), self.model.policy
        return True


def test_opponents_come_back(tmp_path):
    env, callback = AgainstAnother(), KeepsModels()
    model = MIRL("MlpPolicy", env, **SETTINGS)
    env.own = model
    model.learn(84, [CheckpointCallback(1000, tmp_path), callback])
    again, other = AgainstAnother(), KeepsModels()
    resumed = MIRL.resume(tmp_path, again)
    resumed.learn(84, other)
    assert len(again.pool) == len(env.pool) > 1 and again.own is resumed and other.same is resumed.policy
    pairs = [
        *zip(env.pool, again.pool, strict=True),
        (env.opponent.policy, again.opponent.policy),
        (callback.best, other.best),
    ]
    for one, two in pairs:
        assert th.equal(th.nn.utils.parameters_to_vector(one.parameters()), th.nn.utils.parameters_to_vector(two.parameters()))


def test_opponent_that_cannot_come_back_is_named(tmp_path):
    env = AgainstAnother()
    env.pool.append(MIRL("MlpPolicy", "CartPole-v1", **SETTINGS))
    MIRL("MlpPolicy", env, **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path))
    with pytest.warns(UserWarning, match=r"cannot be read: at envs\[0\].env.pool\[0\] there was a .*MIRL"):
        MIRL.resume(tmp_path, AgainstAnother())


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
def test_a_full_disk_stops_the_checkpoint_and_not_the_training(tmp_path):
    options = {"total": 480, "save_freq": 36, "settings": SETTINGS}
    whole = run(tmp_path / "whole", lambda: cartpole(tmp_path / "whole"), **options)
    folder = tmp_path / "full"
    found: list[list[str]] = []

    def look(local, _):
        if local["self"]._n_calls == 290:
            found.append(names(folder))
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


class Breaks(ConstantReward):
    """Its observation at one step is not a number."""

    breaks = True

    def __init__(self):
        super().__init__(length=1000)

    def step(self, action):
        obs, *rest = super().step(action)
        return np.full_like(obs, np.nan) if self.breaks and self.steps == 150 else obs, *rest


def test_after_an_observation_that_is_no_number_the_last_checkpoint_is_whole(tmp_path, monkeypatch):
    model = MIRL("MlpPolicy", Breaks(), **SETTINGS)
    with pytest.raises(ValueError, match="nan"):
        model.learn(300, CheckpointCallback(40, tmp_path))
    monkeypatch.setattr(Breaks, "breaks", False)
    resumed = MIRL.resume(tmp_path, Breaks())
    assert resumed.num_timesteps == 120
    resumed.learn(300)
    assert resumed.num_timesteps == 300
    assert all(th.isfinite(value).all() for value in resumed.policy.state_dict().values())


def test_no_space(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "_write", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(100, CheckpointCallback(20, tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ["random", "--kills", "20"],
        ["operations", "--total", "60", "--save-freq", "12"],
        ["operations", "--run", "image", "--total", "70", "--save-freq", "30"],
        pytest.param(["random", "--kills", "200"], marks=pytest.mark.slow),
        pytest.param(["random", "--kills", "100", "--run", "image", "--total", "300"], marks=pytest.mark.slow),
        pytest.param(["operations", "--run", "image", "--total", "300", "--save-freq", "30"], marks=pytest.mark.slow),
    ],
)
def test_killed_processes(arguments):
    script = Path(__file__).parents[2] / "helpers" / "killed_run.py"
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["failures"] == 0, done.stderr
    if arguments[0] == "random":
        assert summary["kills"] == int(arguments[2])
        assert summary["equal"] == summary["runs"] > 0
    else:
        assert summary["equal"] == summary["kills"] > 20


def test_configure_is_asked_for_where_a_log_has_no_writer(tmp_path):
    env = gym.make("CartPole-v1")
    model = MIRL("MlpPolicy", env, **SETTINGS)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, CheckpointCallback(20, tmp_path))
    with pytest.warns(UserWarning, match=r"wrote \['progress.csv'\], which nothing writes now"):
        MIRL.resume(tmp_path, env).learn(120)
