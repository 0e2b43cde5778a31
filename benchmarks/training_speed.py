"""
MIRL beside SB3's DQN: environment steps per second of training, and the time of its parts. Same hyper-parameters, threads,
seed and environment; the models take turns in one process, and medians and ratios are printed. A ratio above 1 is faster
than DQN.

    python benchmarks/training_speed.py --parts
    python benchmarks/training_speed.py --compile --mixed-precision --threads 2 --work pong
    python benchmarks/training_speed.py --device cuda --work pong
"""

import argparse
import importlib
import multiprocessing
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecFrameStack
from torch.utils.flop_counter import FlopCounterMode

import sb3_mirl.common.gradient
import sb3_mirl.common.policies
from sb3_mirl import MIRL
from sb3_mirl.common.buffers import DeviceReplayBuffer
from sb3_mirl.common.gradient import flushed_denormals
from sb3_mirl.envs.minatar import MinAtarCNN

gym.register_envs(ale_py)


def processor() -> str:
    """The processor's name and family, by ``lscpu``."""
    try:
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = ("Model name", "CPU family", "Model")
    return ", ".join(f"{name} {fields[name].strip()}" for name in names if name in fields)


class Boards(gym.Env):
    """MinAtar's shapes (10 × 10 × 4 binary planes, 6 actions) at no cost: ten boards drawn in advance."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (10, 10, 4), np.float32)
        self.action_space = spaces.Discrete(6)
        self.boards = np.random.default_rng(0).integers(0, 2, (10, 10, 10, 4)).astype(np.float32)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.boards[0], {}

    def step(self, action):
        self.steps += 1
        return self.boards[self.steps % 10], float(action == self.steps % 6), self.steps >= 200, False, {}


# rl-zoo3's settings of DQN; the paper of MinAtar's
CARTPOLE = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
PONG = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "buffer_size": 10_000,
    "learning_starts": 1000,
    "target_update_interval": 1000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
}
MINATAR = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "buffer_size": 10_000,
    "learning_starts": 1000,
    "target_update_interval": 1000,
    "train_freq": 1,
    "gradient_steps": 1,
    "policy_kwargs": {"features_extractor_class": MinAtarCNN, "net_arch": [128]},
}
# policy, environment, hyper-parameters, environment steps of one turn
WORK: dict[str, tuple[str, Callable, dict, int]] = {
    "cartpole": ("MlpPolicy", lambda: "CartPole-v1", CARTPOLE, 2048),
    "minatar": ("MlpPolicy", Boards, MINATAR, 400),
    "pong": ("CnnPolicy", lambda: VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4), PONG, 160),
}


# Environment steps before the first turn, on a processor: long enough for Adam's averages to be what they are in a long run,
# denormal numbers included
WARM_UP = {"cartpole": 6000, "minatar": 2500, "pong": 1500}


class Model:
    """One of the competitors, and how its parts are called on their own."""

    def __init__(self, algorithm: type, work: str, device: str, **settings: object) -> None:
        policy, make_env, common, self.steps = WORK[work]
        jax = algorithm.__module__.startswith("sbx")
        self.model = algorithm(policy, make_env(), seed=0, **({} if jax else {"device": device}), **common, **settings)
        if not jax and isinstance(self.model.replay_buffer.observations, np.ndarray):
            # The system hands out memory when it is first touched, which takes long
            self.model.replay_buffer.observations.fill(0)
            self.model.replay_buffer.next_observations.fill(0)
        shortest = common["learning_starts"] + max(2 * common["train_freq"], 100)
        self.model.learn(max(shortest, WARM_UP[work]) if device == "cpu" else shortest)

    def end_to_end(self) -> float:
        """Environment steps per second."""
        return self.steps / seconds(lambda: self.model.learn(self.steps, reset_num_timesteps=False))

    def parts(self) -> dict[str, float]:
        """Milliseconds of each part."""
        model, env = self.model, self.model.get_env()
        obs = env.reset()
        actions = np.zeros(env.num_envs, dtype=np.int64)
        transition = obs, obs, actions, np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=bool), [{}] * env.num_envs
        model.learn(model.train_freq.frequency, reset_num_timesteps=False)  # continues after the reset above
        times = {
            "act": seconds(lambda: model.predict(obs, deterministic=False), 100),
            "environment step": seconds(lambda: env.step(actions), 20),
            "replay add": seconds(lambda: model.replay_buffer.add(*transition), 20),
            "replay sample": seconds(lambda: model.replay_buffer.sample(model.batch_size), 20),
            "gradient step": seconds(lambda: model.train(20, model.batch_size)) / 20,
            "target update": seconds(self.update_target, 20),
        }
        model._last_obs = env.reset()
        times["clipping and optimiser"] = seconds(self.clip_and_optimise, 20)
        rest = times["gradient step"] - times["replay sample"] - times["clipping and optimiser"]
        return {part: 1e3 * time for part, time in {**times, "forward and backward": rest}.items()}

    def clip_and_optimise(self) -> None:
        optimizer = self.model.policy.optimizer
        with flushed_denormals() if isinstance(self.model, MIRL) else nullcontext():
            th.nn.utils.clip_grad_norm_(self.model.policy.parameters(), self.model.max_grad_norm)
            optimizer.step()

    def update_target(self) -> None:
        polyak_update(self.model.q_net.parameters(), self.model.q_net_target.parameters(), self.model.tau)

    def floor(self) -> str:
        """How long the matrix products and convolutions of a gradient step would take at the rate of a large product."""
        with FlopCounterMode(display=False) as counter:
            self.model.train(1, self.model.batch_size)
        a = th.randn(512, 512, device=self.model.device)
        multiply = lambda: (a @ a).sum().item()  # noqa: E731
        multiply()
        rate = 2 * 512**3 / min(seconds(multiply) for _ in range(20))
        flops = counter.get_total_flops()
        return f"{flops / 1e6:.1f} MFLOP at {rate / 1e9:.0f} GFLOP/s: {1e3 * flops / rate:.2f} ms"


# What each technique is replaced by where it is left out: module, name, plain code
TECHNIQUES: dict[str, list[tuple[ModuleType, str, Any]]] = {
    "flushing": [
        (sb3_mirl.common.gradient, "flushed_denormals", nullcontext),
        (sb3_mirl.common.gradient, "clear_tiny_averages", lambda optimizer: None),
    ],
    "channels-last": [(sb3_mirl.common.policies, "channels_last", lambda images: images)],
    "fused": [(sb3_mirl.common.policies, "_can_be_fused", lambda optimizer, kwargs: False)],
}


def competitors(args: argparse.Namespace) -> dict[str, tuple[type, dict]]:
    """By name: algorithm and arguments."""
    models: dict[str, tuple[type, dict]] = {"DQN": (DQN, {}), "MIRL": (MIRL, {})}
    if args.compile:
        models["MIRL, compiled"] = (MIRL, {"compile_update": True})
    if args.mixed_precision:
        models["MIRL, bf16"] = (MIRL, {"mixed_precision": True})
    if args.compile and args.mixed_precision:
        models["MIRL, compiled, bf16"] = (MIRL, {"compile_update": True, "mixed_precision": True})
    if args.device != "cpu":
        kw = {"compile_update": args.compile, "replay_buffer_class": DeviceReplayBuffer}
        models["MIRL, replay on the device"] = (MIRL, kw)
    if args.sbx:
        models["SBX's DQN"] = (importlib.import_module("sbx").DQN, {})
    return models


def measure(work: str, args: argparse.Namespace) -> None:
    models = {name: Model(algorithm, work, args.device, **kw) for name, (algorithm, kw) in competitors(args).items()}
    results: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.turns):
        for name, model in models.items():
            results.setdefault("steps/s", {}).setdefault(name, []).append(model.end_to_end())
        for name, model in models.items():
            for part, value in (model.parts() if args.parts and name != "SBX's DQN" else {}).items():
                results.setdefault(f"{part}, ms", {}).setdefault(name, []).append(value)
    for part, by_model in results.items():
        values = {name: np.array(by_model.get(name, [np.nan] * args.turns)) for name in models}
        cells = [f"{np.median(times):.3g}" for times in values.values()]
        ratios = [times / values["DQN"] for name, times in values.items() if name != "DQN"]
        faster = [f"{np.median(ratio if part == 'steps/s' else 1 / ratio):.2f}" for ratio in ratios]
        print(f"| {work} | {part} | " + " | ".join(cells + faster) + " |", flush=True)
    print(f"| {work} | floor of a gradient step | {models['MIRL'].floor()} |" + " |" * (2 * len(models) - 2), flush=True)


def peak_memory(work: str, name: str, args: argparse.Namespace) -> float:
    """Gigabytes that a process of its own held at most."""
    algorithm, kw = competitors(args)[name]
    Model(algorithm, work, args.device, **kw).end_to_end()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def seconds(function: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        function()
    if th.cuda.is_available():
        th.cuda.synchronize()
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--compile", action="store_true", help="MIRL(compile_update=True) as well; needs a C++ compiler")
    parser.add_argument("--mixed-precision", action="store_true", help="MIRL(mixed_precision=True) as well")
    parser.add_argument("--sbx", action="store_true", help="SBX's DQN (JAX) as well; needs `pip install sbx-rl`")
    parser.add_argument("--parts", action="store_true", help="the time of each part as well")
    parser.add_argument("--memory", action="store_true", help="peak memory of each, in a process of its own, instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="few steps: whether everything runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--without", choices=list(TECHNIQUES), help="leave out one of the techniques that speed MIRL up")
    args = parser.parse_args()
    if args.sbx and "minatar" in args.work:
        parser.error("--sbx: SBX cannot take minatar's network, only its own: add --work cartpole pong")
    for replacement in TECHNIQUES.get(args.without, []):
        setattr(*replacement)
    if args.quick:
        for work in args.work:
            WORK[work] = (*WORK[work][:3], 256)
            WARM_UP[work] = 0
    th.set_num_threads(args.threads)
    # JAX takes all processors unless it has fewer; with as many as threads, everybody has the same
    if hasattr(os, "sched_setaffinity") and args.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    names = list(competitors(args))
    if args.memory:
        print("| work | " + " | ".join(f"{name}, GB" for name in names) + " |\n|---|" + "---:|" * len(names))
        for work in args.work:
            cells = []
            for name in names:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    cells.append(f"{process.submit(peak_memory, work, name, args).result():.2f}")
            print(f"| {work} | " + " | ".join(cells) + " |", flush=True)
        return
    print(f"{processor() if args.device == 'cpu' else th.cuda.get_device_name()}; {args.threads} thread(s)\n")
    print("| work | part | " + " | ".join([*names, *(f"{name}: ratio" for name in names[1:])]) + " |")
    print("|---|---|" + "---:|" * (2 * len(names) - 1))
    for work in args.work:
        measure(work, args)


if __name__ == "__main__":
    main()
