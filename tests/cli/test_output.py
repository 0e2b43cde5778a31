"""What the commands about model files print."""

import safetensors
import safetensors.torch
import torch as th
from exports import rewrite, set_at

from sb3_mirl.cli.main import main
from sb3_mirl.cli.output import MAX_SHOWN_ACTIONS, action_labels, prior_lines


def test_text_of_a_file_cannot_control_the_terminal(exported, capsys):
    rewrite(exported, set_at("action_names", value=["\x1b[2J", "a\nb"]))
    for command in ("inspect", "prior"):
        assert main([command, str(exported)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\\x1b[2J" in out and "a\\nb" in out
    with safetensors.safe_open(exported, "pt") as file:
        metadata, values = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    safetensors.torch.save_file({**values, "policy.\x1b[2J\n": th.zeros(1)}, exported, metadata)
    assert main(["export-onnx", str(exported), "x.onnx"]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\\x1b[2J" in err and err.count("\n") == 1


def test_many_actions_are_shown_in_part():
    n = MAX_SHOWN_ACTIONS + 3
    lines = prior_lines([1 / n] * n, action_labels(None, n))
    assert len(lines) == MAX_SHOWN_ACTIONS + 1 and lines[-1] == "  and 3 more (--json shows all)"


def test_invalid_action_names_become_numbers():
    assert action_labels(["a", "b\n"], 2) == ["a", "b\\n"]
    for names in (None, ["a"], ["a", "a"], ["a", 1], "ab"):
        assert action_labels(names, 2) == ["action_0", "action_1"]
