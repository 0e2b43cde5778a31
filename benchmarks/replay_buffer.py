"""
``FrameReplayBuffer`` beside SB3's ``ReplayBuffer``: time to add and to sample Atari transitions (interleaved, medians and
ratios), and the resident memory of a full buffer.

    python benchmarks/replay_buffer.py                    # a million transitions in ours: needs 8 GB, takes minutes
"""

import argparse
import time

import numpy as np
import psutil
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_mirl.common.buffers import FrameReplayBuffer

SPACE, ACTIONS = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)


def transitions(n, episode_length=500, seed=0):
    """Stacks of random frames, as VecFrameStack makes them: (obs, next_obs, action, reward, done, infos)."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (1, 1, 84, 84), dtype=np.uint8)
    stack = np.zeros((1, 4, 84, 84), np.uint8)
    for k in range(n):
        new = np.concatenate([stack[:, 1:], frame], axis=1)
        done = k % episode_length == episode_length - 1
        yield stack, new, np.array([k % 6]), np.array([0.0]), np.array([done]), [{}]
        # All frames differ, without the cost of random numbers
        frame = np.roll(frame, 7, axis=-1) + np.uint8(rng.integers(1, 255))
        stack = np.concatenate([np.zeros_like(new[:, 1:]), frame], axis=1) if done else new


def compare_speed(n: int, repeats: int) -> None:
    buffers = {
        "SB3": ReplayBuffer(n, SPACE, ACTIONS, device="cpu"),
        "ours": FrameReplayBuffer(n, SPACE, ACTIONS, device="cpu"),
    }
    seconds = {(name, work): [] for name in buffers for work in ("add", "sample 32", "sample 256")}
    for transition in transitions(2 * n):  # the second half overwrites
        for name, buffer in buffers.items():
            start = time.perf_counter()
            buffer.add(*transition)
            seconds[name, "add"].append(time.perf_counter() - start)
    for _ in range(repeats):
        for name, buffer in buffers.items():
            for batch_size in (32, 256):
                start = time.perf_counter()
                buffer.sample(batch_size)
                seconds[name, f"sample {batch_size}"].append(time.perf_counter() - start)
    print(f"| work ({n:,} transitions) | SB3, µs | ours, µs | SB3 / ours |\n|---|---:|---:|---:|")
    for work in ("add", "sample 32", "sample 256"):
        theirs, ours = (np.median(seconds[name, work]) * 1e6 for name in ("SB3", "ours"))
        print(f"| {work} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.2f} |")


def measure_memory(n: int) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = FrameReplayBuffer(n, SPACE, ACTIONS, device="cpu")
    for transition in transitions(n + n // 20):
        buffer.add(*transition)
    taken = process.memory_info().rss - before
    theirs = n * 2 * int(np.prod(SPACE.shape))
    print(f"\n{n:,} transitions: {taken / 1e9:.2f} GB resident; the observations of SB3's buffer alone: {theirs / 1e9:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=20_000, help="for the times; SB3's buffer holds them too")
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--memory", type=int, default=1_000_000, help="transitions for the memory; 0: leave it out")
    args = parser.parse_args()
    th.set_num_threads(1)
    compare_speed(args.transitions, args.repeats)
    if args.memory:
        measure_memory(args.memory)


if __name__ == "__main__":
    main()
