"""The command lines of the zoo's commands. ``--resume``: tests/zoo/test_runs.py; ``--seeds``: tests/zoo/test_seeds.py."""

from pathlib import Path

import pytest

from sb3_mirl.zoo.command import main, make_parser
from sb3_mirl.zoo.help import GROUPS
from sb3_mirl.zoo.register import ALGORITHMS


@pytest.mark.parametrize(
    "env, remedy",
    [
        ("MinAtar/Breakout-v2", ", did you mean 'MinAtar/Breakout-v"),
        ("CartPole-v7", ", did you mean 'CartPole-v"),
        ("zzz", ": --gym-packages names modules that register environments"),
    ],
)
@pytest.mark.parametrize("command", ["train", "enjoy", "record-video", "record-training"])
def test_unregistered_environments_are_refused_with_a_remedy(command, env, remedy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--algo", "mirl", "--env", env]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"sb3-mirl {command}: --env must be registered with Gymnasium, got {env!r}{remedy}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("command", ["enjoy", "record-video"])
def test_our_agents_are_in_logs_where_no_folder_is_given(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse = make_parser(command).parse_args
    assert parse(["--algo", "mirl", "--env", "CartPole-v1"]).folder == "logs"
    assert parse(["--algo", "mirl", "--env", "CartPole-v1", "-f", "other"]).folder == "other"
    Path("rl-trained-agents", "mirl").mkdir(parents=True)
    assert parse(["--algo", "mirl", "--env", "CartPole-v1"]).folder == "rl-trained-agents"


def test_agents_that_would_be_downloaded_need_the_users_trust(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    assert main(["enjoy", "--algo", "dqn", "--env", "CartPole-v1", "--no-render"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sb3-mirl enjoy: rl-trained-agents has no agent of dqn, and -f names no other folder: the env")
    assert printed.count("\n") == 1
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    assert make_parser("enjoy").parse_args(["--algo", "dqn", "--env", "CartPole-v1"]).folder == "rl-trained-agents"


def test_spaces_that_are_not_supported_end_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--algo", "mirl", "--env", "Pendulum-v1", "-n", "100", "--verbose", "0"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sb3-mirl train: action_space must be Discrete, got Box(") and printed.count("\n") == 1


@pytest.mark.parametrize("given, shown", [(None, "none"), ("False", "'False'"), ("perhaps", "'perhaps'")])
def test_files_of_the_hub_are_loaded_only_if_the_user_trusts_them(given, shown, monkeypatch, capsys):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    if given is not None:
        monkeypatch.setenv("TRUST_REMOTE_CODE", given)
    assert main(["load-from-hub", "--algo", "mirl", "--env", "CartPole-v1", "-f", "logs", "-orga", "me"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sb3-mirl load-from-hub: the environment variable TRUST_REMOTE_CODE must be True, because ")
    assert f", got {shown}. " in printed and printed.count("\n") == 1


def test_the_options_of_train_are_in_groups_with_defaults_in_words():
    text = make_parser("train").format_help()
    assert all(f"\n{title}:\n" in text for title in (*GROUPS, f"with {', '.join(ALGORITHMS)}"))
    words = " ".join(text.split())
    assert "--seed SEED Random generator seed (default: a random one)" in words
    assert "Save the model every n steps (default: no checkpoints)" in words
    assert "--eval-episodes EVAL_EPISODES Number of episodes to use for evaluation (default: 5)" in words


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--algo", "mril"], "argument --algo: invalid choice: 'mril', did you mean 'mirl'? (choose from a2c, "),
        (["train", "--eval-frq", "3"], "unknown option --eval-frq, did you mean '--eval-freq'?"),
        (["record-video", "--algoo", "mirl"], "unknown option --algoo, did you mean '--algo'?"),
        (["all-plots", "--algs", "mirl"], "unknown option --algs, did you mean '--algos'?"),
    ],
)
def test_misspelt_options_and_algorithms_get_the_nearest_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"sb3-mirl {arguments[0]}: error: {message}")
