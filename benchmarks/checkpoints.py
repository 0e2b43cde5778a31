"""
Costs of checkpoints: their share of the training time, and the bytes that they write. For a replay buffer of a million Atari
transitions: how long the training waits, how much is written and how much memory writing takes.

    python benchmarks/checkpoints.py                          # CartPole and Pong, checkpoints every 10,000 steps: 10 minutes
    python benchmarks/checkpoints.py --million                # needs 10 GB of memory and of disk, takes minutes
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch as th
from replay_buffer import ACTIONS, SPACE, transitions
from training_speed import WORK

from sb3_mirl import MIRL, CheckpointCallback
from sb3_mirl.common.buffers import FrameReplayBuffer
from sb3_mirl.common.resume import manifest
from sb3_mirl.common.resume.replay_log import ReplayLog

MORE_SETTINGS = {"cartpole": {}, "pong": {"buffer_size": 100_000, "replay_buffer_class": FrameReplayBuffer}}


class Written:
    """Counts the bytes of files while they are written."""

    def __init__(self) -> None:
        self.bytes = 0
        write = manifest.write_whole

        def counted(path, content):
            self.bytes += len(content)
            return write(path, content)

        manifest.write_whole = counted


class TimedCheckpoints(CheckpointCallback):
    """Notes the seconds that each checkpoint takes, and the bytes of its files."""

    def __init__(self, *args, written: Written) -> None:
        super().__init__(*args)
        self.written, self.seconds, self.bytes = written, [], []

    def _save(self) -> None:
        before, start = self.written.bytes, time.perf_counter()
        super()._save()
        self.seconds.append(time.perf_counter() - start)
        self.bytes.append(self.written.bytes - before)


def cost_of_training(work: str, every: int, times: int, written: Written) -> None:
    policy, make_env, settings, _ = WORK[work]
    model = MIRL(policy, make_env(), seed=0, **{**settings, **MORE_SETTINGS[work]})
    model.learn(settings["learning_starts"])  # what comes before learning is faster, and would flatter
    model.learning_starts = 0
    with tempfile.TemporaryDirectory() as folder:
        callback = TimedCheckpoints(every, folder, written=written)
        start = time.perf_counter()
        model.learn(times * every, callback, reset_num_timesteps=False)
        total = time.perf_counter() - start
    share = sum(callback.seconds) / (total - sum(callback.seconds))
    print(
        f"| {work} | {times * every / total:.0f} | {np.median(callback.seconds) * 1e3:.0f} "
        f"| {np.median(callback.bytes) / 1e6:.1f} | {share:.2%} |",
        flush=True,
    )


class Peak:
    """The largest resident memory, looked at every few milliseconds."""

    def __enter__(self) -> "Peak":
        self.process, self.peak, self.over = psutil.Process(), 0, False
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.over:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.005)

    def __exit__(self, *_) -> None:
        self.over = True
        self.thread.join()


def cost_of_a_million(n: int, written: Written) -> None:
    buffer = FrameReplayBuffer(n, SPACE, ACTIONS, device="cpu")
    stream = transitions(n + 200_000)
    for _ in range(n):
        buffer.add(*next(stream))
    process = psutil.Process()
    print(f"{n:,} transitions, {process.memory_info().rss / 1e9:.2f} GB resident")
    print("| new transitions | seconds | GB written | more memory meanwhile, GB |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        log = ReplayLog(Path(folder), "rl_model")
        log.begin(buffer, None)
        for n_new in (n, 10_000, 10_000, 100_000):
            if n_new < n:
                for _ in range(n_new):
                    buffer.add(*next(stream))
            before, resident, start = written.bytes, process.memory_info().rss, time.perf_counter()
            with Peak() as memory:
                entry = log.write(buffer, n_new)
                log.commit(buffer, entry)
            seconds = time.perf_counter() - start
            gigabytes = (written.bytes - before) / 1e9
            print(f"| {n_new:,} | {seconds:.2f} | {gigabytes:.2f} | {(memory.peak - resident) / 1e9:.2f} |", flush=True)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        print(f"On disk: {size / 1e9:.2f} GB, before the callback removes what is not needed any more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=MORE_SETTINGS, default=list(MORE_SETTINGS))
    parser.add_argument("--every", type=int, default=10_000, help="environment steps from one checkpoint to the next")
    parser.add_argument("--times", type=int, default=3, help="checkpoints")
    parser.add_argument("--million", action="store_true", help="a full replay buffer of Atari transitions instead")
    parser.add_argument("--size", type=int, default=1_000_000, help="transitions of --million")
    args = parser.parse_args()
    th.set_num_threads(1)
    written = Written()
    if args.million:
        cost_of_a_million(args.size, written)
        return
    print(f"Checkpoints every {args.every:,} steps, 1 thread")
    print("| work | steps/s | a checkpoint, ms | MB written | share of the training's time |\n|---|---:|---:|---:|---:|")
    for work in args.work:
        cost_of_training(work, args.every, args.times, written)


if __name__ == "__main__":
    main()
