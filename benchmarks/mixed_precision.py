"""
Does ``mixed_precision=True`` learn as well? Trains MIRL with and without it on the same seeds, on CartPole-v1 (shipped
hyper-parameters, two hidden layers) and on MinAtar's Breakout (a convolution, six actions), evaluates without exploration
during training, and prints for each the mean return over the whole curve and over its last quarter, with the difference and
its 95% interval (Student's t over the seeds' differences).

    pip install --no-deps minatar        # its own requirements are for drawing only
    python benchmarks/mixed_precision.py --jobs 2

Finished runs in the folder are skipped.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import scipy.stats
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_mirl import MIRL
from sb3_mirl.envs.minatar import MinAtarCNN


def minatar() -> gym.Env:
    space = spaces.Box(0, 1, (10, 10, 4), np.float32)
    env = gym.wrappers.TransformObservation(gym.make("MinAtar/Breakout-v0"), lambda obs: obs.astype(np.float32), space)
    return gym.wrappers.TimeLimit(env, 1000)


# As in hyperparams/mirl.yml
CARTPOLE = {
    "policy": "MlpPolicy",
    "learning_rate": lambda progress: 2.3e-3 * progress,
    "batch_size": 128,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.995,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.1,
    "prior_lr": 1e-4,
    "beta_schedule": "linear",
    "beta_init": 0.1,
    "beta_lr": 4e-4,
    "beta_max": 10,
    "loss": "mse",
    "policy_kwargs": {"net_arch": [128, 128]},
}
BREAKOUT = {
    "policy": "MlpPolicy",
    "learning_rate": 3e-4,
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 5000,
    "target_update_interval": 1000,
    "train_freq": 2,
    "exploration_fraction": 0.3,
    "exploration_final_eps": 0.05,
    "prior_lr": 1e-5,
    "beta_schedule": "linear",
    "beta_init": 1.0,
    "beta_lr": 1e-3,
    "beta_max": 50,
    "loss": "mse",
    "policy_kwargs": {"features_extractor_class": MinAtarCNN, "net_arch": [128]},
}
# environment, settings, steps
WORK = {
    "CartPole-v1": (lambda: gym.make("CartPole-v1"), CARTPOLE, 50_000),
    "MinAtar/Breakout-v0": (minatar, BREAKOUT, 50_000),
}
EVALUATIONS, EPISODES = 20, 10


def run(work: str, mixed_precision: bool, seed: int, folder: Path) -> list[float]:
    """Mean returns of the evaluations during one training."""
    file = folder / f"{work.replace('/', '_')}_{'bf16' if mixed_precision else 'float32'}_{seed}.json"
    if not file.exists():
        th.set_num_threads(1)
        make_env, settings, steps = WORK[work]
        evaluation_env = Monitor(make_env())
        evaluation_env.reset(seed=1_000_000 + seed)
        callback = EvalCallback(
            evaluation_env,
            n_eval_episodes=EPISODES,
            eval_freq=steps // EVALUATIONS,
            log_path=str(file.with_suffix("")),  # without it the results are not kept
            verbose=0,
        )
        model = MIRL(env=make_env(), seed=seed, device="cpu", mixed_precision=mixed_precision, **settings)
        model.learn(steps, callback=callback)
        returns = [float(np.mean(results)) for results in callback.evaluations_results]
        file.write_text(json.dumps(returns))
    return json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("logs/mixed_precision"))
    args = parser.parse_args()
    jobs = [(work, mixed, seed) for work in args.work for seed in range(args.seeds) for mixed in (False, True)]
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = {job: pool.submit(run, *job, args.folder) for job in jobs}
        curves = {job: np.array(future.result()) for job, future in futures.items()}
    print("| environment | mean return of | float32 | bf16 | difference | 95% interval |\n|---|---|---:|---:|---:|---|")
    for work in args.work:
        for name, part in (("the whole curve", slice(None)), ("its last quarter", slice(-EVALUATIONS // 4, None))):
            plain, mixed = (
                np.array([curves[work, m, seed][part].mean() for seed in range(args.seeds)]) for m in (False, True)
            )
            interval = scipy.stats.ttest_rel(mixed, plain).confidence_interval()
            print(
                f"| {work} | {name} | {plain.mean():.1f} | {mixed.mean():.1f} | {(mixed - plain).mean():+.1f} "
                f"| [{interval.low:+.1f}, {interval.high:+.1f}] |"
            )


if __name__ == "__main__":
    main()
