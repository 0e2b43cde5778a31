"""
Does a learned prior help another run? MIRL learns a game with all 18 actions of the joystick, and new runs on it begin with
the ρ that it has learned, or with the uniform one.

    python examples/transfer_prior.py  # 20 minutes; figure and source model in logs/transfer_prior/

Rewards are counted while the agents learn, exploration included, because exploration draws from ρ. Each seed has both runs,
and intervals are of their difference.

What it printed for Freeway, where a reward is a chicken that has crossed the road, 5 seeds, rewards for 1000 steps (a whole
game has 2048), 95% bootstrap intervals:

    actions from the learned ρ alone    6.9
                     uniform ρ   learned ρ   difference                by seed
    whole training        0.00        8.94   8.94 [7.36, 9.89]         6.05, 10.2, 9.87, 9.26, 9.33
    last quarter          0.00        7.69   7.69 [3.98, 10.22]        0.54, 10.22, 10.75, 7.53, 9.41

With the learned ρ, runs find rewards at once; with the uniform ρ they found none in these 15,000 steps. Most of the difference
comes from ρ itself, not from faster learning, and seed 0 lost it again. The source's 30,000 steps are not counted: the source
began with the uniform ρ and had 5.75 (10.96 in its last quarter). The experiment is small: one source model, one game, frames
of 42x42, an untuned β, five seeds (by Student's t the intervals are [6.9, 11.0] and [2.5, 12.9]). In an earlier run, β
reached --beta-max 10 after 25,000 of 40,000 steps: ρ stayed uniform, so there was nothing to transfer.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_mirl import MIRL, AtariVecEnv, FrameReplayBuffer, load_prior
from sb3_mirl.bench.scores import bootstrap, mean
from sb3_mirl.common import colors

SOURCE_SEED = 1000
BLOCKS = 20


class Rewards(BaseCallback):
    """Rewards of all games, added up at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[float] = []

    def _on_step(self) -> bool:
        self.received.append(float(self.locals["rewards"].sum()))
        return True


def make_env(game: str, seed: int, args: argparse.Namespace) -> VecEnv:
    env_id, all_actions = f"{game}NoFrameskip-v4", {"full_action_space": True}
    return VecFrameStack(AtariVecEnv(env_id, args.n_envs, seed, screen_size=args.screen_size, env_kwargs=all_actions), 4)


def train(
    env: VecEnv, steps: int, seed: int, args: argparse.Namespace, prior: np.ndarray | None = None
) -> tuple[MIRL, np.ndarray]:
    """The trained model, and the rewards for 1000 steps in each of so many equal parts of the training, [BLOCKS]."""
    model = MIRL(
        "CnnPolicy",
        env,
        learning_rate=2.5e-4,
        buffer_size=steps,
        replay_buffer_class=FrameReplayBuffer,
        learning_starts=args.learning_starts,
        target_update_interval=1000,
        # A gradient step for 4 transitions, as in the paper
        train_freq=1,
        gradient_steps=max(1, args.n_envs // 4),
        exploration_fraction=0.5,
        exploration_final_eps=0.05,
        prior_lr=1e-4,
        prior_init=prior,
        # A large β, because Q differs little between actions: the next reward may be 50 steps away. A small β keeps π near ρ
        beta_schedule="linear",
        beta_init=0.1,
        beta_lr=args.beta_max / args.source_steps,
        beta_max=args.beta_max,
        loss="mse",
        seed=seed,
    )
    rewards = Rewards()
    model.learn(steps, callback=rewards)
    blocks = np.array_split(np.array(rewards.received) * 1000 / args.n_envs, BLOCKS)
    return model, np.array([block.mean() for block in blocks])


def rewards_of(prior: np.ndarray, env: VecEnv, steps: int, seed: int) -> float:
    """Rewards for 1000 steps if every action is drawn from ρ and nothing is learned."""
    random = np.random.default_rng(seed)
    env.reset()
    n_calls = max(1, steps // env.num_envs)
    rewards = [env.step(random.choice(len(prior), size=env.num_envs, p=prior))[1].mean() for _ in range(n_calls)]
    return 1000 * float(np.mean(rewards))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="Freeway", help="game of the source model")
    parser.add_argument("--game", default="Freeway", help="game of the new runs")
    parser.add_argument("--source-steps", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=15_000, help="of each new run")
    parser.add_argument("--learning-starts", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-envs", type=int, default=8)
    parser.add_argument("--screen-size", type=int, default=42)
    parser.add_argument("--uniform-share", type=float, default=0.1)
    parser.add_argument("--beta-max", type=float, default=1000, help="the final β: β grows linearly during the source's steps")
    parser.add_argument("--folder", type=Path, default=Path("logs/transfer_prior"))
    args = parser.parse_args()

    source, curve = train(make_env(args.source, SOURCE_SEED, args), args.source_steps, SOURCE_SEED, args)
    file = source.export(args.folder / "source")
    print(
        f"source: {curve.mean():.2f} rewards for 1000 steps, {curve[-5:].mean():.2f} in the last quarter; {file}", flush=True
    )

    alone = []
    for seed in range(args.seeds):
        env = make_env(args.game, seed, args)
        alone.append(rewards_of(load_prior(file, env, args.uniform_share), env, min(args.steps, 8000), seed))
    print(f"actions from the learned ρ alone: {np.mean(alone):.2f}, by seed {np.round(alone, 2).tolist()}", flush=True)

    curves: dict[str, list[np.ndarray]] = {"uniform ρ": [], "learned ρ": []}
    for seed in range(args.seeds):
        for label in curves:
            env = make_env(args.game, seed, args)
            prior = load_prior(file, env, args.uniform_share) if label == "learned ρ" else None
            curves[label].append(train(env, args.steps, seed, args, prior)[1])
            print(f"seed {seed}, {label}: {curves[label][-1].mean():.2f}", flush=True)

    uniform, learned = (np.array(of_label) for of_label in curves.values())
    for measure, part in {"whole training": slice(None), "last quarter": slice(-5, None)}.items():
        difference = learned[:, part].mean(axis=1) - uniform[:, part].mean(axis=1)
        value, low, high = bootstrap(mean, difference[:, None])
        print(
            f"{measure}: uniform {uniform[:, part].mean():.2f}, learned {learned[:, part].mean():.2f}, "
            f"difference {value:.2f} [{low:.2f}, {high:.2f}], by seed {np.round(difference, 2).tolist()}"
        )
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    steps = (np.arange(BLOCKS) + 0.5) * args.steps / BLOCKS
    for (label, of_label), color in zip(curves.items(), (colors.BLUE, colors.VERMILION), strict=True):
        axes.plot(steps, np.transpose(of_label), color=color, alpha=0.3, linewidth=1)
        axes.plot(steps, np.mean(of_label, axis=0), color=color, label=label)
    title = f"MIRL on {args.game} with 18 actions, {args.seeds} seeds and their mean"
    axes.set(xlabel="environment steps", ylabel="rewards for 1000 steps", title=title)
    axes.legend()
    figure.savefig(args.folder / "transfer_prior.png", dpi=120)
    print(f"figure: {args.folder / 'transfer_prior.png'}")


if __name__ == "__main__":
    main()
