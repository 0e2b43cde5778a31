"""
The command ``sb3-mirl``, also ``python -m sb3_mirl``. The modules of a command are imported when it is run, and help needs
none of them, so that an installation without extras can name the missing extra.
"""

import sys
import traceback
from importlib import import_module, metadata
from typing import NamedTuple

from sb3_mirl import __version__
from sb3_mirl.cli.broken_pipe import exit_quietly_on_broken_pipe
from sb3_mirl.common.text import printable, printable_lines

#: Commands of rl-zoo3, which sb3_mirl.zoo.command runs
ZOO_COMMANDS = (
    *("train", "enjoy", "benchmark", "record-video", "record-training"),
    *("plot-train", "all-plots", "plot-from-file", "push-to-hub", "load-from-hub"),
)


class Command(NamedTuple):
    """A command of this package: its function, and what it does."""

    function: str
    help: str


OUR_COMMANDS = {
    "gridworld": Command("sb3_mirl.bench.gridworld_command:main", "the paper's experiment with tables"),
    "bench": Command("sb3_mirl.bench.command:main", "algorithms compared on many environments and seeds"),
    "inspect": Command("sb3_mirl.cli.inspect:inspect_main", "what is in a model file, read without running code of it"),
    "prior": Command("sb3_mirl.cli.prior:main", "which actions an agent chose seldom"),
    "export-onnx": Command("sb3_mirl.cli.inspect:onnx_main", "a model's policy as ONNX"),
}

#: The extra that installs a package
EXTRAS = {
    **dict.fromkeys(("rl_zoo3", "optuna", "huggingface_sb3", "requests", "seaborn", "pytablewriter"), "zoo"),
    **dict.fromkeys(("moviepy", "imageio_ffmpeg", "tensorboard", "pygame", "rliable", "rich"), "zoo"),
    **dict.fromkeys(("matplotlib", "pandas", "scipy", "tqdm"), "bench"),
    **dict.fromkeys(("ale_py", "cv2"), "atari"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "minatar": "minatar",
    "Box2D": "box2d",
    "ray": "ray",
}

USAGE = """usage: sb3-mirl COMMAND [ARGUMENTS]

rl-zoo3 with the algorithms mirl, sql, sql_decoupled, sql_m, dqn_mse, mdqn beside its own. Commands, which take
rl-zoo3's arguments and need pip install 'sb3-mirl[zoo]':

  {}

and ours, of which only bench run needs rl-zoo3:

{}

sb3-mirl COMMAND --help lists the arguments of one. Example:

  sb3-mirl train --algo mirl --env CartPole-v1
""".format(", ".join(ZOO_COMMANDS), "\n".join(f"  {name:<11}  {command.help}" for name, command in OUR_COMMANDS.items()))


@exit_quietly_on_broken_pipe
def main(arguments: list[str] | None = None) -> int:
    """
    The command ``sb3-mirl``.

    :param arguments: without the program's name; by default those of the process
    :return: exit status
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("\nInterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and (remedy := _remedy(error)):
            print(f"sb3-mirl {arguments[0]}: {remedy}", file=sys.stderr)
            return 2
        # The message may contain text of a file or an environment
        print(printable_lines(traceback.format_exc()), file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"sb3-mirl {__version__}, rl-zoo3 {_version('rl_zoo3')}")
        return 0
    # rl-zoo3 itself has underscores: plot_train
    name = arguments[0].replace("_", "-")
    if name in ZOO_COMMANDS:
        from sb3_mirl.zoo.command import main as zoo

        return zoo([name, *arguments[1:]])
    if name in OUR_COMMANDS:
        module, _, function = OUR_COMMANDS[name].function.partition(":")
        status: int = getattr(import_module(module), function)(arguments[1:])
        return status
    known = ", ".join([*ZOO_COMMANDS, *OUR_COMMANDS])
    print(f"sb3-mirl: unknown command {arguments[0]!r}, choose one of {known}", file=sys.stderr)
    return 2


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"


def _remedy(error: ImportError) -> str:
    """Which extra installs the package that could not be imported; empty if it belongs to none of the extras."""
    if isinstance(error.__cause__, ImportError):  # our modules raise an ImportError that names the extra from the original one
        return printable(error)
    package = (error.name or "").partition(".")[0]
    return f"{package} is not installed: pip install 'sb3-mirl[{EXTRAS[package]}]'" if package in EXTRAS else ""
