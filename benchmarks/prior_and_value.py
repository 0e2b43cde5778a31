"""
How much ρ, and how much Q, decides what an agent does in an Atari game: ``python benchmarks/prior_and_value.py sql MODEL.zip
Krull`` plays with a model that ``sb3-mirl bench run`` has left in ``runs/`` and prints, over the states that it visits,

- β times the difference of the best and the second best Q, which is what ρ must outweigh to change a choice;
- the range of log ρ over actions;
- in how many states the choice, the largest log ρ + βQ, is that of Q alone;
- the most frequent choice.
"""

import argparse

import ale_py  # noqa: F401  registers the games
import torch as th
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_mirl.common.inputs import find_action_names
from sb3_mirl.mirl.operators import soft_policy
from sb3_mirl.zoo.register import ALGORITHMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=list(ALGORITHMS))
    parser.add_argument("model")
    parser.add_argument("game", help="Krull, RoadRunner, ...")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    th.set_num_threads(1)
    model = ALGORITHMS[args.algorithm].load(args.model, device="cpu", custom_objects={"buffer_size": 1})
    model.exploration_rate = 0.05
    env = VecFrameStack(make_atari_env(f"{args.game}NoFrameskip-v4", 1, seed=0), 4)
    observation, rows = env.reset(), []
    for _ in range(args.steps):
        with th.no_grad():
            rows.append(model.q_net(model.policy.obs_to_tensor(observation)[0])[0])
        actions, _ = model.predict(observation, deterministic=False)
        observation = env.step(actions)[0]
    values, prior = th.stack(rows), model.policy.reference_prior
    best, second = values.topk(2).values.T
    gap = model.beta * (best - second).mean()
    choice = soft_policy(values, prior, model.beta).argmax(dim=1)
    counts = choice.bincount(minlength=len(prior)) / len(choice)
    name = find_action_names(env, len(prior))[counts.argmax()]
    print(f"{args.algorithm} {args.game}: β {model.beta:.1f}, β (best Q − second) {gap:.2f}")
    same = (choice == values.argmax(dim=1)).double().mean()
    print(f"range of log ρ {(prior.max() / prior.min()).log():.2f}, choice is that of Q in {same:.0%}")
    print(f"{name} in {counts.max():.0%}")


if __name__ == "__main__":
    main()
