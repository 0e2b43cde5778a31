"""Help and errors of command lines."""

import pytest

from sb3_mirl.common.command_parser import CommandParser


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


LONG = ["first_of_all", "second_of_all", "third_of_all"]


def make_parser(n_options=0):
    parser = CommandParser(prog="tool", examples=[("Count to three", "tool --count 3")])
    parser.add_argument("suite", choices=LONG, metavar="SUITE")
    parser.add_argument("-c", "--count", type=int, default=7, help="how often")
    parser.add_argument("--names", nargs="+", default=["a", "50%"], help="of things")
    parser.add_argument("--algo", choices=LONG, help="the learner")
    parser.add_argument("--out", help="a folder; by default the current one")
    parser.add_argument("--fast", action="store_true", help="do less")
    for number in range(n_options):
        parser.add_argument(f"--option-{number}")
    return parser


def help_lines(parser):
    return [" ".join(line.split()) for line in parser.format_help().splitlines()]


def test_defaults_are_told_once_and_none_is_no_default():
    words = " ".join(help_lines(make_parser()))
    assert "-c, --count COUNT how often (default: 7) " in words
    assert "--names NAMES [NAMES ...] of things (default: a 50%) " in words
    assert "--out OUT a folder; by default the current one --fast do less" in words
    assert "None" not in words and "False" not in words


def test_long_choices_are_listed_in_the_help_and_not_in_the_usage():
    lines = help_lines(make_parser())
    assert "--algo ALGO the learner: first_of_all, second_of_all, third_of_all" in lines
    assert "{first_of_all" not in "".join(lines)


def test_many_options_are_not_listed_in_the_usage():
    assert help_lines(make_parser(n_options=10))[0] == "usage: tool [OPTION ...] SUITE"
    assert "[--fast]" in help_lines(make_parser())[0]


def test_examples_are_at_the_end_of_the_help():
    assert make_parser().format_help().endswith("\nexamples:\n  # Count to three\n  tool --count 3\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["fist_of_all"],
            "argument SUITE: invalid choice: 'fist_of_all', did you mean 'first_of_all'? (choose from first_of",
        ),
        (
            [LONG[0], "--algo", "THIRD_OF_ALL"],
            "argument --algo: invalid choice: 'THIRD_OF_ALL', did you mean 'third_of_all'?",
        ),
        ([LONG[0], "--algo", "ppo"], "argument --algo: invalid choice: 'ppo' (choose from first_of_all, second"),
        ([LONG[0], "--conut=3"], "unknown option --conut, did you mean '--count'?"),
        ([LONG[0], "--zzz", "3"], "unknown option --zzz: tool --help lists all"),
        ([LONG[0], "more"], "unknown argument more: tool --help lists all"),
        ([LONG[0], "--conut\x1b[2J"], "unknown option --conut\\x1b[2J, did you mean '--count'?"),
    ],
)
def test_errors_are_one_line_with_the_nearest_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args(arguments)
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.startswith(f"tool: error: {message}") and printed.count("\n") == 1


def test_a_sub_command_reports_unknown_options_itself(capsys):
    parser = CommandParser(prog="tool")
    parser.add_argument("--seed")
    run = parser.add_subparsers(dest="command").add_parser("run", examples=[("Run", "tool run")])
    run.add_argument("--seeds")
    assert isinstance(run, CommandParser) and run.parse_args(["--seeds", "3"]).seeds == "3"
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--sedes", "3"])
    assert capsys.readouterr().err == "tool run: error: unknown option --sedes, did you mean '--seeds'?\n"
