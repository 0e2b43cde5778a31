"""``AtariVecEnv`` beside SB3's ``make_atari_env``: driven with the same actions, they tell the learner the same."""

import itertools
from functools import cache
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from sb3_mirl import MIRL
from sb3_mirl.common.buffers import FrameReplayBuffer
from sb3_mirl.envs.atari import AtariVecEnv, native_atari
from sb3_mirl.envs.useless_actions import UselessActions
from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.register import hyperparams_file

BREAKOUT = "BreakoutNoFrameskip-v4"


def drive(env_id, n_steps, n_envs=1, env_kwargs=None, **wrapper):
    """SB3's and ours after each of the same actions: (observations, rewards, dones, infos) of either."""
    wrapper = {"noop_max": 0, **wrapper}
    theirs = make_atari_env(env_id, n_envs, seed=0, wrapper_kwargs=wrapper, env_kwargs=env_kwargs)
    ours = AtariVecEnv(env_id, n_envs, seed=0, env_kwargs=env_kwargs, **wrapper)
    assert ours.action_space == theirs.action_space
    generator = np.random.default_rng(0)
    yield (theirs.reset(), None, None, None), (ours.reset(), None, None, None)
    for _ in range(n_steps):
        actions = generator.integers(0, theirs.action_space.n, n_envs)
        yield theirs.step(actions), ours.step(actions)
    theirs.close()
    ours.close()


def learner_view(reward, done, info):
    episode = info.get("episode")
    view = {"reward": float(reward), "done": bool(done), "lives": info["lives"], "truncated": info["TimeLimit.truncated"]}
    return {**view, "episode": episode and (episode["r"], episode["l"]), "last frame": "terminal_observation" in info}


def compare_with_sb3(env_id, n_steps, until_game_over=False, **arguments):
    """Asserts that ours tells the learner the same in every step. Returns how many games and learning episodes ended."""
    n_games, n_ends = 0, 0
    for step, ((_, theirs, their_dones, their_infos), (_, ours, dones, infos)) in enumerate(
        drive(env_id, n_steps, **arguments)
    ):
        if theirs is not None:
            view = learner_view(ours[0], dones[0], infos[0])
            assert view == learner_view(theirs[0], their_dones[0], their_infos[0]), f"step {step}"
            n_games, n_ends = n_games + ("episode" in infos[0]), n_ends + dones[0]
            if until_game_over and n_games:
                n_steps = min(n_steps, step + 30)
                if step == n_steps:
                    break
    return n_games, n_ends


# With and without FIRE, with and without lives, and one that has no lives left for some frames before it is over
@pytest.mark.parametrize(
    ("game", "terminal_on_life_loss"),
    [("Breakout", True), ("Breakout", False), ("Pong", True), ("Seaquest", True), ("Qbert", True), ("Qbert", False)],
)
def test_rewards_episode_ends_and_statistics_equal_sb3s(game, terminal_on_life_loss):
    n_games, n_ends = compare_with_sb3(
        f"{game}NoFrameskip-v4", 1500, until_game_over=True, terminal_on_life_loss=terminal_on_life_loss
    )
    assert n_games >= 1
    if game != "Pong":
        assert (n_ends > 2 * n_games) == terminal_on_life_loss


@cache
def frame_of_the_first_lost_life(game, full_action_space):
    """With the actions of :func:`drive`."""
    env_kwargs, wrapper = {"full_action_space": full_action_space}, {"noop_max": 0, "terminal_on_life_loss": False}
    env = make_atari_env(f"{game}NoFrameskip-v4", seed=0, env_kwargs=env_kwargs, wrapper_kwargs=wrapper)
    generator = np.random.default_rng(0)
    env.reset()
    lives = env.envs[0].unwrapped.ale.lives()
    while env.step(generator.integers(0, env.action_space.n, 1))[3][0]["lives"] == lives:
        pass
    return env.envs[0].unwrapped.ale.getEpisodeFrameNumber()


LOST_LIFE = "frame of the first lost life"
GAMES = ["Breakout", "Seaquest", "Qbert", "SpaceInvaders", "MsPacman", "Pong"]
CONFIGURATIONS = [
    (game, terminal_on_life_loss, full_action_space, limit)
    for game, terminal_on_life_loss, full_action_space, limit in itertools.product(
        GAMES, [True, False], [True, False], [LOST_LIFE, 200, 401, None]
    )
    if (game, limit) != ("Pong", LOST_LIFE)
]
# All of them take a minute and a half
FAST_CONFIGURATIONS = [one for one in CONFIGURATIONS if one[0] in GAMES[:3] and one[1] == one[2] and one[3] == LOST_LIFE]


def compare_configuration(game, terminal_on_life_loss, full_action_space, limit):
    frames = frame_of_the_first_lost_life(game, full_action_space) if limit == LOST_LIFE else limit
    env_kwargs = {"full_action_space": full_action_space, **({"max_num_frames_per_episode": frames} if frames else {})}
    n_games, _ = compare_with_sb3(
        f"{game}NoFrameskip-v4",
        n_steps=(frames or 800) // 4 + 20,
        env_kwargs=env_kwargs,
        terminal_on_life_loss=terminal_on_life_loss,
    )
    assert n_games >= 1 or limit != LOST_LIFE


@pytest.mark.parametrize("configuration", FAST_CONFIGURATIONS, ids=str)
def test_a_life_lost_in_the_last_step_before_the_frame_limit_is_as_in_sb3(configuration):
    compare_configuration(*configuration)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_every_configuration_is_as_in_sb3(configuration):
    compare_configuration(*configuration)


@pytest.mark.parametrize("game", ["Breakout", "Pong", "MsPacman"])
def test_frames_equal_sb3s_except_for_the_conversion_to_grey(game):
    differences = []
    for (theirs, _, dones, their_infos), (ours, _, _, infos) in drive(f"{game}NoFrameskip-v4", 400):
        differences.append(np.abs(theirs[0, :, :, 0].astype(int) - ours[0, 0]))
        if dones is not None and dones[0]:
            last, our_last = their_infos[0]["terminal_observation"], infos[0]["terminal_observation"]
            assert np.abs(last[:, :, 0].astype(int) - our_last[0]).mean() < 1
    assert np.mean(differences) < 0.1 and np.mean(np.array(differences) > 8) < 0.01


def test_several_games_with_unclipped_rewards_and_all_actions():
    rewards = []
    for (_, theirs, their_dones, _), (_, ours, dones, _) in drive(
        "SeaquestNoFrameskip-v4", 300, n_envs=3, env_kwargs={"full_action_space": True}, clip_reward=False
    ):
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(dones, their_dones)
            rewards.append(ours)
    assert np.max(rewards) > 1


def test_parallel_games_equal_single_games():
    together = AtariVecEnv(BREAKOUT, 3, seed=5)
    alone = [AtariVecEnv(BREAKOUT, 1, seed=5 + rank) for rank in range(3)]
    np.testing.assert_array_equal(together.reset(), np.concatenate([env.reset() for env in alone]))
    generator = np.random.default_rng(0)
    n_ends = np.zeros(3)
    for _ in range(400):
        actions = generator.integers(0, 4, 3)
        frames, rewards, dones, infos = together.step(actions)
        each = [env.step(actions[[rank]]) for rank, env in enumerate(alone)]
        for ours, theirs in zip((frames, rewards, dones), zip(*(result[:3] for result in each), strict=True), strict=True):
            np.testing.assert_array_equal(ours, np.concatenate(theirs))
        for info, (_, _, _, (other,)) in zip(infos, each, strict=True):
            for found in (info, other):
                found.get("episode", {}).pop("t", None)
            np.testing.assert_equal(info, other)
        n_ends += dones
    assert (n_ends > 5).all()


@pytest.mark.parametrize("seed", [None, 3])
def test_statistics_restart_after_reset(seed):
    env = AtariVecEnv("SeaquestNoFrameskip-v4", seed=0, terminal_on_life_loss=False, clip_reward=False)
    generator = np.random.default_rng(0)
    env.reset()
    left = sum(env.step(generator.integers(0, 18, 1))[1][0] for _ in range(250))
    assert left > 0
    env.seed(seed)
    env.reset()
    score, n_steps, infos = 0.0, 0, [{}]
    while "episode" not in infos[0]:
        _, rewards, _, infos = env.step(generator.integers(0, 18, 1))
        score, n_steps = score + rewards[0], n_steps + 1
    assert infos[0]["episode"]["r"] == score
    # With FIRE, the action after it and up to 29 frames without action
    assert -4 < infos[0]["episode"]["l"] - 4 * (n_steps + 2) < 30


def test_frame_limit_truncates_game(tmp_path):
    limit = {"max_num_frames_per_episode": 200}
    native = AtariVecEnv("PongNoFrameskip-v4", noop_max=0, env_kwargs=limit, monitor_dir=str(tmp_path))
    native.reset()
    ends = []
    for step in range(110):
        _, _, dones, infos = native.step(np.array([0]))
        if dones[0]:
            ends.append((step, infos[0]["TimeLimit.truncated"], infos[0]["episode"]["l"]))
    assert len(ends) == 2 and all(truncated and length == 200 for _, truncated, length in ends)
    native.close()
    assert load_results(str(tmp_path))["l"].tolist() == [200, 200]


def test_seeds():
    def first_frames(seed):
        env = AtariVecEnv(BREAKOUT, 2, seed=seed)
        first = env.reset()
        frames = [env.step(np.array([2, 2]))[0] for _ in range(30)]
        return np.array([first, *frames])

    np.testing.assert_array_equal(first_frames(3), first_frames(3))
    assert (first_frames(3) != first_frames(4)).any()
    env = AtariVecEnv(BREAKOUT)
    env.seed(None)  # SB3 draws 32 bits
    env.reset()


def test_mirl_trains_and_is_evaluated():
    env = VecFrameStack(AtariVecEnv(BREAKOUT, 2, seed=1, screen_size=42), 4)
    settings = {
        "learning_starts": 60,
        "buffer_size": 400,
        "replay_buffer_class": FrameReplayBuffer,
        "device": "cpu",
        "seed": 1,
    }
    model = MIRL("CnnPolicy", env, **settings).learn(400)
    assert model.observation_space.shape == (4, 42, 42) and model._n_updates > 0
    assert len(model.ep_info_buffer) > 0
    assert model.action_names == ["NOOP", "FIRE", "RIGHT", "LEFT"]  # for the log of ρ
    evaluation = VecFrameStack(AtariVecEnv(BREAKOUT, 1, seed=1, screen_size=42), 4)
    scores, lengths = evaluate_policy(model, evaluation, n_eval_episodes=1, deterministic=False, return_episode_rewards=True)
    assert lengths[0] > 100 and scores[0] == int(scores[0])  # whole games, in frames


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_id": "CartPole-v1"}, "must be an Atari game without frame skip.*got 'CartPole-v1'"),
        ({"env_id": "ALE/Pong-v5"}, "without frame skip.*frameskip=4"),
        ({"env_id": BREAKOUT, "env_kwargs": {"mode": 4}}, r"env_kwargs must be among .*got \['mode'\]"),
        ({"env_id": BREAKOUT, "env_kwargs": {"obs_type": "ram"}}, "obs_type at 'rgb', got 'ram'"),
        ({"env_id": BREAKOUT, "n_envs": 0}, "n_envs must be a whole number of at least 1, got 0"),
        ({"env_id": BREAKOUT, "n_envs": 2.0}, "n_envs must be a whole number of at least 1, got 2.0"),
        ({"env_id": BREAKOUT, "screen_size": 0}, "screen_size must be a whole number of at least 1, got 0"),
    ],
)
def test_unsupported_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AtariVecEnv(**arguments)


@pytest.mark.parametrize("actions", [[4, 0], [-1, 0], [0.5, 0.0], [0], [0, 0, 0]])
def test_actions_that_the_game_does_not_have_are_refused(actions):
    """The emulator would never answer."""
    env = AtariVecEnv(BREAKOUT, 2, screen_size=42)
    env.reset()
    with pytest.raises(ValueError, match="actions must be 2 whole numbers from 0 to 3, got"):
        env.step(np.array(actions))
    assert env.step(np.array([3, 0]))[0].shape == (2, 1, 42, 42)


def test_native_atari_keeps_the_time_limit_of_the_games():
    venv = make_vec_env(lambda **kwargs: gym.make(BREAKOUT, max_episode_steps=200, **kwargs))
    native = native_atari(venv, noop_max=0, terminal_on_life_loss=False)
    native.reset()
    infos = [native.step(np.zeros(1, dtype=np.int64))[3][0] for _ in range(60)]
    ends = [info for info in infos if "episode" in info]
    assert [info["episode"]["l"] for info in ends] == [200] and ends[0]["TimeLimit.truncated"]


@pytest.mark.parametrize(
    "games, message",
    [
        ([lambda: UselessActions(gym.make(BREAKOUT), 3, 0)], "without wrappers, which would be lost, got UselessActions in"),
        ([lambda: gym.make(BREAKOUT), lambda: gym.make("PongNoFrameskip-v4")], "needs environments of one game"),
        (
            [lambda: gym.make(BREAKOUT, repeat_action_probability=0.1), lambda: gym.make(BREAKOUT)],
            "with the same arguments, got",
        ),
    ],
)
def test_native_atari_refuses_what_it_would_lose(games, message):
    with pytest.raises(ValueError, match=message):
        native_atari(DummyVecEnv(games))


def test_native_atari_replaces_a_dummy_vec_env(tmp_path):
    # As the zoo does it: for an id, SB3 would ask for rendering
    venv = make_vec_env(lambda **kwargs: gym.make(BREAKOUT, **kwargs), n_envs=2, seed=5, monitor_dir=str(tmp_path))
    native = native_atari(venv, noop_max=0)
    assert isinstance(native, AtariVecEnv) and native._seeds == [5, 6]
    native.reset()
    while not any("episode" in info for info in native.step(np.ones(2, dtype=np.int64))[3]):
        pass
    assert len(load_results(str(tmp_path))) >= 1
    shown = native_atari(make_vec_env(BREAKOUT, env_kwargs={"render_mode": "rgb_array"}))
    assert isinstance(shown, DummyVecEnv) and shown.reset().shape == (1, 84, 84, 1)
    assert shown.render().shape == (210, 160, 3)
    others = SubprocVecEnv([lambda: gym.make("CartPole-v1")], start_method="fork")
    with pytest.raises(ValueError, match=r"needs a DummyVecEnv.*got SubprocVecEnv"):
        native_atari(others)
    others.close()


def test_native_atari_trains_in_the_zoo(tmp_path, monkeypatch, capsys):
    settings = yaml.safe_load(hyperparams_file("mirl").read_text())["atari"]
    del settings["env_wrapper"]
    settings |= {
        "vec_env_wrapper": "sb3_mirl.envs.atari.native_atari",
        "n_envs": 2,
        "n_timesteps": 300,
        "learning_starts": 100,
    }
    Path(tmp_path, "mirl.yml").write_text(yaml.safe_dump({"atari": {**settings, "buffer_size": 500}}))
    monkeypatch.chdir(tmp_path)
    common = ["--algo", "mirl", "--env", BREAKOUT, "-f", "logs"]
    assert main(["train", *common, "--conf-file", "mirl.yml", "--seed", "1", "--eval-freq", "-1", "--num-threads", "1"]) == 0
    assert len(load_results(str(next(Path("logs/mirl").glob(f"{BREAKOUT}_1"))))) > 0
    capsys.readouterr()
    assert main(["enjoy", *common, "-n", "50", "--no-render", "--device", "cpu"]) == 0
    assert main(["record-video", *common, "-n", "20", "-o", "videos"]) == 0
    assert list(Path("videos").glob("*.mp4"))
