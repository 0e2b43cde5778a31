"""Commands end quietly when the reader of their output has closed the pipe."""

import os
import subprocess
import sys

import pytest

from sb3_mirl.cli.broken_pipe import exit_quietly_on_broken_pipe


@pytest.mark.parametrize("buffered", [True, False])
def test_command_is_quiet_on_broken_pipe(buffered):
    code = (
        "import sys; from sb3_mirl.cli.broken_pipe import exit_quietly_on_broken_pipe\n"
        "@exit_quietly_on_broken_pipe\n"
        "def command():\n    print('text')\n    return 0\n"
        "sys.stdin.read(1); sys.exit(command())"
    )
    unbuffered = [] if buffered else ["-u"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *unbuffered, "-c", code], env=environment, **pipes)
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)
    process.stderr.close()


def test_another_broken_pipe_is_an_error():
    @exit_quietly_on_broken_pipe
    def command():
        raise BrokenPipeError("of a worker")

    with pytest.raises(BrokenPipeError, match="of a worker"):
        command()


def test_command_works_without_an_output():
    code = "import sys; from sb3_mirl.cli.main import main; sys.exit(main(['--version']))"
    assert subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" >&-'], check=False).returncode == 0
