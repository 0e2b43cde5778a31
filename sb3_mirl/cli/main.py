"""
The command ``sb3-mirl``, also ``python -m sb3_mirl``. The modules of a command are imported when it is run, and help needs
none of them, so that an installation without extras can name the missing extra.
"""

import platform
import sys
import traceback
from importlib import import_module, metadata

from sb3_mirl import __version__
from sb3_mirl.cli.broken_pipe import exit_quietly_on_broken_pipe
from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS, usage
from sb3_mirl.common.text import did_you_mean, printable, printable_lines

#: Packages whose versions ``--version`` prints
VERSIONS = {
    "Stable-Baselines3": "stable-baselines3",
    "rl-zoo3": "rl-zoo3",
    "PyTorch": "torch",
    "Gymnasium": "gymnasium",
    "NumPy": "numpy",
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
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(_versions())
        return 0
    if arguments[0] == "--print-completion":
        from sb3_mirl.cli.completion import main as completion

        return completion(arguments[1:])
    # rl-zoo3 itself has underscores: plot_train
    name = arguments[0].replace("_", "-")
    if name in ZOO_COMMANDS:
        from sb3_mirl.zoo.command import main as zoo

        return zoo([name, *arguments[1:]])
    if name in OUR_COMMANDS:
        module, _, function = OUR_COMMANDS[name].function.partition(":")
        status: int = getattr(import_module(module), function)(arguments[1:])
        return status
    known = [*ZOO_COMMANDS, *OUR_COMMANDS]
    kind = "option" if name.startswith("-") else "command"
    hint = did_you_mean(name, ["--help", "--version", "--print-completion"] if kind == "option" else known)
    fallback = "" if hint else f", choose one of {', '.join(known)}" if kind == "command" else ": sb3-mirl --help lists all"
    print(f"sb3-mirl: unknown {kind} {printable(repr(arguments[0]))}{hint}{fallback}", file=sys.stderr)
    return 2


def _versions() -> str:
    ours = f"sb3-mirl {__version__}"
    below = [f"{title} {_version(package)}" for title, package in VERSIONS.items()]
    return "\n".join([ours, *below, f"Python {platform.python_version()}"])


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
