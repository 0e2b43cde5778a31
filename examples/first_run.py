"""
A first run: MIRL learns CartPole-v1, is evaluated, saved and loaded again.

    python examples/first_run.py       # about two minutes
"""

import argparse

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl import MIRL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    args = parser.parse_args()

    model = MIRL(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=lambda progress: 2.3e-3 * progress,
        batch_size=128,
        gamma=0.995,
        learning_starts=1000,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_final_eps=0.1,
        prior_lr=1e-4,
        # β = 0.1 + 4e-4 · step, at most 10
        beta_schedule="linear",
        beta_init=0.1,
        beta_lr=4e-4,
        beta_max=10,
        loss="mse",
        buffer_size=100_000,
        policy_kwargs={"net_arch": [128, 128]},
        verbose=1,
        seed=0,
    )
    model.learn(args.steps, log_interval=50)

    mean, std = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    print(f"return {mean:.1f} ± {std:.1f}, prior {model.prior}, beta {model.beta:.2f}")

    model.save("mirl_cartpole")
    loaded = MIRL.load("mirl_cartpole")
    obs = model.get_env().reset()
    print("action", loaded.predict(obs, deterministic=True)[0], "of the policy", loaded.policy.action_probabilities(obs))


if __name__ == "__main__":
    main()
