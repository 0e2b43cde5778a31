"""
Trainings that are killed, again and again, and resumed: run as a script, it prints what became of them as JSON.

Every life of a training is a child process, forked from this one, which has loaded all libraries and has no threads.

    python tests/helpers/killed_run.py random --kills 200      # at random moments
    python tests/helpers/killed_run.py operations              # at every operation on files of the first checkpoints, in turn
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

import torch as th
from joint_runs import SAME, run_jointly
from probes import Image
from resuming import CNN, content, run
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_mirl import DQNMSE
from sb3_mirl.common.resume.writer import CheckpointWriter

SETTINGS = {
    "buffer_size": 300,
    "learning_starts": 50,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "target_update_interval": 50,
    "prior_lr": 1e-3,
    "beta_lr": 1e-2,
    "seed": 1,
}


def cartpole(folder: Path) -> VecEnv:
    return VecNormalize(make_vec_env("CartPole-v1", 2, seed=5, monitor_dir=str(folder)))


def image(folder: Path) -> VecEnv:
    return VecFrameStack(make_vec_env(Image, 1, seed=5, monitor_dir=str(folder)), 3)


RUNS = {
    "cartpole": (cartpole, "MlpPolicy", {**SETTINGS, "policy_kwargs": {"net_arch": [16]}}),
    "image": (image, "CnnPolicy", {**SETTINGS, **CNN, "buffer_size": 60}),
}


class Killer:
    """Shared with the children: whether one is inside a checkpoint, and a plan to die at an operation on files."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 1)

    @property
    def inside(self) -> bool:
        return self.shared[0] == 1

    def watch(self) -> None:
        """In the child: notes when a checkpoint is being written."""
        write = CheckpointWriter.write

        def watched(*args):
            self.shared[0] = 1
            try:
                return write(*args)
            finally:
                self.shared[0] = 0

        CheckpointWriter.write = watched

    @staticmethod
    def die_at(operation: int) -> None:
        """In the child: SIGKILL before the given operation on files, counted from 1, and in the middle of what is written."""
        count = 0

        def counted(function: Callable) -> Callable:
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return call

        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, counted(getattr(os, name)))


def train(name: str, folder: Path, total: int, save_freq: int) -> str:
    found: list[dict[str, Any]] = []
    if name == "joint":
        specifications = [*SAME, (DQNMSE, {"seed": 5})]
        for number, model in enumerate(run_jointly(folder, cartpole, total, save_freq, specifications)):
            state = model.random_state["state"]
            own = content(model, folder / str(number))
            found.append({**own, "random": [state["key"].tolist(), state["pos"]]})
    else:
        make_env, policy, settings = RUNS[name]
        model = run(folder, lambda: make_env(folder), total, save_freq, settings, policy)
        found.append(content(model, folder))
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def life(prepare: Callable[[], None], name: str, folder: Path, total: int, save_freq: int) -> int:
    """Forks a child that trains and writes the hash of its end into the folder. Returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        prepare()
        (folder / "hash").write_text(train(name, folder, total, save_freq))
        status = 0
    finally:
        os._exit(status)


def wait(child: int) -> int | None:
    """The signal that ended it, 0 if it came to its end, None if it failed."""
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else (0 if os.WEXITSTATUS(status) == 0 else None)


def nothing() -> None:
    pass


def uninterrupted(name: str, root: Path, total: int, save_freq: int) -> str:
    folder = root / "uninterrupted"
    folder.mkdir()
    assert wait(life(nothing, name, folder, total, save_freq)) == 0
    return (folder / "hash").read_text()


def kill_at_random(name: str, kills: int, total: int, save_freq: int, longest: float, seed: int) -> dict:
    """Kills children after random times until there were so many kills and the run has come to its end."""
    draw, killer = random.Random(seed), Killer()
    summary = {"run": name, "kills": 0, "inside_a_checkpoint": 0, "runs": 0, "equal": 0, "failures": 0}
    with tempfile.TemporaryDirectory() as root:
        expected = uninterrupted(name, Path(root), total, save_freq)
        folder = Path(root, "killed")
        while True:
            folder.mkdir(exist_ok=True)
            killer.shared[0] = 0
            child = life(killer.watch, name, folder, total, save_freq)
            if summary["kills"] < kills:
                time.sleep(draw.uniform(0.0, longest))
                inside = killer.inside
                os.kill(child, signal.SIGKILL)
            ended_by = wait(child)
            if ended_by == signal.SIGKILL:
                summary["kills"] += 1
                summary["inside_a_checkpoint"] += inside
                continue
            if ended_by is None:
                summary["failures"] += 1
                return summary
            summary["runs"] += 1
            summary["equal"] += (folder / "hash").read_text() == expected
            shutil.rmtree(folder)
            if summary["kills"] >= kills:
                return summary


def kill_at_operations(name: str, total: int, save_freq: int) -> dict:
    """One run for each operation on files: killed there, and resumed."""
    summary = {"run": name, "kills": 0, "equal": 0, "failures": 0}
    with tempfile.TemporaryDirectory() as root:
        expected = uninterrupted(name, Path(root), total, save_freq)
        for operation in range(1, 10_000):
            folder = Path(root, str(operation))
            folder.mkdir()
            killed = wait(life(lambda at=operation: Killer.die_at(at), name, folder, total, save_freq)) == signal.SIGKILL
            if not killed:
                return summary
            summary["kills"] += 1
            if wait(life(nothing, name, folder, total, save_freq)) != 0:
                summary["failures"] += 1
            else:
                summary["equal"] += (folder / "hash").read_text() == expected
            shutil.rmtree(folder)
    raise AssertionError("the run never comes to its end")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=("random", "operations"))
    parser.add_argument("--run", choices=(*RUNS, "joint"), default="cartpole")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--total", type=int, default=1500)
    parser.add_argument("--save-freq", type=int, default=20)
    parser.add_argument("--longest", type=float, default=0.6, help="seconds from a birth to a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)
    th.set_num_threads(1)
    if args.how == "random":
        summary = kill_at_random(args.run, args.kills, args.total, args.save_freq, args.longest, args.seed)
    else:
        summary = kill_at_operations(args.run, args.total, args.save_freq)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
