"""
Which seeds solve CartPole-v1 and Acrobot-v1: trains every algorithm with its shipped hyper-parameters (``dqn``: rl-zoo3's)
through the zoo's own command, evaluates without exploration the final model and the best one (``best_model.zip``, chosen by
the zoo's evaluations of 5 episodes during training), each on the same 20 new episodes, and prints a Markdown table.

    python benchmarks/classic_seeds.py --jobs 2

Finished runs in the folder of logs are skipped.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import gymnasium as gym
import numpy as np
import rl_zoo3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_mirl.zoo.command import main as sb3_mirl

# Solved: the mean return of 20 episodes is at least this
THRESHOLDS = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "MountainCar-v0": -110.0, "LunarLander-v3": 200.0}
EPISODES = 20
EVALUATION_SEED = 1_000_000


def evaluate(run_folder: Path, algorithm: str, env_id: str) -> dict[str, float]:
    """Mean returns of the final and the best model over 20 episodes, actions without exploration."""
    returns = {}
    for name, file in {"final": f"{env_id}.zip", "best": "best_model.zip"}.items():
        if not (run_folder / file).exists():
            continue  # --eval-freq -1
        env = Monitor(gym.make(env_id))
        env.reset(seed=EVALUATION_SEED)
        model = rl_zoo3.ALGOS[algorithm].load(run_folder / file, buffer_size=1, device="cpu")
        returns[name] = float(evaluate_policy(model, env, n_eval_episodes=EPISODES, deterministic=True)[0])
    return returns


def run(algorithm: str, env_id: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train and evaluate one seed, or read the result of an earlier call."""
    log_folder = args.folder / f"seed_{seed}"
    result_file = log_folder / algorithm / f"{env_id}.json"
    settings = {"hyperparams": args.hyperparams, "eval_freq": args.eval_freq}
    if result_file.exists():
        stored = json.loads(result_file.read_text())
        if stored.get("settings") != settings:
            raise ValueError(
                f"{result_file} has {stored.get('settings', 'unknown settings')}, not {settings}: choose another --folder"
            )
    else:
        log_folder.mkdir(parents=True, exist_ok=True)
        command = ["train", "--algo", algorithm, "--env", env_id, "--seed", str(seed), "--num-threads", "1", "-uuid"]
        command += ["--eval-freq", str(args.eval_freq), "--log-interval", "100", "-f", str(log_folder)]
        if args.hyperparams:
            command += ["-params", *args.hyperparams]
        with open(log_folder / f"{algorithm}_{env_id}.log", "w") as log, redirect_stdout(log):
            sb3_mirl(command)
        run_folder = max(log_folder.glob(f"{algorithm}/{env_id}_*/{env_id}.zip"), key=lambda f: f.stat().st_mtime).parent
        stored = {"settings": settings, "returns": evaluate(run_folder, algorithm, env_id)}
        result_file.write_text(json.dumps(stored))
    return stored["returns"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algos", nargs="+", default=["dqn", "sql", "sql_m", "mirl"])
    parser.add_argument("--envs", nargs="+", default=["CartPole-v1", "Acrobot-v1"], choices=list(THRESHOLDS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("logs/classic_seeds"))
    parser.add_argument("--eval-freq", type=int, default=2500, help="-1: no evaluations in training, so no best model")
    parser.add_argument("-params", "--hyperparams", nargs="+", default=[], help="overrides, as the zoo's train takes them")
    args = parser.parse_args()

    jobs = [(algo, env, seed) for env in args.envs for seed in range(args.seeds) for algo in args.algos]
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = {job: pool.submit(run, *job, args) for job in jobs}
        returns = {job: future.result() for job, future in futures.items()}

    print("| environment | algorithm | model | " + " | ".join(f"seed {s}" for s in range(args.seeds)) + " | solved |")
    print("|---|---|---|" + "---:|" * (args.seeds + 1))
    for env in args.envs:
        for algo in args.algos:
            for model in returns[algo, env, 0]:
                row = np.array([returns[algo, env, seed][model] for seed in range(args.seeds)])
                cells = " | ".join(f"{value:.0f}" for value in row)
                print(f"| {env} | {algo} | {model} | {cells} | {(row >= THRESHOLDS[env]).sum()}/{len(row)} |")


if __name__ == "__main__":
    main()
