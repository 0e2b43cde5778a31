"""Files of hyper-parameters: those of this package are accepted, and mistakes are reported with their lines."""

import time
from pathlib import Path

import pytest
import rl_zoo3
import yaml
from zoo_train import ENV, shipped_configurations, train

from sb3_mirl import load_prior
from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.hyperparams import check_hyperparameters, read_document, read_places
from sb3_mirl.zoo.register import ALGORITHMS, hyperparams_file, register

GOOD = """\
default:
  n_timesteps: !!float 1e3
  policy: MlpPolicy
"""


@pytest.mark.parametrize("algo, name", [(algo, name) for algo, name, _ in shipped_configurations()])
def test_every_shipped_configuration_passes_the_check(algo, name):
    file = str(hyperparams_file(algo))
    places, section = read_places(file, read_document(file), name, False)
    hyperparams = yaml.safe_load(Path(file).read_text())[name]
    assert places.keys() == hyperparams.keys()
    register()
    check_hyperparameters(ALGORITHMS[algo], name, hyperparams, places, section)


def bomb(what):
    """A short file whose aliases expand to ten to the eighth values."""
    levels = (f"a{k}: &a{k} {what.format(', '.join([f'*a{k - 1}'] * 10))}\n" for k in range(1, 9))
    return f"{GOOD}a0: &a0 {{tau: 1}}\n{''.join(levels)}"


@pytest.fixture
def errors(tmp_path, monkeypatch, capsys):
    """A function that returns the error of ``train`` for a file with a mistake."""
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
        ("batch_sise: 32", "batch_sise is not a hyper-parameter, did you mean 'batch_size'?"),
        ("n_env: 2", "n_env is not a hyper-parameter, did you mean 'n_envs'?"),
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
def test_invalid_required_values_are_reported(line, errors):
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
        (f"{GOOD}  tau: &a [*a]\n", "my.yml:4: *a must not stand inside the value that it names"),
        (f"{GOOD}  <<: &a {{<<: *a}}\n", "my.yml:4: *a must not stand inside the value that it names"),
        (bomb("[{}]"), "my.yml:8: must not have more than 20000 values, with aliases expanded"),
        (bomb("{{<<: [{}]}}"), "my.yml:8: must not have more than 20000 values, with aliases expanded"),
        (f'{GOOD}  "\\e[2J": 1\n', "my.yml:4: \\x1b[2J is not a hyper-parameter"),
        ('"\\e[2J":\n  tau: 1\n', "and no section 'default'. It has: \\x1b[2J\n"),
        (f'{GOOD}  tau: "\\e[2J"\n', "my.yml:4: tau must be a number in [0, 1], got '\\x1b[2J'"),
        (f'{GOOD}  policy_kwargs: "1 / len(chr(27)[2:])"\n', "my.yml:4: policy_kwargs must be a Python expression"),
        (f'{GOOD}  policy_kwargs: "open(chr(27))"\n', "(FileNotFoundError: [Errno 2] No such file or directory: '\\x1b')"),
        (f'{GOOD}  "a\\nb": 1\n', "my.yml:4: a\\nb is not a hyper-parameter"),
    ],
)
def test_invalid_files_are_reported(text, message, errors):
    begin = time.process_time()
    printed = errors(text)
    assert message in printed and "\x1b" not in printed
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("text", [f"{GOOD}other: {'[' * 20_000}\n", f"{GOOD}other: !!python/name:os.mkdir\n"])
def test_files_of_other_algorithms_have_the_same_limits(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my.yml").write_text(text)
    assert main(["train", "--algo", "dqn", "--env", ENV, "-conf", "my.yml", "-n", "20"]) == 2
    assert capsys.readouterr().err.startswith("sb3-mirl train: error in the hyper-parameters:\nmy.yml:4: ")


def test_the_files_of_rl_zoo3_are_accepted():
    files = list(Path(rl_zoo3.__file__).parent.glob("hyperparams/*.yml"))
    assert len(files) > 10
    for file in files:
        assert read_document(str(file)).value


def test_code_in_settings_is_evaluated_once(tmp_path, monkeypatch):
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


def test_only_the_section_of_the_environment_is_checked(errors):
    text = f"{GOOD}  tau: 7\natari:\n  tau: 8\n{ENV}:\n  <<: {{n_timesteps: 100, policy: MlpPolicy}}\n  tau: 9\n"
    assert "my.yml:9: tau must be a number in [0, 1], got 9 (CartPole-v1)" in errors(text)
    assert "my.yml:6: tau must be a number in [0, 1], got 8" in errors(text, env="PongNoFrameskip-v4")
    assert "my.yml:4: tau must be a number in [0, 1], got 7" in errors(text, env="Acrobot-v1")


def test_mistakes_in_params_are_reported(errors):
    assert "\n-params: tau must be a number in [0, 1], got 7 (CartPole-v1)\n" in errors(GOOD, "-params", "tau:7")
    assert "-params: taus is not a hyper-parameter, did you mean 'tau'?" in errors(GOOD, "-params", "taus:0.5")
    printed = errors(GOOD, "-params", "tau:1", "beta_schedule:linear")
    assert "-params takes key:value with a value in Python, got 'beta_schedule:linear' (name 'linear'" in printed
    assert "a text needs both quotes: beta_schedule:\"'linear'\")" in printed


def test_priors_that_see_something_are_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = "  prior_type: conditional\n  prior_observation: [0, 1]\n  prior_kwargs: {net_arch: [8]}\n"
    Path("my.yml").write_text(GOOD + kind)
    train("-conf", "my.yml", "--eval-freq", "-1", steps=100)
    (trained,) = Path("logs").glob(f"mirl/{ENV}_1/{ENV}.zip")
    assert load_prior(trained)["prior_observation"] == [0, 1]


def test_valid_keys_of_a_file_are_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yml").write_text(
        f"{GOOD}  buffer_size: !!float 1e2\n  n_envs: 2\n  train_freq: [2, step]\n  normalize: 'dict(norm_obs=True)'\n"
        "  env_wrapper: [{gymnasium.wrappers.TimeLimit: {max_episode_steps: 9}}]\n  callback: null\n"
        "  replay_buffer_kwargs: 'dict(handle_timeout_termination=True)'\n  prior_init: [0.25, 0.75]\n  learning_rate: 0.001\n"
    )
    train("--conf-file", "my.yml", "--eval-freq", "-1", steps=100)
