"""Options that are refused in one line, with an exit status of 2, before anything is created."""

import socket
import sys
import zipfile
from pathlib import Path

import gymnasium as gym
import pytest
from zoo_train import ENV

from sb3_mirl.zoo.checks import check_plotted_runs, parse_steps
from sb3_mirl.zoo.command import main


@pytest.fixture
def refused(capsys):
    """A function that runs a command, which must be refused with one line, and returns that line."""

    def run(*arguments):
        before = set(Path().rglob("*"))
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr().err
        assert status == 2 and printed.count("\n") == 1
        assert set(Path().rglob("*")) == before
        return printed.removesuffix("\n")

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = ("train", "--algo", "mirl", "--env", ENV)


@pytest.mark.parametrize("command", ["train", "enjoy", "push-to-hub"])
def test_devices_that_torch_does_not_know(command, refused):
    message = "error: argument --device: must be auto or a device of torch such as cpu or cuda, got 'gpu'"
    assert refused(command, "--device", "gpu") == f"sb3-mirl {command}: {message}"


@pytest.mark.parametrize("option, names", [("-n", "-n/--n-timesteps"), ("--save-freq", "--save-freq")])
@pytest.mark.parametrize("value", ["-5", "0", "many"])
def test_numbers_of_steps_below_one(option, names, value, refused):
    message = f"error: argument {names}: must be a positive integer, or -1 for the default, got {value!r}"
    assert refused(*TRAIN, option, value) == f"sb3-mirl train: {message}"


@pytest.mark.parametrize("text, steps", [("-1", -1), ("1", 1), ("50_000", 50_000)])
def test_numbers_of_steps_that_are_accepted(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("command", ["train", "enjoy"])
@pytest.mark.parametrize("module", ["nopackage", "nopackage.envs", "./envs.py", "sb3_mirl.nomodule"])
def test_packages_that_do_not_exist(command, module, refused):
    printed = refused(command, "--algo", "mirl", "--env", ENV, "--gym-packages", module)
    must = "--gym-packages must name modules that are installed or in PYTHONPATH"
    assert printed.startswith(f"sb3-mirl {command}: {must}, got {module!r} (")


def test_an_import_that_fails_inside_a_package_is_its_own_error(here, monkeypatch):
    Path("package_with_a_fault.py").write_text("import nopackage\n")
    monkeypatch.syspath_prepend(here)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nopackage'"):
        main([*TRAIN, "--gym-packages", "package_with_a_fault"])
    assert "package_with_a_fault" not in sys.modules


@pytest.mark.parametrize("command", ["train", "enjoy", "record-video", "push-to-hub"])
def test_keywords_that_the_environment_does_not_take(command, refused):
    organization = ["-orga", "me", "-f", "logs"] if command == "push-to-hub" else []
    printed = refused(command, "--algo", "mirl", "--env", ENV, *organization, "--env-kwargs", "foo:1")
    choice = "(choose from render_mode, sutton_barto_reward)"
    assert printed == f"sb3-mirl {command}: --env-kwargs must be keyword arguments of {ENV}, got 'foo' {choice}"


def test_misspelt_keywords_get_the_nearest_name(refused):
    printed = refused(*TRAIN, "--env-kwargs", "sutton_barto_reward:True", "--eval-env-kwargs", "suton_barto_reward:True")
    hint = ", did you mean 'sutton_barto_reward'?"
    assert printed == f"sb3-mirl train: --eval-env-kwargs must be keyword arguments of {ENV}, got 'suton_barto_reward'{hint}"


@pytest.mark.parametrize("error", ["unsupported operand", "f got an unexpected keyword argument 'other'"])
def test_errors_of_an_environment_are_not_taken_for_those_of_its_keywords(error, here):
    def make(size=1):
        raise TypeError(error)

    gym.register("Faulty-v0", entry_point=make)
    try:
        with pytest.raises(TypeError, match=error):
            main(["train", "--algo", "mirl", "--env", "Faulty-v0", "--env-kwargs", "size:2"])
    finally:
        del gym.registry["Faulty-v0"]


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_files_that_are_no_saved_models(algo, here, refused):
    train, must = ("train", "--algo", algo, "--env", ENV), "sb3-mirl train: -i must be the .zip of a saved model, got"
    assert refused(*train, "-i", "nope.zip") == "sb3-mirl train: -i must be an existing file, got 'nope.zip'"
    assert refused(*train, "-i", "model") == f"{must} 'model'"
    Path("junk.zip").write_bytes(b"junk")
    assert refused(*train, "-i", "junk.zip") == f"{must} 'junk.zip', which is not a zip file"
    with zipfile.ZipFile("other.zip", "w") as file:
        file.writestr("data", "{}")
    problem = "is a zip file but no model of SB3's: it lacks data or policy.pth"
    assert refused(*train, "-i", "other.zip") == f"{must} 'other.zip': 'other.zip' {problem}"


@pytest.mark.parametrize(
    "trained, saved_by", [("mirl", "MIRL"), ("dqn_mse", "DQNMSE"), ("dqn", "an algorithm that is not one of sb3_mirl")]
)
def test_models_of_another_algorithm(trained, saved_by, in_runs, refused):
    file = f"logs/{trained}/{ENV}_1/{ENV}.zip"
    printed = refused("train", "--algo", "sql", "--env", ENV, "-i", file)
    assert printed == f"sb3-mirl train: -i must be a model of SQL with --algo sql, got {file!r}, saved by {saved_by}"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("plot-from-file", "-i", "nofile.pkl"), "-i must be an existing file, got 'nofile.pkl'"),
        (("plot-from-file", "-i", "nofile"), "-i must be an existing file, got 'nofile.pkl'"),
        (("plot-from-file",), "error: the following arguments are required: -i"),
        (("plot-train", "-a", "mirl", "-e", ENV, "-f", "nologs"), "-f must be an existing folder, got 'nologs'"),
        (("all-plots", "-a", "mirl", "-e", ENV, "-f", "nologs"), "-f must be an existing folder, got 'nologs'"),
        (("all-plots", "-a", "mirl"), "error: the following arguments are required: -e, -f"),
        (("benchmark", "--log-dir", "nologs", "--no-hub"), "--log-dir must be an existing folder, got 'nologs'"),
    ],
)
def test_missing_files_and_folders(arguments, message, here, refused):
    assert refused(*arguments) == f"sb3-mirl {arguments[0]}: {message}"


@pytest.mark.parametrize("content", [b"", b"junk", b"cos\nno_such_function\n."])
def test_a_file_of_plots_that_is_damaged(content, here, refused):
    Path("bad.pkl").write_bytes(content)
    assert refused("plot-from-file", "-i", "bad.pkl").startswith(
        "sb3-mirl plot-from-file: -i and --merge must be files of all-plots -o, got 'bad.pkl' ("
    )


def test_benchmark_of_a_folder_without_runs(here, refused):
    Path("logs").mkdir()
    message = "--log-dir must have runs in it (ALGO/ENV_N) with --no-hub, got 'logs'"
    assert refused("benchmark", "--log-dir", "logs", "--no-hub") == f"sb3-mirl benchmark: {message}"


def test_no_run_folder_is_left_by_what_cannot_be_trained(in_runs, tmp_path, refused):
    model = f"logs/mirl/{ENV}_1/{ENV}.zip"
    printed = refused("train", "--algo", "mirl", "--env", "Acrobot-v1", "-i", model, "-f", str(tmp_path))
    assert (
        f"-i must be a model with the spaces of Acrobot-v1 and its wrappers, got {model!r}: Observation spaces do" in printed
    )
    assert "action_space must be Discrete" in refused("train", "--algo", "mirl", "--env", "Pendulum-v1", "-f", str(tmp_path))
    taxi = ("--env", "Taxi-v4", "-f", str(tmp_path), "-params")
    printed = refused("train", "--algo", "mirl", *taxi, "env_wrapper:'sb3_mirl.ActionMaskInfo'")
    assert "in the zoo env_wrapper: [{sb3_mirl.ActionMaskInfo: {info_key: ...}}]" in printed
    printed = refused("train", "--algo", "mdqn", *taxi, "env_wrapper:[{'sb3_mirl.ActionMaskInfo':{'info_key':'action_mask'}}]")
    assert "env must be without action masks for MDQN" in printed
    assert {path.name for path in tmp_path.rglob("*")} == {"mirl", "mdqn"}


def test_a_folder_of_another_run_stays(here, monkeypatch):
    """Two commands that begin at the same moment may take the same number."""
    monkeypatch.setattr("rl_zoo3.exp_manager.get_latest_run_id", lambda *_: 0)
    run = Path("logs", "mirl", f"{ENV}_1")
    run.mkdir(parents=True)
    (run / f"{ENV}.zip").write_bytes(b"a model")
    monkeypatch.setattr(
        "sb3_mirl.zoo.manager.ExperimentManager.create_envs", lambda *_, **__: raise_caused(KeyError, OSError())
    )
    assert main([*TRAIN, "-f", "logs", "-params", "learnin_rate:1e-3"]) == 2
    assert (run / f"{ENV}.zip").read_bytes() == b"a model"
    with pytest.raises(KeyError):
        main([*TRAIN, "-f", "logs"])
    assert (run / f"{ENV}.zip").read_bytes() == b"a model"


class ConnectError(Exception):
    __module__ = "httpx"


def raise_caused(top, error):
    """As libraries for HTTP do: an error of their own, caused by another, caused by that of the system."""
    try:
        try:
            raise error
        except OSError as first:
            raise RuntimeError("connection") from first
    except RuntimeError as second:
        raise top("request") from second


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "Connection refused"), socket.gaierror(-2, "Name or service")])
def test_a_hub_that_cannot_be_reached(error, here, monkeypatch, capsys):
    Path("logs").mkdir()
    monkeypatch.setattr("rl_zoo3.utils.get_hf_trained_models", lambda: raise_caused(ConnectError, error))
    assert main(["benchmark", "--log-dir", "logs"]) == 1
    expected = f"sb3-mirl benchmark: no connection to the Hugging Face hub: {error} (--no-hub leaves it out)\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("top, error", [(ValueError, ConnectionResetError(104, "reset")), (ConnectError, OSError())])
def test_other_errors_are_not_taken_for_those_of_the_hub(top, error, here, monkeypatch):
    Path("logs").mkdir()
    monkeypatch.setattr("rl_zoo3.utils.get_hf_trained_models", lambda: raise_caused(top, error))
    with pytest.raises(top):
        main(["benchmark", "--log-dir", "logs"])


def test_connections_of_an_environment_are_its_own(here, monkeypatch):
    monkeypatch.setattr(
        "sb3_mirl.zoo.manager.ExperimentManager.create_envs",
        lambda *_, **__: raise_caused(ConnectError, ConnectionResetError(104, "of an environment")),
    )
    with pytest.raises(ConnectError):
        main([*TRAIN, "-f", "logs"])


@pytest.fixture
def two_runs(here):
    for run in (f"mirl/{ENV}_1", "dqn/MinAtar-Breakout-v1_2_6f1c-a0"):
        Path("logs", run).mkdir(parents=True)


@pytest.mark.parametrize("command", ["plot-train", "all-plots"])
@pytest.mark.parametrize(
    "algorithm, env, message",
    [
        ("mril", ENV, "-a must have runs in logs, got 'mril', did you mean 'mirl'?"),
        ("ppo", ENV, "-a must have runs in logs, got 'ppo' (choose from dqn, mirl)"),
        ("mirl", "CartPol-v1", f"-e must have runs in logs of mirl, got 'CartPol-v1', did you mean '{ENV}'?"),
        ("mirl", "Foo", f"-e must have runs in logs of mirl, got 'Foo' (choose from {ENV})"),
        (
            *("dqn", "MinAtar/Breakout-v1"),
            "-e must have runs in logs of dqn, got 'MinAtar/Breakout-v1', did you mean 'MinAtar-Breakout-v1'?",
        ),
    ],
)
def test_plots_of_runs_that_are_not_there(command, algorithm, env, message, two_runs, refused):
    assert refused(command, "-a", algorithm, "-e", env, "-f", "logs") == f"sb3-mirl {command}: {message}"


def test_plots_of_runs_that_are_in_one_of_several_folders(two_runs):
    Path("other/mirl/Acrobot-v1_1").mkdir(parents=True)
    check_plotted_runs(["logs", "other"], ["mirl", "dqn"], ["CartPole", "Acrobot-v1", "Breakout"])
    with pytest.raises(ValueError, match="-e must have runs in logs of mirl, dqn, got 'Acrobot-v1'"):
        check_plotted_runs(["logs"], ["mirl", "dqn"], ["CartPole", "Acrobot-v1"])
