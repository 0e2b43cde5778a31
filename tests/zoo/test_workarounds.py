"""Commands that need changes in rl-zoo3, and that these changes end with the command."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3
import rl_zoo3.utils
from masked import MaskedProbe
from rl_zoo3.exp_manager import ExperimentManager as ZooExperimentManager
from stable_baselines3.common.monitor import Monitor, load_results
from zoo_train import ENV, train

from sb3_mirl import MIRL
from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.register import ALGORITHMS, register
from sb3_mirl.zoo.workarounds import (
    children_in_this_process,
    counting_all_episodes,
    for_playing,
    models_for_playing,
    replaced,
)

OURS = sorted(ALGORITHMS)


def test_replaced_attributes_are_put_back():
    module = SimpleNamespace(name=1)
    with pytest.raises(KeyError), replaced(module, name=2, new=3):
        assert (module.name, module.new) == (2, 3)
        raise KeyError
    assert vars(module) == {"name": 1}


def test_algorithms_are_loaded_for_playing_only_inside_the_context():
    register()
    before = list(rl_zoo3.ALGOS.items())
    with models_for_playing(ALGORITHMS):
        assert all(rl_zoo3.ALGOS[name] is not algorithm for name, algorithm in ALGORITHMS.items())
    assert list(rl_zoo3.ALGOS.items()) == before


def test_child_commands_have_the_exit_status_of_a_process(capsys):
    def run_command(arguments):
        if arguments == ["enjoy", "fail"]:
            raise RuntimeError("an environment's \x1b]0;title\x07 text")
        if arguments == ["enjoy", "stop"]:
            raise SystemExit(3)
        return 0

    with children_in_this_process(run_command):
        statuses = [subprocess.call(["python", "enjoy.py", argument]) for argument in ("fine", "stop", "fail")]
        assert subprocess.call([sys.executable, "-c", "raise SystemExit(5)"]) == 5
    assert statuses == [0, 3, 1]
    assert "RuntimeError: an environment's \\x1b]0;title\\x07 text" in capsys.readouterr().err


@pytest.fixture
def masked_env(tmp_path, monkeypatch):
    """The arguments for an environment in which an invalid action is an error."""
    monkeypatch.chdir(tmp_path)
    gym.register("MaskedProbe-v0", entry_point=MaskedProbe)
    Path("masked.yml").write_text(
        "MaskedProbe-v0:\n  n_timesteps: 300\n  policy: MlpPolicy\n  learning_starts: 50\n"
        "  env_wrapper: sb3_mirl.ActionMaskInfo\n"
    )
    yield ["--algo", "mirl", "--env", "MaskedProbe-v0", "-f", "logs"]
    del gym.registry["MaskedProbe-v0"]


def test_action_masks_in_the_zoo(masked_env, capsys):
    training = ["train", *masked_env, "--conf-file", "masked.yml", "--verbose", "0", "--seed", "1"]
    assert main([*training, "--eval-freq", "150", "--eval-episodes", "3", "--save-freq", "100"]) == 0
    evaluations = np.load("logs/mirl/MaskedProbe-v0_1/evaluations.npz")["results"]
    assert evaluations.shape == (2, 3)
    assert main([*training, "--resume", "-n", "400"]) == 0
    create = rl_zoo3.utils.create_test_env
    for options in ([], ["--stochastic"]):
        assert main(["enjoy", *masked_env, "--no-render", "-n", "30", *options]) == 0
        assert "Mean reward" in capsys.readouterr().out
    assert main(["record-video", *masked_env, "-n", "10", "-o", "videos"]) == 0
    assert len(list(Path("videos").glob("*.mp4"))) == 1
    assert rl_zoo3.utils.create_test_env is create
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none"]
    assert main([*training, *search, "--no-optim-plots", "--eval-episodes", "2"]) == 0
    assert main([*training[:-2], "--seeds", "1,2"]) == 2
    assert "Joint training does not support action masks" in capsys.readouterr().err


def test_missing_wrapper_is_named_in_the_zoo(masked_env):
    file = Path("masked.yml")
    file.write_text(file.read_text().replace("  env_wrapper: sb3_mirl.ActionMaskInfo\n", ""))
    with pytest.raises(ValueError, match=r"the hyper-parameter env_wrapper: sb3_mirl\.ActionMaskInfo"):
        main(["train", *masked_env, "--conf-file", "masked.yml", "--verbose", "0"])


@pytest.mark.parametrize("algo", OURS)
def test_playing_allocates_no_replay_buffer(algo, in_runs):
    file = in_runs / "logs" / algo / f"{ENV}_1" / f"{ENV}.zip"
    player = for_playing(ALGORITHMS[algo])
    assert player.__name__ == ALGORITHMS[algo].__name__
    model = player.load(file)
    assert type(model) is ALGORITHMS[algo] and model.replay_buffer.buffer_size == 1
    assert ALGORITHMS[algo].load(file).replay_buffer.buffer_size > 1


def test_playing_needs_no_compiler(tmp_path, monkeypatch):
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, buffer_size=100)
    model.save(tmp_path / "model")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    player = for_playing(MIRL).load(tmp_path / "model")
    assert not player.compile_update and player.policy._compiled_acting is None
    with pytest.raises(ValueError, match=r"there is none. To use a trained .*: load\(..., compile_update=False\)"):
        MIRL.load(tmp_path / "model")


@pytest.mark.slow
def test_an_atari_agent_plays_in_two_gib(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = "PongNoFrameskip-v4"
    train("--eval-freq", "-1", "-params", "buffer_size:200", "learning_starts:50", env=env, steps=100)
    file = f"logs/mirl/{env}_1/{env}.zip"
    model = MIRL.load(file)
    model.buffer_size = 1_000_000
    model.save(file)
    code = """
import resource, sys
from sb3_mirl.zoo.command import main
main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command = ["enjoy", "--algo", "mirl", "--env", env, "-f", "logs", "--no-render", "-n", "100", "--num-threads", "1"]
    printed = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True).stdout
    kibibytes = int(printed.split("PEAK")[1])
    assert kibibytes < 2 * 1024**2


def test_benchmark(in_runs, capsys):
    assert (
        main(["benchmark", "--log-dir", "logs", "--benchmark-dir", "bench", "--no-hub", "-n", "300", "--num-threads", "1"])
        == 0
    )
    text = Path("bench/benchmark.md").read_text()
    assert all(f"|{algo}" in text.replace(" ", "") for algo in [*OURS, "dqn"])


def test_benchmark_is_of_the_agents_that_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gym.register("Own/Cart-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=30)
    command = ["benchmark", "--log-dir", "logs", "--no-hub", "-n", "100", "--num-threads", "1"]
    try:
        train("--eval-freq", "-1", "-params", "n_timesteps:100", "policy:'MlpPolicy'", env="Own/Cart-v0", steps=100)
        Path("logs/sql/Own-Cart-v0_1/Own-Cart-v0").mkdir(parents=True)
        Path("logs/sql/Own-Cart-v0_1/Own-Cart-v0/args.yml").touch()
        for answer in ("Evaluating", "Skipping eval", "Evaluating"):
            assert main(command) == 0
            printed = capsys.readouterr().out
            assert ("Skipping eval" in printed) == (answer == "Skipping eval")
            assert "Left out: logs/sql/Own-Cart-v0_1/Own-Cart-v0/args.yml cannot be read" in printed
            assert "|mirl|Own-Cart-v0|" in Path("logs/benchmark/benchmark.md").read_text().replace(" ", "")
            if answer == "Skipping eval":
                # As after another training
                os.utime("logs/mirl/Own-Cart-v0_1/Own-Cart-v0.zip", (4e9, 4e9))
    finally:
        del gym.registry["Own/Cart-v0"]


def test_arguments_of_the_environment_in_the_file_reach_every_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = Path("short.yml")
    file.write_text(f"{ENV}:\n  n_timesteps: 120\n  policy: MlpPolicy\n  env_kwargs: {{max_episode_steps: 5}}\n")
    own = ["--algo", "mirl", "--env", ENV, "-f", "logs"]
    assert main(["train", *own, "--conf-file", "short.yml", "--eval-freq", "60", "--verbose", "0"]) == 0
    assert (np.load(f"logs/mirl/{ENV}_1/evaluations.npz")["ep_lengths"] == 5).all()
    # Those of the command line complete them
    other = ["--env-kwargs", "sutton_barto_reward:True", "--eval-freq", "60", "--verbose", "0"]
    assert main(["train", *own, "--conf-file", "short.yml", *other]) == 0
    assert (np.load(f"logs/mirl/{ENV}_2/evaluations.npz")["ep_lengths"] == 5).all()
    others = ["--eval-env-kwargs", "sutton_barto_reward:True", "--eval-freq", "60", "--verbose", "0"]
    assert main(["train", *own, "--conf-file", "short.yml", *others]) == 0
    assert (np.load(f"logs/mirl/{ENV}_3/evaluations.npz")["ep_lengths"] == 5).all()
    lengths = []
    create = rl_zoo3.utils.create_test_env

    def create_test_env(*args, **kwargs):
        env = create(*args, **kwargs)
        lengths.append(env.get_attr("spec")[0].max_episode_steps)
        return env

    monkeypatch.setattr(rl_zoo3.utils, "create_test_env", create_test_env)
    monkeypatch.setattr(rl_zoo3.enjoy, "create_test_env", create_test_env)
    for number in ("1", "2"):
        assert main(["enjoy", *own, "--exp-id", number, "--no-render", "-n", "10"]) == 0
        assert main(["record-video", *own, "--exp-id", number, "-n", "10", "-o", "videos"]) == 0
    assert lengths == [5, 5, 5, 5]


class Endless(gym.Env):
    """Rewards of 2, clipped to 1 by a wrapper."""

    observation_space = action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 2.0, False, False, {}


def test_episodes_that_a_wrapper_truncates_are_counted(tmp_path):
    def wrapper(env):
        return gym.wrappers.TimeLimit(gym.wrappers.ClipReward(env, -1, 1), 3)

    env = counting_all_episodes(wrapper)(Monitor(Endless(), str(tmp_path / "own")))
    for _ in range(2):
        env.reset()
        steps = [env.step(0) for _ in range(3)]
        assert [truncated for *_, truncated, _ in steps] == [False, False, True]
        assert steps[-1][1] == 1.0 and (steps[-1][-1]["episode"]["r"], steps[-1][-1]["episode"]["l"]) == (6.0, 3)
    monitor = env.env.env.env
    assert (monitor.get_episode_rewards(), monitor.get_episode_lengths(), monitor.get_total_steps()) == ([6.0] * 2, [3] * 2, 6)
    env.close()
    assert load_results(tmp_path)["r"].tolist() == [6.0, 6.0]
    # Nothing is added where nothing outside of Monitor truncates
    assert counting_all_episodes(None) is None
    clipped = counting_all_episodes(lambda env: gym.wrappers.ClipReward(env, -1, 1))(Monitor(Endless()))
    assert type(clipped) is gym.wrappers.ClipReward


def test_log_folders_that_are_patterns_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--algo", "mirl", "--env", ENV, "-f", "lo[gs]"]) == 2
    assert "-f must not contain [, * or ?, because rl-zoo3 takes it for a pattern, got 'lo[gs]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_hub_commands_up_to_the_network_call(algo, in_runs, tmp_path, monkeypatch):
    """Only the outermost calls of the hub are replaced, for upload and download."""
    uploaded = {}

    class Hub:
        def create_repo(self, **kwargs):
            return f"hub/{kwargs['repo_id']}"

        def snapshot_download(self, repo_id, local_dir):
            Path(local_dir).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded[repo_id] = Path(folder_path)

    import huggingface_hub
    import huggingface_sb3

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_sb3, "load_from_hub", lambda repo_id, filename: hub_file(uploaded[repo_id], filename))
    command = ["push-to-hub", "--algo", algo, "--env", ENV, "-f", "logs", "-orga", "me", "--no-render", "-n", "10"]
    assert main(command) == 0
    (folder,) = uploaded.values()
    assert ALGORITHMS.get(algo, rl_zoo3.ALGOS[algo]).__name__ in (folder / "README.md").read_text()
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    assert main(["load-from-hub", "--algo", algo, "--env", ENV, "-f", str(tmp_path), "-orga", "me"]) == 0
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", str(tmp_path), "--no-render", "-n", "50"]) == 0


def hub_file(folder, filename):
    from requests.exceptions import HTTPError

    if not (folder / filename).exists():
        raise HTTPError(filename)
    return str(folder / filename)


def test_work_arounds_end_with_the_command():
    hub = vars(importlib.import_module("huggingface_sb3.push_to_hub"))
    names, call, path, arguments = set(hub), subprocess.call, os.environ["PATH"], list(sys.argv)
    for command in ("train", "enjoy", "record-training", "benchmark", "push-to-hub"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    assert (subprocess.call, os.environ["PATH"], sys.argv) == (call, path, arguments)
    assert set(hub) == names
    assert rl_zoo3.train.ExperimentManager is ZooExperimentManager
    assert all(rl_zoo3.ALGOS[name] is algorithm for name, algorithm in ALGORITHMS.items())


def test_commands_in_a_pipe_write_nothing_of_other_packages_to_the_standard_error(in_runs, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SDL_VIDEODRIVER")}
    arguments = ["record-video", "--algo", "mirl", "--env", ENV, "-f", "logs", "-n", "20", "-o", str(tmp_path)]
    # moviepy's bar, and SDL's complaint about a missing display
    command = [sys.executable, "-m", "sb3_mirl", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stderr == "" and list(tmp_path.glob("*.mp4"))


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs ale-py")
def test_the_emulator_writes_no_banner():
    code = "from sb3_mirl.zoo.workarounds import no_banner_of_the_emulator as quiet\nimport ale_py"
    code += "\nwith quiet():\n    ale_py.ALEInterface()\nimport sys; print('here', file=sys.stderr)\nale_py.ALEInterface()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("here") and "A.L.E" in result.stderr
