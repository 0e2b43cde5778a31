"""The command sb3-mirl. Commands without extras: tests/test_without_extras.py."""

import platform
import subprocess
import sys
from importlib import metadata

import gymnasium
import numpy
import pytest
import stable_baselines3
import torch

import sb3_mirl
from sb3_mirl.cli import main as cli


def test_inspect_needs_no_rl_zoo3(exported):
    code = "import sys; sys.modules['rl_zoo3'] = None; from sb3_mirl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    assert subprocess.run([sys.executable, "-c", code, "inspect", str(exported)], capture_output=True).returncode == 0


def test_no_command_and_unknown_commands_have_exit_status_2(capsys):
    assert cli.main([]) == 2 and capsys.readouterr().out.startswith("usage: sb3-mirl")
    assert (
        cli.main(["inspekt"]) == 2
        and capsys.readouterr().err == "sb3-mirl: unknown command 'inspekt', did you mean 'inspect'?\n"
    )
    assert cli.main(["zzz"]) == 2 and "unknown command 'zzz', choose one of train, enjoy, " in capsys.readouterr().err
    assert cli.main(["--verson"]) == 2 and "unknown option '--verson', did you mean '--version'?" in capsys.readouterr().err


def test_version_names_what_the_package_runs_on(capsys):
    assert cli.main(["--version"]) == 0
    printed = dict(line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines())
    pytorch = printed["PyTorch"]
    assert torch.__version__.split("+")[0] == pytorch.split("+")[0]  # "+cu130" is not always in both
    assert printed == {
        "sb3-mirl": sb3_mirl.__version__,
        "Stable-Baselines3": stable_baselines3.__version__,
        "rl-zoo3": metadata.version("rl_zoo3"),
        "PyTorch": pytorch,
        "Gymnasium": gymnasium.__version__,
        "NumPy": numpy.__version__,
        "Python": platform.python_version(),
    }


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_no_torch(argument):
    code = "import sys; from sb3_mirl.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, argument], capture_output=True).returncode == 0


def raised_from(cause):
    def command(arguments):
        try:
            raise cause
        except ImportError as error:
            raise ImportError("this needs MinAtar: pip install 'sb3-mirl[minatar]'") from error

    return command


def raising(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (raising(ModuleNotFoundError("gone", name="ale_py.env")), 2, "ale_py is not installed: pip install 'sb3-mirl[atari]'"),
        (raised_from(ModuleNotFoundError("gone", name="minatar")), 2, "this needs MinAtar: pip install 'sb3-mirl[minatar]'"),
        (raising(ImportError("of another package", name="json")), 1, "Traceback"),
        (raising(RuntimeError("\x1b[2J")), 1, "RuntimeError: \\x1b[2J"),
        (raising(KeyboardInterrupt()), 130, "Interrupted"),
    ],
)
def test_an_error_of_a_command_is_reported_by_its_kind(command, status, message, monkeypatch, capsys):
    monkeypatch.setattr(cli, "import_module", lambda name: type("Module", (), {"inspect_main": staticmethod(command)}))
    assert cli.main(["inspect", "file"]) == status
    assert message in capsys.readouterr().err
