"""Every command of ``sb3-mirl``, for our algorithms and for the zoo's own, as far as the network call."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import optuna
import pytest
import rl_zoo3
import yaml
from rl_zoo3.exp_manager import ExperimentManager as ZooExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_mirl import MIRL
from sb3_mirl.bench.suites import MINATAR_IDS
from sb3_mirl.cli.main import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.cli.main import main as sb3_mirl
from sb3_mirl.envs.gridworld import GRID_WORLDS
from sb3_mirl.zoo.command import ALGORITHMS, COMMANDS, _for_playing, hyperparams_file, main, register
from sb3_mirl.zoo.hyperparams import check_hyperparameters, read_document, read_places

ENV = "CartPole-v1"
OURS = sorted(ALGORITHMS)


def train(*arguments, algo="mirl", env=ENV, steps=300):
    fast = ["--num-threads", "1", "--verbose", "0", "-params", "learning_starts:50", "train_freq:50", "gradient_steps:2"]
    command = ["train", "--algo", algo, "--env", env, "-n", str(steps), "-f", "logs", "--eval-freq", "150", "--seed", "1"]
    assert main([*command, *(fast if "-params" not in arguments else []), *arguments]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two trained agents of ours and of DQN, to be looked at but not changed."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Of mirl two, of which one is longer
        for algo, steps in (("mirl", 450), ("mirl", 300), ("sql", 300), ("sql_m", 300), ("dqn", 300)):
            train("--save-freq", "150", algo=algo, steps=steps)
    return folder


@pytest.fixture
def in_runs(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs


@pytest.mark.parametrize("env", ["MIRLCorridor-v0", "MIRLWideCorridor-v0", "MIRLSquare-v0"])
def test_grid_worlds_train(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(env=env, steps=200)
    (config,) = Path("logs").glob(f"mirl/{env}_1/{env}/config.yml")
    assert "policy" in config.read_text()


def test_register_twice_is_register_once():
    register()
    before = dict(rl_zoo3.ALGOS)
    register()
    assert dict(rl_zoo3.ALGOS) == before
    assert set(OURS) <= set(before) and {"dqn", "ppo", "qrdqn"} <= set(before)


def test_import_registers_nothing_but_the_grid_worlds():
    code = """
import gymnasium
before = set(gymnasium.registry)
import sb3_mirl
assert set(gymnasium.registry) - before == set(sb3_mirl.envs.gridworld.GRID_WORLDS)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_version_and_unknown_commands(capsys):
    assert sb3_mirl(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in (*COMMANDS, *OUR_COMMANDS))
    assert tuple(COMMANDS) == ZOO_COMMANDS
    assert sb3_mirl([]) == 2
    assert sb3_mirl(["--version"]) == 0 and f"rl-zoo3 {rl_zoo3.__version__}" in capsys.readouterr().out
    assert sb3_mirl(["fly"]) == 2
    assert "unknown command 'fly', choose one of train, enjoy" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sb3_mirl(["plot_train", "--help"])


def test_an_error_cannot_control_the_terminal(monkeypatch, capsys):
    def fail(*args):
        raise RuntimeError("an environment's \x1b]0;title\x07 text")

    monkeypatch.setattr("sb3_mirl.zoo.command._run", fail)
    assert sb3_mirl(["train"]) == 1
    printed = capsys.readouterr().err
    assert "RuntimeError: an environment's \\x1b]0;title\\x07 text\n" in printed and "\x1b" not in printed


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_mirl.zoo.command._run", stop)
    assert sb3_mirl(["train"]) == 130
    assert capsys.readouterr().err == "\nInterrupted\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    # The plots name their parsers themselves
    name = "Gather results" if "plot" in command else f"sb3-mirl {command}"
    assert f"usage: {name}" in capsys.readouterr().out


def test_module_and_console_script_are_the_same():
    printed = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (
            [sys.executable, "-m", "sb3_mirl", "--version"],
            [str(Path(sys.executable).parent / "sb3-mirl"), "--version"],
        )
    ]
    assert printed[0] == printed[1]


@pytest.mark.parametrize("algo", [*OURS, "dqn"])
def test_train_leaves_a_run(algo, in_runs):
    run = in_runs / "logs" / algo / f"{ENV}_1"
    assert {f"{ENV}.zip", "best_model.zip", "evaluations.npz", "rl_model_150_steps.zip"} <= {
        file.name for file in run.iterdir()
    }
    assert rl_zoo3.ALGOS[algo].load(run / f"{ENV}.zip").num_timesteps >= 300


def test_train_takes_our_file_unless_another_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(algo="sql", steps=60)
    assert f"Loading hyperparameters from: {hyperparams_file('sql')}" in capsys.readouterr().out
    Path("mine.yml").write_text(f"{ENV}:\n  policy: MlpPolicy\n  n_timesteps: 100\n  buffer_size: 123\n")
    for flag in (["--conf-file", "mine.yml"], ["-conf", "mine.yml"], ["--conf-file=mine.yml"]):
        train(*flag, steps=60)
        assert "Loading hyperparameters from: mine.yml" in capsys.readouterr().out
    train(algo="dqn", steps=60)
    assert str(Path("rl_zoo3", "hyperparams", "dqn.yml")) in capsys.readouterr().out


def test_continue_training(in_runs):
    trained = in_runs / "logs" / "mirl" / f"{ENV}_1" / f"{ENV}.zip"
    train("-i", str(trained), "-f", "continued")
    before, after = MIRL.load(trained), MIRL.load(in_runs / "continued" / "mirl" / f"{ENV}_1" / f"{ENV}.zip")
    assert after._n_updates > before._n_updates and (after.prior != before.prior).any()


@pytest.mark.parametrize("algo", [*OURS, "dqn"])
@pytest.mark.parametrize("which", ["", "--load-best", "--load-checkpoint 150", "--load-last-checkpoint", "--stochastic"])
def test_enjoy(algo, which, in_runs, capsys):
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", "logs", "--no-render", "-n", "600", *which.split()]) == 0
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.parametrize("algo", OURS)
def test_playing_allocates_no_replay(algo, in_runs):
    file = in_runs / "logs" / algo / f"{ENV}_1" / f"{ENV}.zip"
    player = _for_playing(ALGORITHMS[algo])
    assert player.__name__ == ALGORITHMS[algo].__name__
    model = player.load(file)
    assert type(model) is ALGORITHMS[algo] and model.replay_buffer.buffer_size == 1
    assert ALGORITHMS[algo].load(file).replay_buffer.buffer_size > 1


def test_a_big_atari_agent_plays_in_two_gib(tmp_path, monkeypatch):
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


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_record_video(algo, in_runs, tmp_path):
    command = ["record-video", "--algo", algo, "--env", ENV, "-f", "logs", "-n", "20", "-o", str(tmp_path)]
    assert main(command) == 0
    (video,) = tmp_path.glob("*.mp4")
    assert video.name.startswith(f"final-model-{algo}") and video.stat().st_size > 1000


@pytest.mark.parametrize("algo", ["sql_m", "dqn"])
def test_record_training(algo, in_runs, tmp_path):
    command = ["record-training", "--algo", algo, "--env", ENV, "-f", "logs", "-n", "10", "-o", str(tmp_path)]
    assert main(command) == 0
    assert (tmp_path / "training.mp4").stat().st_size > 1000
    assert len(list(tmp_path.glob("*.mp4"))) >= 4  # all together, and: final, best, checkpoints


def test_plots_of_single_runs_and_of_different_lengths(in_runs, tmp_path, monkeypatch, capsys):
    table = str(tmp_path / "plots")
    assert main(["all-plots", "-a", "mirl", "sql", "dqn", "-e", ENV, "-f", "logs", "-o", table, "--no-display"]) == 0
    monkeypatch.chdir(tmp_path)
    for algorithms in ([], ["--keep-keys", "SQL-logs"]):
        assert main(["plot-from-file", "-i", f"{table}.pkl", *algorithms, "-o", "figure", "--format", "png"]) == 0
    assert {path.name for path in tmp_path.glob("*")} >= {"figure", "plot-from-file-sensitivity-plot.png"}
    printed = capsys.readouterr().out
    assert printed.count("No display: wrote the figure to plot-from-file-results-cartpole-v1.png\n") == 2
    assert "Skipping" not in printed


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_plots_of_nothing_say_so(in_runs, tmp_path, monkeypatch, capsys):
    logs = str(in_runs / "logs")
    monkeypatch.chdir(tmp_path)
    assert main(["all-plots", "-a", "ppo", "-e", ENV, "-f", logs, "-o", "none", "--no-display"]) == 0
    assert main(["plot-from-file", "-i", "none.pkl"]) == 2
    assert "none.pkl holds no evaluations: all-plots needs runs with two evaluations" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_plots_without_a_display_are_files(in_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = "plot-train-training-episodic-reward.png"
    for window, note in (("2", ""), ("1000", ", but found nothing to draw (--help)")):
        assert main(["plot-train", "-a", "mirl", "-e", ENV, "-f", str(in_runs / "logs"), "-w", window]) == 0
        assert capsys.readouterr().out == f"No display: wrote the figure to {file}{note}\n"
        assert Path(file).stat().st_size > 1000


def test_benchmark(in_runs, capsys):
    assert (
        main(["benchmark", "--log-dir", "logs", "--benchmark-dir", "bench", "--no-hub", "-n", "300", "--num-threads", "1"])
        == 0
    )
    text = Path("bench/benchmark.md").read_text()
    assert all(f"|{algo}" in text.replace(" ", "") for algo in [*OURS, "dqn"])


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_hub_up_to_the_network(algo, in_runs, tmp_path, monkeypatch):
    """The hub is replaced at its outermost calls; everything on this side of them is real, there and back."""
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
    assert main(["load-from-hub", "--algo", algo, "--env", ENV, "-f", str(tmp_path), "-orga", "me"]) == 0
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", str(tmp_path), "--no-render", "-n", "50"]) == 0


def hub_file(folder, filename):
    from requests.exceptions import HTTPError

    if not (folder / filename).exists():
        raise HTTPError(filename)
    return str(folder / filename)


@pytest.mark.parametrize("algo", ["mirl", "sql"])
def test_optimize_then_train_the_best_trial(algo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study_arguments = ["--storage", "sqlite:///study.db", "--study-name", "test"]
    train("-optimize", "--n-trials", "2", "--n-evaluations", "1", "--sampler", "random", "--pruner", "none", *study_arguments,
          "-params", "learning_starts:50", algo=algo)  # fmt: skip
    study = optuna.load_study(study_name="test", storage="sqlite:///study.db")
    names = set(study.best_trial.params)
    assert {"beta_schedule", "beta_scale", "beta_init", "beta_lr", "beta_max", "loss", "learning_rate"} <= names and (
        "prior_lr" in names
    ) == (algo != "sql")
    # The search leaves no run that `enjoy` would take for the latest
    assert not list(Path("logs", algo).glob(f"{ENV}_*"))
    for trial in study.trials:
        train(*study_arguments, "--trial-id", str(trial.number), algo=algo, steps=100)
        config = yaml.load(
            Path(f"logs/{algo}/{ENV}_{trial.number + 1}/{ENV}/config.yml").read_text(), Loader=yaml.UnsafeLoader
        )
        assert dict(config)["beta_init"] == trial.params["beta_init"]
    assert main(["enjoy", "--algo", algo, "--env", ENV, "-f", "logs", "--no-render", "-n", "50"]) == 0
    capsys.readouterr()
    for arguments, message in (
        ([*study_arguments, "--trial-id", "2"], "--trial-id must be a trial of study 'test', from 0 to 1, got 2"),
        ([*study_arguments, "--trial-id", "-1"], "--trial-id must be a trial of study 'test', from 0 to 1, got -1"),
        ([*study_arguments[:3], "no", "--trial-id", "0"], "--study-name must be a study in sqlite:///study.db, got 'no'"),
        (["--trial-id", "1"], "--trial-id needs --storage and --study-name, to say of which study it is"),
    ):
        assert main(["train", "--algo", algo, "--env", ENV, "-n", "50", *arguments]) == 2
        assert capsys.readouterr().err == f"sb3-mirl train: {message}\n"


@pytest.mark.parametrize("algo", OURS)
def test_sampled_hyperparameters_build_a_model_and_convert_back(algo):
    register()
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    sampled = HYPERPARAMS_SAMPLER[algo](trial, 0, 1, {"using_her_replay_buffer": False})
    model = ALGORITHMS[algo]("MlpPolicy", ENV, **sampled)
    assert model.beta_lr == trial.params["beta_lr"] and model.loss == trial.params["loss"]
    assert HYPERPARAMS_CONVERTER[algo](trial.params).keys() == sampled.keys()


def test_a_diverging_trial_is_pruned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(self, *args, **kwargs):
        raise ValueError("The mse loss was nan")

    monkeypatch.setattr(MIRL, "train", fail)
    with pytest.raises(ValueError, match="No trials are completed"):
        train("-optimize", "--n-trials", "1", "--n-evaluations", "1", "--no-optim-plots")


# ---- the shipped configurations -----------------------------------------------------------------------------------


def configurations():
    for algo in OURS:
        for name in yaml.safe_load(hyperparams_file(algo).read_text()):
            yield algo, name


def different_configurations():
    """All but those which are the same as another of the same algorithm, such as those of MinAtar's games."""
    different = {}
    for algo, name in configurations():
        different.setdefault((algo, str(yaml.safe_load(hyperparams_file(algo).read_text())[name])), (algo, name))
    return list(different.values())


@pytest.mark.parametrize("algo, name", different_configurations())
def test_every_shipped_configuration_trains(algo, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"default": "CliffWalking-v1", "atari": "BreakoutNoFrameskip-v4"}.get(name, name)
    steps = 320 if name not in ("atari", *MINATAR_IDS) else 80
    train("--eval-freq", "-1", "-params", "buffer_size:2000", "learning_starts:50", env=env, steps=steps)


@pytest.mark.parametrize("arguments", [["--env=MinAtar/Freeway-v1"], ["--env", "MinAtar/Freeway-v1"]])
def test_minatar_needs_no_gym_packages(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "sb3_mirl.envs.minatar", raising=False)
    for name in [name for name in gym.registry if name.startswith("MinAtar/")]:
        monkeypatch.delitem(gym.registry, name)
    assert main(["train", "--algo", "mirl", *arguments, "-conf", "missing.yml"]) == 2
    assert set(MINATAR_IDS) <= set(gym.registry)


@pytest.mark.parametrize(
    "env, remedy",
    [
        ("MinAtar/Breakout-v2", "did you mean MinAtar/Breakout-v"),
        ("CartPole-v7", "did you mean CartPole-v"),
        ("zzz", "--gym-packages names modules that register environments"),
    ],
)
def test_an_environment_that_is_not_there(env, remedy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--algo", "mirl", "--env", env]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"sb3-mirl train: --env must be registered with Gymnasium, got {env!r}: {remedy}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("algo", OURS)
def test_shipped_files_name_the_same_environments(algo):
    names = list(yaml.safe_load(hyperparams_file(algo).read_text()))
    classic = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"]
    assert names == ["default", "atari", *classic, *GRID_WORLDS, *MINATAR_IDS]


@pytest.mark.parametrize("algo, name", list(configurations()))
def test_every_shipped_configuration_passes_the_check(algo, name):
    file = str(hyperparams_file(algo))
    places, section = read_places(file, read_document(file), name, False)
    hyperparams = yaml.safe_load(Path(file).read_text())[name]
    assert places.keys() == hyperparams.keys()
    register()
    check_hyperparameters(ALGORITHMS[algo], name, hyperparams, places, section)


# ---- files of hyper-parameters with mistakes ------------------------------------------------------------------------

GOOD = """\
default:
  n_timesteps: !!float 1e3
  policy: MlpPolicy
"""


def bomb(what):
    """Ten of ten of ten and so on, of which only the lines are small."""
    levels = (f"a{k}: &a{k} {what.format(', '.join([f'*a{k - 1}'] * 10))}\n" for k in range(1, 9))
    return f"{GOOD}a0: &a0 {{tau: 1}}\n{''.join(levels)}"


@pytest.fixture
def errors(tmp_path, monkeypatch, capsys):
    """What ``train`` prints of a file with a mistake."""
    monkeypatch.chdir(tmp_path)

    def run(text, *arguments, env=ENV):
        if text is not None:
            Path("my.yml").write_text(text)
        try:
            status = main(["train", "--algo", "mirl", "--env", env, "-f", "logs", "-conf", "my.yml", "-n", "20", *arguments])
        except SystemExit as stop:
            status = stop.code
        assert status == 2 and not Path("logs").exists()
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "line, message",
    [
        ("beta_lr: fast", "beta_lr must be 'auto' or a number in [0, 1], got 'fast'"),
        (
            "beta_lr: 1e-3",
            "beta_lr must be 'auto' or a number in [0, 1], got '1e-3' (YAML reads 1e-3 as text: write !!float 1e-3)",
        ),
        ("learning_rate: 1e-3", "learning_rate must be a number or lin_ and a number (lin_1e-3), got '1e-3' (YAML reads"),
        ("learning_rate: cos_1e-3", "learning_rate must be a number or lin_ and a number (lin_1e-3), got 'cos_1e-3'"),
        (
            "learning_rate: lin_-1.0",
            "learning_rate must be a finite number >= 0 or a function of the remaining progress",
        ),
        ("batch_sise: 32", "batch_sise is not a hyper-parameter: did you mean batch_size?"),
        ("n_env: 2", "n_env is not a hyper-parameter: did you mean n_envs?"),
        ("xyz: 2", "xyz is not a hyper-parameter: choose one of batch_size, beta_init"),
        ("_init_setup_model: false", "_init_setup_model is not a hyper-parameter"),
        ("seed: 3", "seed is not for this file: it is --seed on the command line"),
        ("batch_size: 2.5", "batch_size must be an integer >= 1, got 2.5"),
        ("train_freq: [4, steps]", "train_freq must be an integer >= 1 or a tuple"),
        ("gamma: null", "gamma must be a number in [0, 1], got None"),
        ("loss: l1", "loss must be one of ('mse', 'huber'), got 'l1'"),
        ("compile_update: 1", "compile_update must be True or False, got 1"),
        ("policy_kwargs: dict(net_arch=[64]", "policy_kwargs must be a Python expression"),
        ("policy_kwargs: '[64]'", "policy_kwargs must be None or a dict of keyword arguments, got [64]"),
        ("replay_buffer_class: FrameBuffer", "replay_buffer_class must be a Python expression, got 'FrameBuffer' (NameError"),
        ("n_envs: 2.0", "n_envs must be an integer >= 1 written without a point, got 2.0"),
        ("frame_stack: 0", "frame_stack must be an integer >= 1, got 0"),
        ("normalize: 'dict(norm_obs=False'", "normalize must be a Python expression"),
        ("normalize: 3", "normalize must be true, false or a dict, got 3"),
        ("env_kwargs: 3", "env_kwargs must be a dict, got 3"),
        ("env_wrapper: no.Such", "env_wrapper must be the dotted name of a class, got 'no.Such' (No module named 'no')"),
        ("env_wrapper: [gymnasium.wrappers.Nothing]", "env_wrapper must be the dotted name of a class"),
        ("env_wrapper: [{gymnasium.wrappers.TimeLimit: {}, a.B: {}}]", "env_wrapper must be names of classes"),
        ("callback: 7", "callback must be names of classes, got 7"),
        ("noise_type: null", "noise_type must be left out, since actions are discrete, got None"),
        ("policy: MlpPolicy", "policy is given a second time, after line 3"),
    ],
)
def test_a_mistake_is_reported_with_its_line(line, message, errors):
    printed = errors(f"{GOOD}  gamma: 0.9\n  {line}\n" if "gamma" not in line else f"{GOOD}\n  {line}\n")
    assert f"my.yml:5: {message}" in printed and "Traceback" not in printed


@pytest.mark.parametrize("line", ["n_timesteps: 1e3", "n_timesteps: -1", "policy: Mlp", "policy: 5", "policy: no.Such"])
def test_a_wrong_required_value(line, errors):
    key, value = line.split(": ")
    other = "policy: MlpPolicy" if key == "n_timesteps" else "n_timesteps: 100"
    printed = errors(f"default:\n  {other}\n  {line}\n")
    assert f"my.yml:3: {key} must be " in printed and f"got {yaml.safe_load(value)!r}" in printed


@pytest.mark.parametrize(
    "text, message",
    [
        ("default:\n  gamma: 0.9\n", "my.yml:1: n_timesteps is missing (CartPole-v1)\nmy.yml:1: policy is missing"),
        ("default:\n  gamma: [1\n  tau: 1\n", "my.yml:3: not YAML: expected"),
        ("default: 3\n", "my.yml:1: default must map names of hyper-parameters to values"),
        ("default:\n", "my.yml:1: default must map"),
        ("", "my.yml: must map names of environments"),
        ("- 1\n", "my.yml: must map names of environments"),
        (
            "Acrobot-v1:\n  gamma: 1\n",
            "my.yml: has no hyper-parameters for CartPole-v1, and no section 'default'",
        ),
        ("a:\n  gamma: 1\na:\n  gamma: 1\n", "my.yml:3: a is given a second time, after line 1"),
        (f"{GOOD}  beta_max: 0.001\n", "my.yml:1: beta_init must be at most beta_max, got 0.01 and beta_max=0.001"),
        (
            f"{GOOD}  n_envs: 2\n  train_freq: [1, episode]\n",
            "my.yml:5: train_freq must count steps with several",
        ),
        (None, "my.yml: cannot be read"),
        (f"{GOOD}  1: 2\n", "my.yml:4: names of hyper-parameters must be text, got 1"),
        (f"{GOOD}  tau: !!float fast\n", "my.yml:4: not YAML: ValueError: could not convert string to float: 'fast'"),
        (f"{GOOD}  ? [1]\n  : 2\n", "my.yml:4: "),
        (f"{GOOD}  tau: *no\n", "my.yml:4: not YAML: found undefined alias"),
        (
            f"{GOOD}  tau: !!python/object/apply:os.mkdir [logs]\n",
            "my.yml:4: the tag tag:yaml.org,2002:python/object/apply",
        ),
        (f"{GOOD}other: !!python/name:os.mkdir\n", "my.yml:4: the tag tag:yaml.org,2002:python/name:os.mkdir is refused"),
        (f"{GOOD}  tau: !mine 3\n", "my.yml:4: the tag !mine is refused: values have none, or one such as !!float"),
        (f"{GOOD}  tau: {'[' * 20_000}{']' * 20_000}\n", "my.yml:4: must not be nested deeper than 50 levels"),
        (f"{GOOD}  tau:\n" + "".join(f"{' ' * depth}- \n" for depth in range(3, 900)), "my.yml:53: must not be nested deeper"),
        (f"{GOOD}  tau: &a [*a]\n", "my.yml:4: *a must not stand inside of what it names"),
        (f"{GOOD}  <<: &a {{<<: *a}}\n", "my.yml:4: *a must not stand inside of what it names"),
        (bomb("[{}]"), "my.yml:8: must not have more than 20000 values, aliases written out"),
        (bomb("{{<<: [{}]}}"), "my.yml:8: must not have more than 20000 values, aliases written out"),
        (f'{GOOD}  "\\e[2J": 1\n', "my.yml:4: \\x1b[2J is not a hyper-parameter"),
        ('"\\e[2J":\n  tau: 1\n', "and no section 'default'. It has: \\x1b[2J\n"),
        (f'{GOOD}  tau: "\\e[2J"\n', "my.yml:4: tau must be a number in [0, 1], got '\\x1b[2J'"),
        (f'{GOOD}  policy_kwargs: "1 / len(chr(27)[2:])"\n', "my.yml:4: policy_kwargs must be a Python expression"),
        (f'{GOOD}  policy_kwargs: "open(chr(27))"\n', "(FileNotFoundError: [Errno 2] No such file or directory: '\\x1b')"),
        (f'{GOOD}  "a\\nb": 1\n', "my.yml:4: a\\nb is not a hyper-parameter"),
    ],
)
def test_a_file_with_a_mistake(text, message, errors):
    begin = time.process_time()
    printed = errors(text)
    assert message in printed and "\x1b" not in printed
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("text", [f"{GOOD}other: {'[' * 20_000}\n", f"{GOOD}other: !!python/name:os.mkdir\n"])
def test_the_files_of_other_algorithms_are_read_within_limits_too(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my.yml").write_text(text)
    assert main(["train", "--algo", "dqn", "--env", ENV, "-conf", "my.yml", "-n", "20"]) == 2
    assert capsys.readouterr().err.startswith("sb3-mirl train: error in the hyper-parameters:\nmy.yml:4: ")


def test_the_files_of_rl_zoo3_are_accepted():
    files = list(Path(rl_zoo3.__file__).parent.glob("hyperparams/*.yml"))
    assert len(files) > 10
    for file in files:
        assert read_document(str(file)).value


def test_code_in_settings_runs_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = "[open('{}', 'a').write('x'), {}][1]"
    settings = {"policy_kwargs": "dict(net_arch=[16])", "normalize": "dict(norm_reward=False)"}
    settings |= {"replay_buffer_class": "None", "replay_buffer_kwargs": "dict()", "monitor_kwargs": "dict()"}
    lines = [f'  {key}: "{count.format(key, value)}"\n' for key, value in settings.items()]
    Path("my.yml").write_text(GOOD + "".join(lines))
    given = [f"tau:{count.format('tau', 0.5)}", f"gamma:{count.format('gamma', 0.9)}"]
    train("-conf", "my.yml", "--eval-freq", "-1", "-params", *given, steps=60)
    names = (*settings, "tau", "gamma")
    assert {name: Path(name).read_text() for name in names} == dict.fromkeys(names, "x")


def test_the_section_of_the_environment_is_checked_and_no_other(errors):
    text = f"{GOOD}  tau: 7\natari:\n  tau: 8\n{ENV}:\n  <<: {{n_timesteps: 100, policy: MlpPolicy}}\n  tau: 9\n"
    assert "my.yml:9: tau must be a number in [0, 1], got 9 (CartPole-v1)" in errors(text)
    assert "my.yml:6: tau must be a number in [0, 1], got 8" in errors(text, env="PongNoFrameskip-v4")
    assert "my.yml:4: tau must be a number in [0, 1], got 7" in errors(text, env="Acrobot-v1")


def test_mistakes_on_the_command_line(errors):
    assert "\n-params: tau must be a number in [0, 1], got 7 (CartPole-v1)\n" in errors(GOOD, "-params", "tau:7")
    assert "-params: taus is not a hyper-parameter: did you mean tau?" in errors(GOOD, "-params", "taus:0.5")
    assert "-params takes key:value with a value in Python, got 'beta_lr:fast' (name 'fast'" in errors(
        GOOD, "-params", "tau:1", "beta_lr:fast"
    )


def test_what_a_file_may_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yml").write_text(
        f"{GOOD}  buffer_size: !!float 1e2\n  n_envs: 2\n  train_freq: [2, step]\n  normalize: 'dict(norm_obs=True)'\n"
        "  env_wrapper: [{gymnasium.wrappers.TimeLimit: {max_episode_steps: 9}}]\n  callback: null\n"
        "  replay_buffer_kwargs: 'dict(handle_timeout_termination=True)'\n  prior_init: [0.25, 0.75]\n  learning_rate: 0.001\n"
    )
    train("--conf-file", "my.yml", "--eval-freq", "-1", steps=100)


def test_the_zoo_is_left_as_it_was():
    """The work-arounds last as long as one command."""
    hub = vars(importlib.import_module("huggingface_sb3.push_to_hub"))
    names, call, path, arguments = set(hub), subprocess.call, os.environ["PATH"], list(sys.argv)
    for command in ("train", "enjoy", "record-training", "benchmark", "push-to-hub"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    assert (subprocess.call, os.environ["PATH"], sys.argv) == (call, path, arguments)
    assert set(hub) == names
    assert rl_zoo3.train.ExperimentManager is ZooExperimentManager
    assert all(rl_zoo3.ALGOS[name] is algorithm for name, algorithm in ALGORITHMS.items())
