"""
``AtariVecEnv`` beside SB3's ``make_atari_env``, each with a ``VecFrameStack`` of 4: environment steps per second with random
actions. They take turns in one process; medians and the ratio are printed.

    python benchmarks/atari_env.py
    python benchmarks/atari_env.py --game Pong --n-envs 1 4 8
"""

import argparse
import time

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_mirl.envs.atari import AtariVecEnv


def steps_per_second(env: VecEnv, n_steps: int) -> float:
    actions = np.random.default_rng(0).integers(0, env.action_space.n, (n_steps, env.num_envs))
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return n_steps * env.num_envs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--n-envs", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=300, help="of one turn, in each environment")
    parser.add_argument("--turns", type=int, default=11)
    args = parser.parse_args()
    th.set_num_threads(1)
    env_id = f"{args.game}NoFrameskip-v4"
    print("| game | environments | make_atari_env, steps/s | AtariVecEnv, steps/s | ratio |\n|---|---:|---:|---:|---:|")
    for n_envs in args.n_envs:
        envs = [VecFrameStack(make(env_id, n_envs, seed=0), 4) for make in (make_atari_env, AtariVecEnv)]
        for env in envs:
            env.reset()
            steps_per_second(env, args.steps)
        speeds = np.array([[steps_per_second(env, args.steps) for env in envs] for _ in range(args.turns)])
        theirs, ours = np.median(speeds, axis=0)
        ratio = np.median(speeds[:, 1] / speeds[:, 0])
        print(f"| {args.game} | {n_envs} | {theirs:.0f} | {ours:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
