"""
Twenty runs for the price of a few: MIRL and soft Q-learning with ten seeds each, trained jointly.

    python examples/many_seeds.py      # about two minutes
"""

import argparse

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl import MIRL, SQL, train_jointly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()

    runs = {
        algorithm: [
            algorithm("MlpPolicy", "CartPole-v1", seed=seed, learning_rate=1e-3, exploration_final_eps=0.02)
            for seed in range(args.seeds)
        ]
        for algorithm in (MIRL, SQL)
    }
    errors = train_jointly([model for models in runs.values() for model in models], args.steps)
    assert errors == [None] * len(errors), errors
    for algorithm, models in runs.items():
        returns = [evaluate_policy(model, model.get_env(), n_eval_episodes=10)[0] for model in models]
        error = np.std(returns, ddof=1) / np.sqrt(len(returns))
        print(f"{algorithm.algorithm}: mean return {np.mean(returns):.0f}, standard error over seeds {error:.0f}")


if __name__ == "__main__":
    main()
