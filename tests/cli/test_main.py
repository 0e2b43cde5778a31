"""The command sb3-mirl. Commands without extras: tests/test_without_extras.py."""

import subprocess
import sys

import pytest

from sb3_mirl.cli import main as cli


def test_inspect_needs_no_rl_zoo3(exported):
    code = "import sys; sys.modules['rl_zoo3'] = None; from sb3_mirl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    assert subprocess.run([sys.executable, "-c", code, "inspect", str(exported)], capture_output=True).returncode == 0


def test_no_command_and_unknown_commands_have_exit_status_2(capsys):
    assert cli.main([]) == 2 and capsys.readouterr().out.startswith("usage: sb3-mirl")
    assert cli.main(["inspekt"]) == 2 and "unknown command 'inspekt', choose one of train, " in capsys.readouterr().err


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
