"""
The experiment behind ``operators.MIN_SQUARED_TD_ERROR`` and the default of ``beta_max``.

β follows 1/L, and L, the mean squared TD error of one batch, can be close to 0: where everything is
predictable, or by chance. The script trains MIRL for a short while with its adaptive β, and prints

1. how small L gets, and what one gradient step then adds to β for several floors on L (α_β = 3.3e-6, the paper's);
2. how greedy π is on states of the replay, for several β: β need not exceed the value above which π does not change.

    python benchmarks/beta_limits.py            # about three minutes on one core
"""

import argparse

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_mirl import MIRL, MIRLCallback
from sb3_mirl.mirl.operators import soft_policy

PAPER_BETA_LR = 3.3e-6


class ConstantReward(gym.Env):
    """Reward 1 whatever is done, episodes of one step, one observation: L → 0."""

    observation_space, action_space = spaces.Box(1, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, True, False, {}


class Errors(MIRLCallback):
    """Collects L."""

    def __init__(self):
        super().__init__()
        self.values = []

    def _on_gradient_step(self, squared_td_error):
        self.values.append(squared_td_error.item())


def pong():
    gym.register_envs(ale_py)
    return VecFrameStack(DummyVecEnv([lambda: AtariWrapper(gym.make("PongNoFrameskip-v4"))]), 4)


CARTPOLE = {"learning_rate": 2.3e-3, "batch_size": 64, "train_freq": 256, "gradient_steps": 128, "learning_starts": 1000}
CARTPOLE |= {"target_update_interval": 10, "buffer_size": 100_000, "exploration_final_eps": 0.04, "beta_lr": 1e-3}
RUNS = {
    "constant reward": (
        ConstantReward,
        2_500,
        {"policy": "MlpPolicy", "learning_rate": 1e-3, "learning_starts": 100, "target_update_interval": 100},
    ),
    "CartPole-v1": (lambda: gym.make("CartPole-v1"), 10_000, {"policy": "MlpPolicy", **CARTPOLE}),
    "Pong": (
        pong,
        4_000,
        {"policy": "CnnPolicy", "learning_rate": 1e-4, "learning_starts": 1000, "target_update_interval": 1000},
    ),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    th.set_num_threads(1)

    floors, betas = [0.0, 1e-8, 1e-6, 1e-4], [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]
    print("| run | gradient steps | L: minimum | 0.1 % | 1 % | median | largest step of β, floor 0 | 1e-8 | 1e-6 | 1e-4 |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    greedy_rows = []
    for name, (make_env, steps, settings) in RUNS.items():
        errors = Errors()
        model = MIRL(
            env=make_env(), **{"buffer_size": 20_000, "seed": 0, "beta_schedule": "adaptive", "loss": "mse", **settings}
        )
        model.learn(steps, callback=errors)
        low = [np.min(errors.values), *np.quantile(errors.values, [0.001, 0.01, 0.5])]
        with np.errstate(divide="ignore"):
            jumps = [PAPER_BETA_LR / np.maximum(low[0], floor) for floor in floors]
        cells = " | ".join(f"{value:.2g}" for value in [*low, *jumps])
        print(f"| {name} | {len(errors.values)} | {cells} |", flush=True)

        states = model.replay_buffer.sample(1000).observations
        with th.no_grad():
            q_values = model.q_net(states)
        shares = [(soft_policy(q_values, model.policy.prior, beta).amax(1) > 0.99).double().mean() for beta in betas]
        greedy_rows.append(f"| {name} | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |")

    print("\nStates in which one action has π > 0.99, by β:\n")
    print("| run | " + " | ".join(f"{beta:g}" for beta in betas) + " |\n|---|" + "---:|" * len(betas))
    print("\n".join(greedy_rows))


if __name__ == "__main__":
    main()
