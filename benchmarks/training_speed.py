"""
MIRL beside SB3's DQN: environment steps per second of training, and the time of its parts. Same hyper-parameters, threads,
seed and environment; the models take turns in one process, and medians and ratios are printed.

    python benchmarks/training_speed.py --work cartpole minatar pong
    python benchmarks/training_speed.py --work cartpole --compile     # MIRL(compile_update=True) as well; needs a C++ compiler
"""

import argparse
import time
from collections.abc import Callable

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_mirl import MIRL

gym.register_envs(ale_py)


class Boards(gym.Env):
    """MinAtar's shapes (10 × 10 × 4 binary planes, 6 actions) at no cost: ten boards drawn in advance."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (4, 10, 10), np.float32)
        self.action_space = spaces.Discrete(6)
        self.boards = np.random.default_rng(0).integers(0, 2, (10, 4, 10, 10)).astype(np.float32)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.boards[0], {}

    def step(self, action):
        self.steps += 1
        return self.boards[self.steps % 10], float(action == self.steps % 6), self.steps >= 200, False, {}


class MinAtarCNN(BaseFeaturesExtractor):
    """The network of Young and Tian (2019): 16 filters of 3 × 3, 128 units."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 128)
        self.layers = th.nn.Sequential(
            th.nn.Conv2d(observation_space.shape[0], 16, 3),
            th.nn.ReLU(),
            th.nn.Flatten(),
            th.nn.Linear(16 * 64, 128),
            th.nn.ReLU(),
        )

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(observations)


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
    "policy_kwargs": {
        "features_extractor_class": MinAtarCNN,
        "normalize_images": False,
        "net_arch": [],
    },
}
# policy, environment, hyper-parameters, environment steps of one turn
WORK: dict[str, tuple[str, Callable, dict, int]] = {
    "cartpole": ("MlpPolicy", lambda: "CartPole-v1", CARTPOLE, 2048),
    "minatar": ("CnnPolicy", Boards, MINATAR, 400),
    "pong": ("CnnPolicy", lambda: VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4), PONG, 160),
}


def seconds(function: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def measure(work: str, compile_update: bool, turns: int, device: str) -> None:
    policy, make_env, settings, steps = WORK[work]
    settings = {**settings, "seed": 0, "device": device}
    models = {"DQN": DQN(policy, make_env(), **settings), "MIRL": MIRL(policy, make_env(), **settings)}
    if compile_update:
        models["MIRL, compiled"] = MIRL(policy, make_env(), compile_update=True, **settings)
    for model in models.values():
        model.learn(settings["learning_starts"] + 2 * settings["train_freq"])
    parts = ("end to end, steps/s", "act, ms", "gradient step, ms", "sample, ms")
    results: dict[str, dict[str, list[float]]] = {part: {name: [] for name in models} for part in parts}
    for _ in range(turns):
        for name, model in models.items():
            duration = seconds(lambda model=model: model.learn(steps, reset_num_timesteps=False))
            results[parts[0]][name].append(steps / duration)
            obs, batch_size = model.get_env().reset(), model.batch_size
            act = seconds(lambda model=model, obs=obs: model.predict(obs, deterministic=False), 100)
            results[parts[1]][name].append(1e3 * act)
            train = seconds(lambda model=model, size=batch_size: model.train(20, size))
            results[parts[2]][name].append(1e3 * train / 20)
            sample = seconds(lambda model=model, size=batch_size: model.replay_buffer.sample(size), 20)
            results[parts[3]][name].append(1e3 * sample)
    for part, by_model in results.items():
        cells = [f"{np.median(values):.3g}" for values in by_model.values()]
        theirs = np.array(by_model["DQN"])
        faster = [np.array(values) / theirs if part == parts[0] else theirs / np.array(values) for values in by_model.values()]
        ratios = [f"{np.median(ratio):.2f}" for ratio in faster[1:]]
        print(f"| {work} | {part} | " + " | ".join(cells + ratios) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    th.set_num_threads(args.threads)
    names = ["DQN", "MIRL", *(["MIRL, compiled"] if args.compile else [])]
    print("| work | part | " + " | ".join([*names, *(f"{name}: ratio" for name in names[1:])]) + " |")
    print("|---|---|" + "---:|" * (2 * len(names) - 1))
    for work in args.work:
        measure(work, args.compile, args.turns, args.device)


if __name__ == "__main__":
    main()
