"""
Joint training beside solo training: environment steps per second, summed over runs, with the same hyper-parameters and
threads. The competitors take turns in one process; medians of the turns and their ratios to SB3's DQN are printed.

    python benchmarks/joint_speed.py                                  # the table of docs/performance.md
    python benchmarks/joint_speed.py --work cartpole --runs 1 8 32    # other numbers of runs
    python benchmarks/joint_speed.py --sbx                            # with SBX's DQN (JAX), if it is installed
    python benchmarks/joint_speed.py --device cuda --work minatar --runs 1 16 64
    python benchmarks/joint_speed.py --work atari --runs 1 3 --cpu-time --no-compile      # for the costs in docs/cluster.md

Times are those of training after the warm-up and the compilation, which take seconds. The floor is the time that the matrix
products of one update of one run would take at the rate of a large product.
"""

import argparse
import importlib
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch.utils.flop_counter import FlopCounterMode
from training_speed import CARTPOLE, MINATAR, PONG, processor

from sb3_mirl import MIRL, DeviceReplayBuffer, FrameReplayBuffer, train_jointly

gym.register_envs(ale_py)


def pong() -> VecEnv:
    """As rl-zoo3 makes the environments of the suite ``atari19``."""
    return VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4)


# The replay buffer is the suite's, also on a GPU: a DeviceReplayBuffer of its size takes 56 GB
FRAMES = {"policy": "CnnPolicy", "replay_buffer_class": FrameReplayBuffer, "learning_starts": 400}
#: Environment, hyper-parameters, number of runs, environment steps of a run that are timed
WORK: dict[str, tuple[str | Callable[[], VecEnv], dict[str, Any], int, int]] = {
    "cartpole": ("CartPole-v1", {"learning_starts": 500, "buffer_size": 20_000}, 32, 4000),
    "cartpole zoo": ("CartPole-v1", CARTPOLE, 16, 2048),
    "minatar": ("MinAtar/Breakout-v1", MINATAR, 16, 800),
    "minatar/4": ("MinAtar/Breakout-v1", {**MINATAR, "train_freq": 4}, 16, 2400),
    "atari": (pong, {**PONG, **FRAMES}, 3, 240),
}


def make(algorithm: type, work: str, seed: int, **settings: Any) -> BaseAlgorithm:
    """A model for a work of :data:`WORK`; its hyper-parameters have precedence over the settings."""
    env, arguments, _, _ = WORK[work]
    return algorithm(**{"policy": "MlpPolicy", **settings, **arguments}, env=env if isinstance(env, str) else env(), seed=seed)


class Stopwatch(BaseCallback):
    """
    Measures the time between the first rollout that ends at or after a step and the end of the training.

    :param begin: environment step
    :param device: of the model
    :param clock: seconds
    """

    def __init__(self, begin: int, device: th.device, clock: Callable[[], float]) -> None:
        super().__init__()
        self.begin, self.device, self.clock = begin, device, clock
        self.begun: tuple[int, float] | None = None
        self.seconds, self.steps = 0.0, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.begun is None and self.num_timesteps >= self.begin:
            self.begun = self.model.num_timesteps, self._now()

    def _on_training_end(self) -> None:
        assert self.begun is not None
        self.steps, self.seconds = self.model.num_timesteps - self.begun[0], self._now() - self.begun[1]

    def _now(self) -> float:
        if self.device.type == "cuda":
            th.cuda.synchronize()
        return self.clock()


class Competitor:
    """
    One way to train.

    :param algorithm: class
    :param work: of :data:`WORK`
    :param runs: how many at once; 0: solo
    :param settings: arguments beside those of the work
    """

    def __init__(self, algorithm: type, work: str, runs: int, **settings: Any) -> None:
        self.algorithm, self.work, self.runs, self.settings = algorithm, work, runs, settings

    def steps_per_second(self, clock: Callable[[], float]) -> float:
        """Environment steps of all runs per second of training."""
        _, arguments, _, steps = WORK[self.work]
        models: list[Any] = [make(self.algorithm, self.work, seed, **self.settings) for seed in range(self.runs or 1)]
        warm_up = arguments["learning_starts"] + 2 * max(arguments.get("train_freq", 4), 100)
        device = getattr(models[0], "device", None)
        watch = Stopwatch(warm_up, device if isinstance(device, th.device) else th.device("cpu"), clock)
        if self.runs:
            train_jointly(models, warm_up + steps, callback=[watch, *[None] * (self.runs - 1)])
        else:
            models[0].learn(warm_up + steps, callback=watch)
        return watch.steps * len(models) / watch.seconds


def competitors(work: str, args: argparse.Namespace) -> dict[str, Competitor]:
    """By name, SB3's DQN first."""
    _, _, runs, _ = WORK[work]
    device: dict[str, Any] = {"device": args.device}
    replay = device if args.device == "cpu" else {**device, "replay_buffer_class": DeviceReplayBuffer}
    found = {"SB3's DQN": Competitor(DQN, work, 0, **device), "MIRL": Competitor(MIRL, work, 0, **replay)}
    if not args.no_compile:
        found["MIRL, compiled"] = Competitor(MIRL, work, 0, **replay, compile_update=True)
    if args.sbx:
        found["SBX's DQN"] = Competitor(importlib.import_module("sbx").DQN, work, 0)
    for number in args.runs or [runs]:
        found[f"{number} MIRL jointly"] = Competitor(MIRL, work, number, **replay)
        if not args.no_compile:
            found[f"{number} MIRL jointly, compiled"] = Competitor(MIRL, work, number, **replay, compile_update=True)
    return found


def floor_ms(work: str, device: str, clock: Callable[[], float]) -> float:
    """Milliseconds of the products and convolutions of one update of one run, at the rate of a large product."""
    _, arguments, _, _ = WORK[work]
    model: Any = make(MIRL, work, 0, device=device)
    model.learn(arguments["learning_starts"] + 8)
    with FlopCounterMode(display=False) as counter:
        model.train(1, model.batch_size)
    a = th.randn(1024, 1024, device=device)

    def product() -> float:
        start = clock()
        (a @ a).sum().item()
        return clock() - start

    rate = 2 * 1024**3 / min(product() for _ in range(10))
    return 1e3 * counter.get_total_flops() / rate


def measure(work: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the table."""
    if args.quick:
        WORK[work] = (*WORK[work][:2], 2, 256)
    _, arguments, _, _ = WORK[work]
    found = competitors(work, args)
    speeds: dict[str, list[float]] = {name: [] for name in found}
    clock = time.process_time if args.cpu_time else time.perf_counter
    for _ in range(args.turns):
        for name, competitor in found.items():
            speeds[name].append(competitor.steps_per_second(clock))
    baseline = np.array(speeds["SB3's DQN"])
    per_step = arguments.get("gradient_steps", 1) / arguments.get("train_freq", 4)
    floor = floor_ms(work, args.device, clock)
    return [
        {
            "work": work,
            "who": name,
            "steps/s": float(np.median(own)),
            "updates/s": float(np.median(own)) * per_step,
            "times DQN": float(np.median(np.array(own) / baseline)),
            "range": [float(np.min(np.array(own) / baseline)), float(np.max(np.array(own) / baseline))],
            "ms per step": 1e3 / float(np.median(own)),
            "floor, ms per update": floor,
        }
        for name, own in speeds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=[name for name in WORK if name != "atari"])
    parser.add_argument("--runs", nargs="+", type=int, help="numbers of runs (by default those of the table)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, for a machine with other work")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled ones")
    parser.add_argument("--sbx", action="store_true", help="with SBX's DQN")
    parser.add_argument("--quick", action="store_true", help="few steps and two runs: whether everything runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    th.set_num_threads(args.threads)
    where = processor() if args.device == "cpu" else th.cuda.get_device_name()
    print(f"{where}; {args.threads} thread(s); torch {th.__version__}; medians of {args.turns} turns\n")
    print("| work | training | steps/s | updates/s | times SB3's DQN | ms per step | floor, ms per update |")
    print("|---|---|---:|---:|---:|---:|---:|")
    rows = []
    for work in args.work:
        for row in measure(work, args):
            rows.append(row)
            low, high = row["range"]
            print(
                f"| {work} | {row['who']} | {row['steps/s']:,.0f} | {row['updates/s']:,.0f} | {row['times DQN']:.2f} "
                f"({low:.2f} to {high:.2f}) | {row['ms per step']:.3f} | {row['floor, ms per update']:.3f} |",
                flush=True,
            )
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nLargest memory of the process: {megabytes:.0f} MB")
    if args.json:
        args.json.write_text(json.dumps({"where": where, "threads": args.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
