"""
MIRL on Atari from Python, with the paper's settings as far as they are known.

The full run (10 million steps) takes days on a CPU; `sb3-mirl train --algo mirl --env PongNoFrameskip-v4` does the same.

    python examples/atari_pong.py --steps 20000 --buffer-size 20000
"""

import argparse

import ale_py
import gymnasium as gym
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_mirl import MIRL, PAPER_ATARI, FrameReplayBuffer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--buffer-size", type=int, default=1_000_000, help="7.1 kB per transition once it is full")
    parser.add_argument("--learning-starts", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=5, help="of the evaluation at the end")
    args = parser.parse_args()

    gym.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4)
    settings = {**PAPER_ATARI, "buffer_size": args.buffer_size, "learning_starts": args.learning_starts}
    model = MIRL("CnnPolicy", env, replay_buffer_class=FrameReplayBuffer, seed=0, verbose=1, **settings)
    # The log shows ρ by the names of the actions: prior/NOOP, prior/FIRE, prior/RIGHT, ...
    model.learn(args.steps)
    model.save("mirl_pong")

    names = env.env_method("get_action_meanings", indices=[0])[0]
    print("prior", {name: round(float(p), 4) for name, p in zip(names, model.prior, strict=True)})
    if args.episodes:
        mean, std = evaluate_policy(model, env, n_eval_episodes=args.episodes, deterministic=False)
        print(f"score {mean:.1f} ± {std:.1f} with ε = {model.exploration_rate:.2f}")


if __name__ == "__main__":
    main()
