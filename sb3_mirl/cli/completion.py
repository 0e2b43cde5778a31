"""
``sb3-mirl --print-completion``: a script with which a shell completes commands, options and their values.

The script is made once from the parsers of all commands, by shtab: completing starts no Python.
"""

import argparse
import sys
from collections.abc import Iterable
from importlib import import_module

from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.common.command_parser import CommandParser
from sb3_mirl.common.text import did_you_mean

#: Arguments that name files or folders
FILE_ARGUMENTS = frozenset(
    "file files model output out folder log_folder trained_agent conf_file log_dir input exp_folder exp_folders worlds "
    "output_folder tensorboard_log".split()
)


def make_script(shell: str) -> str:
    """
    :param shell: such as ``"bash"`` or ``"zsh"``: those that shtab knows
    :return: the script; without rl-zoo3 it has our commands only
    :raises ImportError: without shtab
    :raises ValueError: for another shell
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError("shell completion needs shtab: pip install shtab") from error
    if shell not in shtab.SUPPORTED_SHELLS:
        hint = did_you_mean(shell, shtab.SUPPORTED_SHELLS)
        raise ValueError(f"--print-completion must be followed by {', '.join(shtab.SUPPORTED_SHELLS)}, got {shell!r}{hint}")
    root = CommandParser(prog="sb3-mirl")
    root.add_argument("--version", action="store_true", help="show versions")
    root.add_argument("--print-completion", choices=shtab.SUPPORTED_SHELLS, help="print a script like this one")
    commands = root.add_subparsers()
    for name, parser, summary in _parsers():
        _complete_files(parser, shtab.FILE)
        commands.add_parser(name, help=summary, parents=[parser], add_help=False)
    script: str = shtab.complete(root, shell)
    return script


def _parsers() -> Iterable[tuple[str, CommandParser, str]]:
    """Name, parser and summary of the commands that can be run."""
    try:
        from sb3_mirl.zoo.command import make_parser
    except ImportError as error:
        print(f"sb3-mirl: without rl-zoo3's commands ({error})", file=sys.stderr)
    else:
        for name, summary in ZOO_COMMANDS.items():
            yield name, make_parser(name), summary
    for name, command in OUR_COMMANDS.items():
        module, _, function = command.parser.partition(":")
        yield name, getattr(import_module(module), function)(), command.help


def _complete_files(parser: argparse.ArgumentParser, how: object) -> None:
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                _complete_files(inner, how)
        elif action.dest in FILE_ARGUMENTS:
            action.complete = how  # type: ignore[attr-defined]


def main(arguments: list[str]) -> int:
    """
    ``sb3-mirl --print-completion``.

    :param arguments: the name of the shell
    :return: exit status
    """
    try:
        script = make_script(" ".join(arguments))
    except (ImportError, ValueError) as error:
        print(f"sb3-mirl: {error}", file=sys.stderr)
        return 2
    print(script)
    return 0
