"""The commands of ``sb3-mirl``, and what its help says of them."""

from typing import NamedTuple

#: Commands of rl-zoo3, which sb3_mirl.zoo.command runs, and what they do
ZOO_COMMANDS = {
    "train": "train an agent, or search hyper-parameters",
    "enjoy": "let a trained agent act",
    "benchmark": "evaluate all trained agents of a folder",
    "record-video": "record a video of an agent",
    "record-training": "record how an agent changed during its training",
    "plot-train": "plot the returns of trainings",
    "all-plots": "plot the evaluations of trainings, and print a table",
    "plot-from-file": "plot what all-plots has written",
    "push-to-hub": "publish an agent on the Hugging Face Hub",
    "load-from-hub": "download an agent from the Hugging Face Hub",
}


class Command(NamedTuple):
    """A command of this package: its function, the function that makes its parser, and what it does."""

    function: str
    parser: str
    help: str


OUR_COMMANDS = {
    "inspect": Command(
        "sb3_mirl.cli.inspect:inspect_main",
        "sb3_mirl.cli.inspect:make_inspect_parser",
        "show what is in a model file, without running code of it",
    ),
    "prior": Command(
        "sb3_mirl.cli.prior:main", "sb3_mirl.cli.prior:make_parser", "show which actions an agent learned not to choose"
    ),
    "export-onnx": Command(
        "sb3_mirl.cli.inspect:onnx_main", "sb3_mirl.cli.inspect:make_onnx_parser", "write a model's policy as ONNX"
    ),
    "bench": Command(
        "sb3_mirl.bench.command:main",
        "sb3_mirl.bench.command:make_parser",
        "compare algorithms on many environments and seeds",
    ),
    "gridworld": Command(
        "sb3_mirl.bench.gridworld_command:main",
        "sb3_mirl.bench.gridworld_command:make_parser",
        "run the paper's experiment with tables",
    ),
}
#: The groups of the help
GROUPS = {
    "train and play (rl-zoo3's commands)": ("train", "enjoy", "benchmark", "record-video", "record-training"),
    "plot trainings": ("plot-train", "all-plots", "plot-from-file"),
    "look into a model": ("prior", "inspect", "export-onnx"),
    "experiments": ("bench", "gridworld"),
    "share agents": ("push-to-hub", "load-from-hub"),
}

#: The help of ``sb3-mirl``; {} stands for the commands
USAGE = """usage: sb3-mirl COMMAND [ARGUMENT ...]

Soft Q-learning with a learned action prior (MIRL), on Stable-Baselines3 and rl-zoo3.
{}
options:
  -h, --help       show this help; sb3-mirl COMMAND --help shows that of a command
  -V, --version    show the versions of this package and of the packages that it uses
  --print-completion SHELL
                   print a script that completes commands in bash, zsh, fish, ...

examples:
  # Train MIRL on CartPole
  sb3-mirl train --algo mirl --env CartPole-v1
  # Look at which actions it learned to avoid
  sb3-mirl prior logs/mirl/CartPole-v1_1/CartPole-v1.zip
  # Complete commands and options in bash
  source <(sb3-mirl --print-completion bash)"""


def usage() -> str:
    """The help of ``sb3-mirl``."""
    helps = {**ZOO_COMMANDS, **{name: command.help for name, command in OUR_COMMANDS.items()}}
    groups = [f"\n{title}:\n" + "".join(f"  {name:<15}  {helps[name]}\n" for name in names) for title, names in GROUPS.items()]
    return USAGE.format("".join(groups))
