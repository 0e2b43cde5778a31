"""What the help of rl-zoo3's commands says: a description and examples of each, and the groups of ``train``'s many options."""

from typing import NamedTuple


class CommandHelp(NamedTuple):
    """The help of a command: a description, and what each example does, with its command line."""

    description: str
    examples: tuple[tuple[str, str], ...]


HELP = {
    "train": CommandHelp(
        "Train an algorithm on an environment, with the hyper-parameters of a file, or search hyper-parameters.",
        (
            ("MIRL on CartPole, with our file of hyper-parameters", "sb3-mirl train --algo mirl --env CartPole-v1"),
            ("Other hyper-parameters", "sb3-mirl train --algo mirl --env CartPole-v1 -params beta_max:20 gamma:0.99"),
            ("Ten seeds at once", "sb3-mirl train --algo mirl --env CartPole-v1 --seeds 0-9"),
            (
                "Continue an interrupted run from its last checkpoint, or begin it",
                "sb3-mirl train --algo mirl --env CartPole-v1 --seed 1 --save-freq 10000 --resume",
            ),
            (
                "Search hyper-parameters with 50 trials",
                "sb3-mirl train --algo mirl --env CartPole-v1 -optimize --n-trials 50 --storage sqlite:///s.db --study-name s",
            ),
        ),
    ),
    "enjoy": CommandHelp(
        "Let a trained agent act, in a window or, with --no-render, only for its returns.",
        (
            ("The newest agent", "sb3-mirl enjoy --algo mirl --env CartPole-v1 -f logs"),
            (
                "The best one, without a window",
                "sb3-mirl enjoy --algo mirl --env CartPole-v1 -f logs --load-best --no-render",
            ),
        ),
    ),
    "benchmark": CommandHelp(
        "Evaluate all trained agents of a folder and write a table of their returns.",
        (("All agents in logs", "sb3-mirl benchmark --log-dir logs --no-hub -n 10000"),),
    ),
    "record-video": CommandHelp(
        "Record a video of a trained agent.",
        (("500 steps of the newest agent", "sb3-mirl record-video --algo mirl --env CartPole-v1 -f logs -n 500"),),
    ),
    "record-training": CommandHelp(
        "Record a video of each checkpoint of a run, of its best and of its final agent, and join them.",
        (("The newest run", "sb3-mirl record-training --algo mirl --env CartPole-v1 -f logs"),),
    ),
    "plot-train": CommandHelp(
        "Plot the returns of trainings over time. Without a display the figure is written to a file.",
        (("Moving means over 50 episodes", "sb3-mirl plot-train -a mirl -e CartPole-v1 -f logs -w 50"),),
    ),
    "all-plots": CommandHelp(
        "Plot the evaluations of trainings (--eval-freq), print a table, and write a file for plot-from-file.",
        (("MIRL and DQN", "sb3-mirl all-plots -a mirl dqn -e CartPole-v1 -f logs -o results"),),
    ),
    "plot-from-file": CommandHelp(
        "Plot what all-plots has written, with box plots or the statistics of rliable.",
        (
            ("Learning curves", "sb3-mirl plot-from-file -i results.pkl -l MIRL DQN"),
            ("With rliable", "sb3-mirl plot-from-file -i results.pkl -l MIRL DQN --rliable"),
        ),
    ),
    "push-to-hub": CommandHelp(
        "Evaluate a trained agent, record a video of it, and publish both on the Hugging Face Hub (huggingface-cli login).",
        (("The newest agent", "sb3-mirl push-to-hub --algo mirl --env CartPole-v1 -f logs -orga YOUR_NAME"),),
    ),
    "load-from-hub": CommandHelp(
        "Download a trained agent from the Hugging Face Hub. Its files can run code when they are loaded, so the environment "
        "variable TRUST_REMOTE_CODE=True must allow it.",
        (("An agent of rl-zoo3", "sb3-mirl load-from-hub --algo dqn --env CartPole-v1 -orga sb3 -f logs"),),
    ),
}

#: Groups of the options of ``train``; the others stand at the beginning
GROUPS = {
    "evaluation, checkpoints and logs": (
        *("--eval-freq", "--eval-episodes", "--n-eval-envs", "--save-freq", "--save-replay-buffer", "--log-folder"),
        *("--log-interval", "--tensorboard-log", "--verbose", "--progress", "--uuid"),
    ),
    "environments": ("--gym-packages", "--env-kwargs", "--eval-env-kwargs", "--vec-env"),
    "search of hyper-parameters": (
        *("--optimize-hyperparameters", "--n-trials", "--max-total-trials", "--n-jobs", "--sampler", "--pruner"),
        *("--n-startup-trials", "--n-evaluations", "--storage", "--study-name", "--trial-id", "--no-optim-plots"),
        "--optimization-log-path",
    ),
    "Weights & Biases": ("--track", "--wandb-project-name", "--wandb-entity", "--wandb-group", "--wandb-tags"),
}
#: What a default of -1 or None of ``train`` stands for
DEFAULTS_IN_WORDS = {
    "--n-timesteps": "as in the hyper-parameters",
    "--seed": "a random one",
    "--save-freq": "no checkpoints",
    "--conf-file": "our file for our algorithms, rl-zoo3's for the others",
}
