"""An interrupted and resumed run ends like an uninterrupted one; damage is noticed; mistakes are named."""

import json
import random

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import FlattenObservation, FrameStackObservation
from masked import MaskedProbe
from probes import Image, Mixed
from resuming import CNN, IGNORED_WARNINGS, SETTINGS, SMALL_CNN, cartpole, content, copy, manifest_names, run
from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import (
    EvalCallback,
)
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.her import HerReplayBuffer

from sb3_mirl import DQNMSE, MDQN, MIRL, SQL, ActionMaskInfo, BaseDQN, CheckpointCallback
from sb3_mirl.common.buffers import DeviceReplayBuffer
from sb3_mirl.common.resume import replay_log, run_state
from sb3_mirl.common.resume.reader import Checkpoint
from sb3_mirl.envs.atari import AtariVecEnv

pytestmark = IGNORED_WARNINGS


def atari(game, folder, n_envs=1, **kwargs):
    kwargs |= {"seed": 5, "monitor_dir": str(folder), "wrapper_kwargs": {"screen_size": 42}}
    return VecFrameStack(make_atari_env(f"{game}NoFrameskip-v4", n_envs, **kwargs), 4)


def masked(folder, n_envs, **kwargs):
    return make_vec_env(MaskedProbe, n_envs, seed=5, monitor_dir=str(folder), wrapper_class=ActionMaskInfo, **kwargs)


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
    "MDQN": (
        cartpole,
        {"prior_lr": None, "beta_lr": None, "munchausen_alpha": 0.5, "entropy_temperature": 0.2, "munchausen_clip": -0.3},
        {"algorithm": MDQN},
    ),
    "BaseDQN in worker processes": (
        lambda folder: cartpole(folder, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        {"prior_lr": None, "beta_lr": None},
        {"algorithm": BaseDQN},
    ),
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
    "action masks": (lambda folder: masked(folder, 2), {"n_steps": 3}, {}),
    "action masks, DQN in worker processes": (
        lambda folder: masked(folder, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        {"prior_lr": None, "beta_lr": None},
        {"algorithm": DQNMSE},
    ),
    "Pong": (lambda folder: atari("Pong", folder), CNN, {"policy": "CnnPolicy"}),
    "Breakout, worker processes": (
        lambda folder: atari("Breakout", folder, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}),
        CNN,
        {"policy": "CnnPolicy"},
    ),
    "Breakout, SB3's buffer": (
        lambda folder: atari("Breakout", folder),
        {"policy_kwargs": SMALL_CNN},
        {"policy": "CnnPolicy"},
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in ("Pong", "Breakout, SB3's buffer"))) for case in CASES]
)
def test_interrupted_run_equals_uninterrupted_run(case, tmp_path, monkeypatch):
    make_env, settings, options = CASES[case]
    if case == "frames":  # several files for one checkpoint
        monkeypatch.setattr(replay_log, "SEGMENT_BYTES", 100_000)
    options = {
        "total": 240,
        "save_freq": 25,
        "settings": {k: v for k, v in {**SETTINGS, **settings}.items() if v is not None},
        **options,
    }

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


def interrupt_and_resume(make_env, folder, settings=SETTINGS, policy="MlpPolicy"):
    """A run that was interrupted, what it was at its last checkpoint, and the resumed model."""
    model = MIRL(policy, make_env(), **settings)
    model.learn(180, CheckpointCallback(1000, folder))
    with pytest.warns(UserWarning, match="environment's state is not in the checkpoint") as warned:
        resumed = MIRL.resume(folder, make_env())
    assert len([one for one in warned if one.category is UserWarning]) == 1
    return model, resumed


def test_without_environment_state_only_episodes_are_lost(tmp_path):
    model, resumed = interrupt_and_resume(lambda: VecNormalize(make_vec_env("LunarLander-v3", 2, seed=5)), tmp_path)
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


def test_truncated_episodes_are_in_the_next_checkpoint(tmp_path):
    _, resumed = interrupt_and_resume(lambda: make_vec_env("LunarLander-v3", 1, seed=5), tmp_path)
    slot = resumed.replay_buffer.pos - 1
    resumed.learn(200, CheckpointCallback(5, tmp_path))
    with pytest.warns(UserWarning, match="environment's state"):
        again = MIRL.resume(tmp_path, make_vec_env("LunarLander-v3", 1, seed=5))
    assert again.replay_buffer.dones[slot] == 1


def test_native_atari_is_resumed_with_new_episodes(tmp_path):
    _, resumed = interrupt_and_resume(
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


def end_after_damage(folder, options):
    with pytest.warns(UserWarning, match="Damaged checkpoint.*going on with rl_model"):
        model = run(folder, lambda: cartpole(folder), **options)
    return content(model, folder)


def newest_files(folder):
    manifest = json.loads((folder / "checkpoints" / manifest_names(folder)[-1]).read_text())
    own = [*manifest["files"], f"{manifest['name']}.json", f"replay/{manifest['replay']['segments'][-1]['file']}"]
    return [folder / "checkpoints" / name for name in own]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "one bit", "longer"])
def test_damaged_checkpoint_is_replaced_by_the_one_before(finished, tmp_path, kind, how):
    source, options, expected = finished
    folder = copy(source, tmp_path / "run")
    path = newest_files(folder)[kind]
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
    assert end_after_damage(folder, options) == expected


def test_every_changed_byte_is_noticed(finished, tmp_path):
    folder = copy(finished[0], tmp_path / "run") / "checkpoints"
    draw = random.Random(0)
    newest = newest_files(folder.parent)
    assert Checkpoint.newest(folder).manifest["name"] == newest[0].stem
    for trial in range(100):
        path = newest[trial % len(newest)]
        content = bytearray(path.read_bytes())
        index = draw.randrange(len(content))
        before = content[index]
        content[index] ^= draw.randrange(1, 256)
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="Damaged checkpoint"):
            found = Checkpoint.newest(folder)
        assert found.manifest["name"] != newest[0].stem, (path, index)
        content[index] = before
        path.write_bytes(content)


def test_error_if_all_checkpoints_are_damaged(finished, tmp_path):
    folder = copy(finished[0], tmp_path / "run") / "checkpoints"
    for path in folder.glob("*.zip"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"all are damaged.*\.zip has 0 bytes"):
        MIRL.resume(folder, cartpole(tmp_path))


def test_error_if_there_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder must hold a checkpoint"):
        MIRL.resume(tmp_path, "CartPole-v1")
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, callbacks.CheckpointCallback(10, tmp_path))
    with pytest.raises(ValueError, match=r"stable_baselines3's CheckpointCallback \(rl_model_10_steps\.zip, rl_model_20"):
        MIRL.resume(tmp_path, "CartPole-v1")


@pytest.fixture
def folder(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5))
    MIRL("MlpPolicy", env, **SETTINGS).learn(96, CheckpointCallback(20, tmp_path))
    return tmp_path


def test_error_for_another_number_of_environments(folder):
    with pytest.raises(ValueError, match="env must have 2 environments, as in the checkpoint, got 1"):
        MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 1)))


def test_error_for_missing_wrapper(folder):
    with pytest.raises(ValueError, match=r"env must be made like that of the interrupted run.*VecNormalize"):
        MIRL.resume(folder, make_vec_env("CartPole-v1", 2))


def test_error_for_missing_wrapper_in_worker_processes(tmp_path):
    def env(name):
        return make_vec_env(name, 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})

    first = env("CartPole-v1")
    MIRL("MlpPolicy", first, **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
    other = env(lambda: gym.wrappers.TransformReward(gym.make("CartPole-v1"), float))
    with pytest.raises(ValueError, match=r"env must be made like that of the interrupted run.*envs\[0\].*TransformReward"):
        MIRL.resume(tmp_path, other)
    first.close()
    other.close()


def test_error_for_another_algorithm(folder):
    with pytest.raises(ValueError, match=r"saved by MIRL: load it with MIRL\.load"):
        SQL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))


def test_other_versions_are_named_in_a_warning(folder, monkeypatch):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    monkeypatch.setattr(run_state, "package_versions", lambda *names: dict.fromkeys(names, "9.9"))
    with pytest.warns(UserWarning, match=r"other versions \(torch .* -> 9\.9\)"):
        model.learn(120)
