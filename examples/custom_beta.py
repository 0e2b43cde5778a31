"""
A custom rule for β: subclass ``BetaUpdateCallback``, which updates β, and pass an instance to ``learn``.

Here β grows with the square of the share of the run that is done, whatever the errors are.

    python examples/custom_beta.py     # about a minute
"""

import argparse

from sb3_mirl import MIRL, BetaUpdateCallback


class GrowingBeta(BetaUpdateCallback):
    """β = beta_max · (share of the run that is done)²."""

    def _on_step(self):
        done = self.model.num_timesteps / self.locals["total_timesteps"]
        self.beta.fill_(self.model.beta_max * min(done, 1.0) ** 2)
        return True

    def _on_gradient_step(self, squared_td_error):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    args = parser.parse_args()

    for callback in (BetaUpdateCallback(), GrowingBeta()):
        model = MIRL(
            "MlpPolicy",
            "CartPole-v1",
            learning_rate=1e-3,
            batch_size=64,
            learning_starts=500,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            beta_max=10,
            buffer_size=50_000,
            seed=0,
        )
        # It takes the place of the default rule, because it is a BetaUpdateCallback
        model.learn(args.steps, callback=callback)
        returns = [episode["r"] for episode in model.ep_info_buffer]
        print(f"{type(callback).__name__}: beta {model.beta:.3g}, last episodes {sum(returns[-10:]) / len(returns[-10:]):.0f}")


if __name__ == "__main__":
    main()
