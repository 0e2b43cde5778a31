"""What the help of the zoo's commands says. Its examples: tests/cli/test_completion.py."""

from sb3_mirl.zoo.command import COMMANDS, make_parser
from sb3_mirl.zoo.help import DEFAULTS_IN_WORDS, GROUPS, HELP


def test_each_command_has_a_help():
    assert HELP.keys() == COMMANDS.keys()


def test_groups_and_defaults_name_options_of_rl_zoo3():
    options = {option for action in make_parser("train")._actions for option in action.option_strings}
    assert {option for names in GROUPS.values() for option in names} | DEFAULTS_IN_WORDS.keys() <= options
