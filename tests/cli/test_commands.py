"""The table of commands, and the help of ``sb3-mirl``."""

from sb3_mirl.cli.commands import GROUPS, OUR_COMMANDS, ZOO_COMMANDS, usage


def test_the_help_has_a_line_for_each_command():
    lines = usage().splitlines()
    for name, summary in {**ZOO_COMMANDS, **{name: command.help for name, command in OUR_COMMANDS.items()}}.items():
        assert f"  {name:<15}  {summary}" in lines
    assert max(map(len, lines)) <= 90


def test_each_command_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted([*ZOO_COMMANDS, *OUR_COMMANDS])
