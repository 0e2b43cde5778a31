"""
Finite Markov decision processes (MDPs) as checked arrays, and the linear systems of their Markov chains.

Shapes: S states, A actions. All arrays are NumPy's, float64. An MDP is ``transition`` [S, A, S], P(s'|s,a), and ``reward``
[S, A]. A row of ``transition`` may sum to less than 1: the missing mass is the probability that the episode ends.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: A row of ``transition`` that sums to 1 within this tolerance has no termination: the difference is rounding
TERMINATION_TOLERANCE = 1e-9
#: LU factorisation loses half of the digits or more for chains with more steps than this on average
MAX_STEPS_FOR_LU = 1e6


class Mdp(NamedTuple):
    """A checked MDP, made by :meth:`from_arrays`. Rows of ``transition`` sum to 1 - ``termination``."""

    transition: np.ndarray  # [S, A, S]
    reward: np.ndarray  # [S, A]
    termination: np.ndarray  # [S, A]
    gamma: float

    @classmethod
    def from_arrays(cls, transition: ArrayLike, reward: ArrayLike, gamma: float) -> "Mdp":
        """
        Check the arrays and convert them to float64.

        :param transition: P(s'|s,a), [S, A, S]
        :param reward: r(s,a), [S, A]
        :param gamma: γ in [0, 1]
        :raises ValueError: if the arrays are not an MDP
        """
        transition, reward = np.asarray(transition, dtype=np.float64), np.asarray(reward, dtype=np.float64)
        if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or transition.size == 0:
            raise ValueError(f"transition must have the shape [S, A, S], got {transition.shape}")
        if reward.shape != transition.shape[:2]:
            raise ValueError(f"reward must have the shape [S, A] = {transition.shape[:2]} of transition, got {reward.shape}")
        if not np.isfinite(reward).all():
            raise ValueError(f"reward must be finite, got {reward[~np.isfinite(reward)][0]}")
        if not (transition >= 0.0).all():  # also true for NaN
            state, action, _ = np.argwhere(~(transition >= 0.0))[0]
            raise ValueError(f"transition must not be negative, got {transition[state, action].min()} in [{state}, {action}]")
        sums = transition.sum(axis=2)
        if (sums > 1.0 + TERMINATION_TOLERANCE).any():
            state, action = np.unravel_index(sums.argmax(), sums.shape)
            raise ValueError(f"rows of transition must sum to at most 1, got {sums.max()} in [{state}, {action}]")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
        complete = sums >= 1.0 - TERMINATION_TOLERANCE
        transition = transition / np.where(complete, sums, 1.0)[:, :, None]
        return cls(transition, reward, np.where(complete, 0.0, 1.0 - sums), float(gamma))

    @property
    def leaving(self) -> np.ndarray:
        """Probability that the episode ends if each step is also the last one with probability 1 - γ, [S, A]."""
        return 1.0 - self.gamma + self.gamma * self.termination

    def action_values(self, base: float, relative: np.ndarray) -> np.ndarray:
        """r + γ P v - base for v = base + relative, [S, A]."""
        return self.reward + self.gamma * self.transition @ relative - self.leaving * base

    def never_ending(self, allowed: np.ndarray) -> np.ndarray:
        """
        The states [S] from which the episode cannot end.

        :param allowed: which actions may be taken, [S, A]
        """
        return self.shortest_way_out(allowed).sum(axis=1) == 0.0

    def shortest_way_out(self, allowed: np.ndarray) -> np.ndarray:
        """
        The policy [S, A] that ends the episode in the fewest steps. Rows of states from which it cannot end are zero.

        :param allowed: which actions may be taken, [S, A]
        """
        gain = np.where(allowed, self.termination, 0.0)
        policy = np.zeros(allowed.shape)
        open_states = np.ones(len(policy), dtype=bool)
        while (closing := open_states & (gain > 0.0).any(axis=1)).any():
            policy[closing, gain[closing].argmax(axis=1)] = 1.0
            open_states &= ~closing
            gain = gain + np.where(allowed, self.transition[:, :, closing].sum(axis=2), 0.0)
        return policy

    def check_episodes_end(self, allowed: np.ndarray) -> None:
        """With γ = 1, a value exists only if the episode can end from every state."""
        if self.gamma == 1.0 and (open_states := self.never_ending(allowed)).any():
            raise ValueError(
                f"gamma=1: the value does not exist, because episodes never end from state {np.argmax(open_states)} "
                f"({open_states.sum()} such states); take gamma < 1"
            )


class Chain(NamedTuple):
    """
    The Markov chain of a policy, in which each step is also the last one with probability 1 - γ.

    Linear systems are solved by LU factorisation. Long chains are solved by the elimination of Grassmann, Taksar and Heyman
    (*Operations Research* 33, 1985): it takes the probability of leaving a state instead of 1 minus the diagonal. Nothing is
    subtracted, so that no digits cancel even if 1 - γ is tiny.
    """

    steps: np.ndarray  # [S, S], γ times the probability of a step
    leaving: np.ndarray  # [S], probability that the chain ends: 1 minus the sum of a row of `steps`
    gamma: float

    @classmethod
    def from_policy(cls, mdp: Mdp, policy: np.ndarray) -> "Chain":
        """The chain of ``policy`` [S, A] in ``mdp``."""
        return cls(mdp.gamma * state_transition(policy, mdp.transition), (policy * mdp.leaving).sum(axis=1), mdp.gamma)

    def value(self, gain: np.ndarray) -> tuple[float, np.ndarray]:
        """
        Solve v = gain + steps v, for v and ``gain`` of shape [S].

        :return: a base value and the difference of each state from it, [S]. Values of long chains are large and differ by
            little; the differences are computed separately and keep their digits
        :raises ValueError: if the values are not finite
        """
        if self._is_short():
            return 0.0, self._check_finite(np.linalg.solve(np.eye(len(gain)) - self.steps, gain))
        factors, leaving, out = self._eliminate()

        def solve(right: np.ndarray) -> tuple[float, np.ndarray]:
            v = right.copy()
            for k in reversed(range(len(v))):
                v[:k] += factors[:k, k] * v[k]
            base, v[0] = float(v[0] / out[0]), 0.0
            for k in range(1, len(v)):
                v[k] = (v[k] - leaving[k] * base + factors[k, :k] @ v[:k]) / out[k]
            return base, v

        with np.errstate(all="ignore"):
            base, relative = solve(gain)
            # One step of iterative refinement removes the rounding error of the base
            more, relative_more = solve(gain - self.leaving * base + self.steps @ relative - relative)
        return base, self._check_finite(relative + more + relative_more)

    def visits(self, initial: np.ndarray) -> np.ndarray:
        """
        Solve d = initial + d steps: d is the expected number of visits of each state, [S].

        :raises ValueError: if the numbers are not finite
        """
        if self._is_short():
            visits = self._check_finite(np.linalg.solve(np.eye(len(initial)) - self.steps.T, initial))
            return visits.clip(min=0.0)  # rounding leaves tiny negative numbers
        factors, _, out = self._eliminate()
        d = initial.copy()
        with np.errstate(all="ignore"):
            for k in reversed(range(len(d))):
                d[:k] += d[k] / out[k] * factors[k, :k]
            for k in range(len(d)):
                d[k] = d[k] / out[k] + d[:k] @ factors[:k, k]
        return self._check_finite(d)

    def _is_short(self) -> bool:
        if self.leaving.min() * MAX_STEPS_FOR_LU >= 1.0:
            return True
        try:
            length = np.linalg.solve(np.eye(len(self.leaving)) - self.steps, np.ones(len(self.leaving)))
        except np.linalg.LinAlgError:
            return False
        return bool((length > 0.99).all() and length.max() <= MAX_STEPS_FOR_LU)

    def _eliminate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Eliminate the states one by one, from the last.

        :return: the factors [S, S]; and for each state, when its turn comes, the probability that the chain ends [S] and that
            the state is left [S]
        """
        factors, leaving, out = self.steps.copy(), self.leaving.copy(), np.empty(len(self.leaving))
        with np.errstate(all="ignore"):
            for k in reversed(range(len(out))):
                out[k] = factors[k, :k].sum() + leaving[k]
                factors[:k, k] /= out[k]
                factors[:k, :k] += factors[:k, k, None] * factors[k, :k]
                leaving[:k] += factors[:k, k] * leaving[k]
        return factors, leaving, out

    def _check_finite(self, solution: np.ndarray) -> np.ndarray:
        if not np.isfinite(solution).all():
            raise ValueError(f"gamma={self.gamma:g}: the values are too large for float64, or episodes too long")
        return solution


def state_transition(policy: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Σ_a π(a|s) P(s'|s,a), [S, S]."""
    return (policy[:, None, :] @ transition)[:, 0, :]


def as_distribution(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """
    Check a probability distribution over the last axis and convert it to float64.

    :param name: the argument's name, for errors
    :param values: the probabilities
    :param shape: the shape that they must have
    :raises ValueError: if they are not a distribution of that shape
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {values.shape}")
    sums = values.sum(axis=-1)
    if not (values >= 0.0).all() or not np.allclose(sums, 1.0, rtol=0.0, atol=1e-9):
        raise ValueError(f"{name} must not be negative and sum to 1, got {values if values.ndim == 1 else sums}")
    return values / sums[..., None]


def check_beta(beta: float) -> float:
    """The inverse temperature β as a float, after checking that it lies in [0, ∞]."""
    if not beta >= 0.0:
        raise ValueError(f"beta must lie in [0, ∞], got {beta!r}")
    return float(beta)
