"""Completion in a shell."""

import shlex
import shutil
import subprocess
import sys
from importlib import import_module

import pytest

from sb3_mirl.cli.commands import OUR_COMMANDS, ZOO_COMMANDS
from sb3_mirl.cli.completion import make_script
from sb3_mirl.cli.main import main
from sb3_mirl.zoo.command import make_parser

shtab = pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script():
    return make_script("bash")


def completions(script, folder, *words):
    """What bash offers for the last of some words."""
    code = f"{script}\nCOMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_sb3_mirl; echo ${{COMPREPLY[@]}}"
    found = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    return found.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "words, expected",
    [
        (["tr"], ["train"]),
        (["train", "--algo", "sql_"], ["sql_decoupled", "sql_m"]),
        (["train", "--see"], ["--seed", "--seeds"]),
        (["bench", "r"], ["run", "report"]),
        (["bench", "run", "minatar-2"], ["minatar-200k"]),
        (["prior", "--th"], ["--threshold"]),
        (["prior", "mod"], ["model.zip"]),
    ],
)
def test_bash_completes_commands_options_values_and_files(words, expected, script, tmp_path):
    (tmp_path / "model.zip").touch()
    assert sorted(completions(script, tmp_path, "sb3-mirl", *words)) == sorted(expected)


def test_the_script_names_every_command(script):
    assert all(name in script for name in (*ZOO_COMMANDS, *OUR_COMMANDS))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--print-completion"], "--print-completion must be followed by bash, "),
        (["--print-completion", "bsh"], "got 'bsh', did you mean 'bash'?"),
    ],
)
def test_other_shells_are_refused(arguments, message, capsys):
    assert main(arguments) == 2 and message in capsys.readouterr().err


def test_without_shtab_the_error_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err == "sb3-mirl: shell completion needs shtab: pip install shtab\n"


def parser_of(name):
    if name in ZOO_COMMANDS:
        return make_parser(name)
    module, _, function = OUR_COMMANDS[name].parser.partition(":")
    return getattr(import_module(module), function)()


def with_sub_commands(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            yield from action.choices.values()


@pytest.mark.parametrize("name", [*ZOO_COMMANDS, *OUR_COMMANDS])
def test_each_help_has_a_description_and_examples_that_are_accepted(name):
    parser = parser_of(name)
    for one in with_sub_commands(parser):
        text = one.format_help()
        assert one.description and one.examples and "None" not in text and text.startswith(f"usage: {one.prog} ")
        for _, command in one.examples:
            program, command_name, *arguments = shlex.split(command)
            assert (program, command_name) == ("sb3-mirl", name)
            super(type(parser), parser).parse_args(arguments)
