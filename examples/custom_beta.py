"""
Another rule for β: subclass the callback that owns the state, and pass an instance to ``learn``.

Here β follows the inverse of the *root* of the squared error, whose units are those of 1/reward, as β's are.

    python examples/custom_beta.py     # about a minute
"""

import argparse

from sb3_mirl import MIRL, BetaUpdateCallback


class RootMeanSquareBeta(BetaUpdateCallback):
    """β ← (1 - α) β + α / √L."""

    def _on_gradient_step(self, squared_td_error):
        target = 1 / squared_td_error.clamp(min=1e-6).sqrt()
        # A NaN must not get in: train() reports it after this gradient step
        if target.isfinite():
            self.beta.lerp_(target.double(), self.model.beta_lr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    args = parser.parse_args()

    for callback in (BetaUpdateCallback(), RootMeanSquareBeta()):
        model = MIRL(
            "MlpPolicy",
            "CartPole-v1",
            learning_rate=1e-3,
            batch_size=64,
            learning_starts=500,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            prior_lr=1e-4,
            beta_lr=1e-3,
            buffer_size=50_000,
            seed=0,
        )
        # It takes the place of the default rule, because it is a BetaUpdateCallback
        model.learn(args.steps, callback=callback)
        returns = [episode["r"] for episode in model.ep_info_buffer]
        print(f"{type(callback).__name__}: beta {model.beta:.3g}, last episodes {sum(returns[-10:]) / len(returns[-10:]):.0f}")


if __name__ == "__main__":
    main()
