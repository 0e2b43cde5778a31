"""Random MDPs for the tests of the exact tools, and the equations in plain NumPy."""

import numpy as np

from sb3_mirl.tabular.solvers import soft_value_iteration


class RandomMdp:
    """A random MDP with a random prior and first state."""

    def __init__(self, seed, n_states, n_actions, ends):
        rng = np.random.default_rng(seed)
        self.transition = rng.dirichlet(np.full(n_states, 0.3), (n_states, n_actions))
        if ends:
            self.transition *= rng.uniform(0.0, 0.95, (n_states, n_actions, 1))
        self.reward = rng.normal(size=(n_states, n_actions))
        self.prior = rng.dirichlet(np.ones(n_actions)) * 0.99 + 0.01 / n_actions
        self.initial = rng.dirichlet(np.ones(n_states))
        self.rng = rng

    def solve(self, gamma, beta):
        return soft_value_iteration(self.transition, self.reward, gamma, beta, self.prior)


def log_mean_exp(q, prior, beta):
    """m(Q), in plain NumPy."""
    peak = q.max(axis=-1, keepdims=True)
    return peak[..., 0] + np.log((prior * np.exp(beta * (q - peak))).sum(axis=-1)) / beta


def kl(policy, prior):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(policy > 0, policy * np.log(policy / prior), 0.0).sum(axis=-1)
