"""
A process of the local engine, with one thread. It ends when its standard input is closed, and so together with its parent.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch as th

from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.packs import run_pack


def _end_with_standard_input() -> None:
    # Not through sys.stdin: the interpreter cannot close it at exit while a thread reads from it
    while os.read(0, 1):
        pass
    os._exit(1)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of :func:`sb3_mirl.bench.local_engine.process_command`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("jobs", nargs="+", help="algorithm, environment and seed of each job")
    parser.add_argument("--save-freq", type=int)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    algorithms, envs, seeds = (args.jobs[first::3] for first in range(3))
    args.jobs = [Job(algorithm, env, int(seed)) for algorithm, env, seed in zip(algorithms, envs, seeds, strict=True)]
    return args


def main() -> int:
    """Runs the pack of jobs that the command line names."""
    args = parse()
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    th.set_num_threads(1)
    run_pack(args.jobs, args.folder, args.save_freq, args.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
