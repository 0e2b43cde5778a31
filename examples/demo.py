"""
The program of `make demo`: trains MIRL on Acrobot-v1 through rl-zoo3, evaluates it, and draws the training.

Acrobot's actions are negative torque, no torque and positive torque. ρ(no torque) falls during training.

    python examples/demo.py            # about a minute; figure and logs in demo/
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from stable_baselines3.common.monitor import load_results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_mirl.zoo.command import main as sb3_mirl

ENV = "Acrobot-v1"
ACTIONS = ["negative torque", "no torque", "positive torque"]


def scalars(folder: Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one TensorBoard curve."""
    events = EventAccumulator(str(folder)).Reload().Scalars(tag)
    return np.array([event.step for event in events]), np.array([event.value for event in events])


def draw(run: Path, tensorboard: Path, file: Path) -> None:
    """Learning curve, ρ and β, one above the other."""
    figure, (top, middle, bottom) = plt.subplots(3, sharex=True, figsize=(7, 8), layout="constrained")
    episodes = load_results(str(run))
    top.plot(episodes.l.cumsum(), episodes.r, ".", markersize=3, color="0.75", label="episodes")
    top.plot(episodes.l.cumsum(), episodes.r.rolling(20, min_periods=1).mean(), label="mean of the last 20")
    top.axhline(-100, color="0.4", linestyle=":", label="solved")
    top.set(ylabel="return", title=f"MIRL on {ENV}")
    top.legend(loc="center right")
    for action, name in enumerate(ACTIONS):
        middle.plot(*scalars(tensorboard, f"prior/action_{action}"), label=name)
    middle.set(ylabel="action prior ρ", ylim=(0, None))
    middle.legend(loc="upper left")
    bottom.plot(*scalars(tensorboard, "train/beta"))
    bottom.set(ylabel="inverse temperature β\n(1/reward)", xlabel="environment steps", ylim=(0, None))
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    args = parser.parse_args()

    common = ["--algo", "mirl", "--env", ENV, "-f", str(args.folder), "--num-threads", "1", "--seed", str(args.seed)]
    train = ["-n", str(args.steps), "-tb", str(args.folder / "tensorboard"), "--eval-freq", "-1", "--log-interval", "4"]
    sb3_mirl(["train", *common, *train])

    newest = {"key": lambda folder: folder.stat().st_mtime}
    run = max(args.folder.glob(f"mirl/{ENV}_*"), **newest)
    tensorboard = max(args.folder.glob(f"tensorboard/{ENV}/MIRL_*"), **newest)
    print("\nThe trained agent, without exploration:\n")
    sb3_mirl(["enjoy", *common, "--no-render", "-n", "2000"])

    figure = args.folder / "mirl_acrobot.png"
    draw(run, tensorboard, figure)
    prior = [scalars(tensorboard, f"prior/action_{action}")[1][-1] for action in range(3)]
    print("\nThe learned action prior: " + ", ".join(f"{name} {p:.2f}" for name, p in zip(ACTIONS, prior, strict=True)))
    print(f"Learning curve, prior and beta: {figure}")


if __name__ == "__main__":
    main()
