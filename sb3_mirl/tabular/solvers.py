"""
MIRL without function approximation: exact solutions of a known MDP, and the tabular learners of the paper.

Source: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019.

Shapes: S states, A actions, R runs of the learners. An MDP is ``transition`` [S, A, S], P(s'|s,a), whose rows may sum to less
than 1, the missing mass being termination, worth 0; and ``reward`` [S, A]. All arrays are NumPy's, float64.
Symbols: as in ``operators.py``; ν₀ is the distribution of the first state, ``state_distribution`` is d(s).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch as th
from numpy.typing import ArrayLike

from sb3_mirl.envs.gridworld import Outcomes
from sb3_mirl.mirl.operators import kl_divergence, soft_policy, soft_value

# A row of `transition` that sums to 1 within this has no termination: the difference is the rounding of a sum
_TERMINATION = 1e-9
# Policy iteration takes about ten rounds; more than this many only where it cannot converge
_MAX_ROUNDS = 1000
_ROUNDING = float(np.finfo(np.float64).eps)
# Chains that last longer on average are solved by elimination without subtraction: LU would lose half of the digits or more
_LONGEST_FOR_LU = 1e6
# With γ = 1 a value adds up the rewards of so many steps at most: with more of them it cannot be told from an infinite one
_MOST_STEPS = 1e10
_SMALLEST_PRIOR = 1e-300
# Where β is less, log1p and expm1 keep the digits that log and exp would lose
_SMALL_BETA = 1e-2
# Random numbers are drawn for this many steps at a time
_BLOCK = 512


class SoftOptimum(NamedTuple):
    """Fixed point of the soft Bellman equation for one ρ and one β."""

    q: np.ndarray
    """Q(s,a), [S, A]"""
    v: np.ndarray
    """V(s), [S]"""
    policy: np.ndarray
    """π(a|s), [S, A]"""


class PriorOptimum(NamedTuple):
    """Where the alternation between the best policy and the best prior ended."""

    prior: np.ndarray
    """ρ(a), [A]"""
    q: np.ndarray
    """Q(s,a) for that ρ, [S, A]"""
    v: np.ndarray
    """V(s), [S]"""
    policy: np.ndarray
    """π(a|s), [S, A]"""
    objective: np.ndarray
    """Σ_s ν₀(s) V(s) at every iteration, [iterations]; it never falls"""
    converged: bool
    """Whether ρ is a fixed point to ``tolerance``; if not, ``max_iterations`` ended the alternation"""


class _Mdp(NamedTuple):
    """A checked MDP. Rows of ``transition`` sum to 1 - ``termination``."""

    transition: np.ndarray  # [S, A, S]
    reward: np.ndarray  # [S, A]
    termination: np.ndarray  # [S, A]
    gamma: float

    @classmethod
    def of(cls, transition: ArrayLike, reward: ArrayLike, gamma: float) -> "_Mdp":
        """The arrays as float64, after checking that they are an MDP."""
        transition, reward = np.asarray(transition, dtype=np.float64), np.asarray(reward, dtype=np.float64)
        if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or transition.size == 0:
            raise ValueError(f"transition must have the shape [S, A, S], got {transition.shape}")
        if reward.shape != transition.shape[:2]:
            raise ValueError(f"reward must have the shape [S, A] = {transition.shape[:2]} of transition, got {reward.shape}")
        if not np.isfinite(reward).all():
            raise ValueError(f"reward must be finite, got {reward[~np.isfinite(reward)][0]}")
        if not (transition >= 0.0).all():  # not: any below 0, which NaN is not
            state, action, _ = np.argwhere(~(transition >= 0.0))[0]
            raise ValueError(f"transition must not be negative, got {transition[state, action].min()} in [{state}, {action}]")
        sums = transition.sum(axis=2)
        if (sums > 1.0 + _TERMINATION).any():
            state, action = np.unravel_index(sums.argmax(), sums.shape)
            raise ValueError(f"rows of transition must sum to at most 1, got {sums.max()} in [{state}, {action}]")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
        complete = sums >= 1.0 - _TERMINATION
        transition = transition / np.where(complete, sums, 1.0)[:, :, None]
        return cls(transition, reward, np.where(complete, 0.0, 1.0 - sums), float(gamma))

    @property
    def leaving(self) -> np.ndarray:
        """Probability that an episode ends, where each step is the last one with probability 1 - γ, [S, A]."""
        return 1.0 - self.gamma + self.gamma * self.termination

    def action_values(self, base: float, relative: np.ndarray) -> np.ndarray:
        """r + γ P v - base for v = base + relative, [S, A]."""
        return self.reward + self.gamma * self.transition @ relative - self.leaving * base

    def never_ending(self, allowed: np.ndarray) -> np.ndarray:
        """
        :param allowed: which actions may be taken, [S, A]
        :return: the states from which no allowed actions lead to termination, [S]
        """
        return self.shortest_way_out(allowed).sum(axis=1) == 0.0

    def shortest_way_out(self, allowed: np.ndarray) -> np.ndarray:
        """The policy [S, A] that takes the way to termination with the fewest steps; zeros in states that have none."""
        gain = np.where(allowed, self.termination, 0.0)
        policy = np.zeros(allowed.shape)
        open_states = np.ones(len(policy), dtype=bool)
        while (closing := open_states & (gain > 0.0).any(axis=1)).any():
            policy[closing, gain[closing].argmax(axis=1)] = 1.0
            open_states &= ~closing
            gain = gain + np.where(allowed, self.transition[:, :, closing].sum(axis=2), 0.0)
        return policy

    def check_episodes_end(self, allowed: np.ndarray) -> None:
        """With γ = 1 a value exists only if every state has a way to termination."""
        if self.gamma == 1.0 and (open_states := self.never_ending(allowed)).any():
            raise ValueError(
                f"gamma=1: the value does not exist, because episodes never end from state {np.argmax(open_states)} "
                f"({open_states.sum()} such states); take gamma < 1"
            )


class _Chain(NamedTuple):
    """
    The Markov chain of a policy, which ends with probability 1 - γ after each step.

    Linear systems of it are solved by LU or, if the chain lasts long, by the elimination of Grassmann, Taksar and Heyman
    (*Operations Research* 33, 1985): it takes the probability to leave a state for 1 minus the diagonal, so that nothing is
    subtracted and no digits cancel, however small 1 - γ.
    """

    steps: np.ndarray  # [S, S], γ times the probability of a step
    leaving: np.ndarray  # [S], probability that the chain ends: 1 minus the sum of a row of `steps`
    gamma: float

    @classmethod
    def of(cls, mdp: _Mdp, policy: np.ndarray) -> "_Chain":
        leaving = (policy * mdp.leaving).sum(axis=1)
        return cls(mdp.gamma * _transition_of(policy, mdp.transition), leaving, mdp.gamma)

    def value(self, gain: np.ndarray) -> tuple[float, np.ndarray]:
        """
        The solution v [S] of v = gain + steps v, as a number and what is to be added to it in each state. Where the chain
        lasts long, values are large and differ by little: the differences have digits of their own.
        """
        if self._is_short():
            return 0.0, self._checked(np.linalg.solve(np.eye(len(gain)) - self.steps, gain))
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
            # Once more for what is left by the rounding of the base
            more, relative_more = solve(gain - self.leaving * base + self.steps @ relative - relative)
        return base, self._checked(relative + more + relative_more)

    def visits(self, initial: np.ndarray) -> np.ndarray:
        """The solution d [S] of d = initial + d steps: the expected number of visits."""
        if self._is_short():
            return self._checked(np.linalg.solve(np.eye(len(initial)) - self.steps.T, initial))
        factors, _, out = self._eliminate()
        d = initial.copy()
        with np.errstate(all="ignore"):
            for k in reversed(range(len(d))):
                d[:k] += d[k] / out[k] * factors[k, :k]
            for k in range(len(d)):
                d[k] = d[k] / out[k] + d[:k] @ factors[:k, k]
        return self._checked(d)

    def _is_short(self) -> bool:
        if self.leaving.min() * _LONGEST_FOR_LU >= 1.0:
            return True
        try:
            length = np.linalg.solve(np.eye(len(self.leaving)) - self.steps, np.ones(len(self.leaving)))
        except np.linalg.LinAlgError:
            return False
        return bool((length > 0.99).all() and length.max() <= _LONGEST_FOR_LU)

    def _eliminate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Takes out state after state, from the last: the factors [S, S] and, when its turn comes, each state's probability that
        the chain ends [S] and that the state is left [S].
        """
        factors, leaving, out = self.steps.copy(), self.leaving.copy(), np.empty(len(self.leaving))
        with np.errstate(all="ignore"):
            for k in reversed(range(len(out))):
                out[k] = factors[k, :k].sum() + leaving[k]
                factors[:k, k] /= out[k]
                factors[:k, :k] += factors[:k, k, None] * factors[k, :k]
                leaving[:k] += factors[:k, k] * leaving[k]
        return factors, leaving, out

    def _checked(self, solution: Any) -> Any:
        if not np.isfinite(solution).all():
            raise ValueError(f"gamma={self.gamma:g}: the values are too large for float64, or episodes too long")
        return solution


def _as_distribution(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """A probability distribution over the last axis, as float64."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {values.shape}")
    if not (values >= 0.0).all() or not np.allclose(values.sum(axis=-1), 1.0, rtol=0.0, atol=1e-9):
        raise ValueError(
            f"{name} must not be negative and sum to 1, got {values if values.ndim == 1 else values.sum(axis=-1)}"
        )
    return values / values.sum(axis=-1, keepdims=True)


def _check_tolerance(tolerance: float) -> float:
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance must not be negative, got {tolerance!r}")
    return tolerance


def _check_beta(beta: float) -> float:
    if not beta >= 0.0:
        raise ValueError(f"beta must lie in [0, ∞], got {beta!r}")
    return float(beta)


def _transition_of(policy: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Σ_a π(a|s) P(s'|s,a), [S, S]."""
    return (policy[:, None, :] @ transition)[:, 0, :]


def _penalty(policy: np.ndarray, prior: np.ndarray, beta: float) -> np.ndarray:
    """KL(π‖ρ)/β in every state, [S]; zero if β = ∞, and for π = ρ up to rounding."""
    divergence = kl_divergence(th.from_numpy(policy), th.from_numpy(prior)).numpy()
    with np.errstate(over="ignore"):
        return np.divide(divergence, beta, out=np.zeros_like(divergence), where=divergence > 1e-24)


def evaluate_policy(
    transition: ArrayLike,
    reward: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    beta: float = np.inf,
    prior: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Exact value of a policy, with the penalty KL(π‖ρ)/β for every step if ``beta`` is finite.

    :param transition: P(s'|s,a), [S, A, S]
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]
    :param policy: π(a|s), [S, A]
    :param beta: β, in 1/reward; ∞ leaves the penalty out
    :param prior: ρ, [A]; only needed if β is finite
    :return: Q(s,a) [S, A] = r + γ P V and V(s) [S] = Σ π Q - KL(π‖ρ)/β, in units of reward
    :raises ValueError: for arrays that are no MDP or policy; if the value does not exist
    """
    mdp = _Mdp.of(transition, reward, gamma)
    n_states, n_actions = mdp.reward.shape
    policy = _as_distribution("policy", policy, (n_states, n_actions))
    if _check_beta(beta) < np.inf and prior is None:
        raise ValueError(f"prior is needed for beta={beta}, got None")
    prior = np.full(n_actions, 1.0 / n_actions) if prior is None else prior
    penalty = _penalty(policy, _as_distribution("prior", prior, (n_actions,)), beta)
    if not np.isfinite(penalty).all():
        raise ValueError(
            f"policy has an infinite penalty in state {np.argmax(~np.isfinite(penalty))} for beta={beta}, prior={prior}"
        )
    mdp.check_episodes_end(policy > 0.0)
    base, relative = _Chain.of(mdp, policy).value((policy * mdp.reward).sum(axis=1) - penalty)
    return base + mdp.action_values(base, relative), base + relative


def soft_value_iteration(
    transition: ArrayLike,
    reward: ArrayLike,
    gamma: float,
    beta: float,
    prior: ArrayLike,
    tolerance: float = 1e-10,
) -> SoftOptimum:
    """
    The fixed point of Q(s,a) = r(s,a) + γ Σ P(s'|s,a) V(s'), V(s) = β⁻¹ log Σ ρ(a) exp(β Q(s,a)): the best policy for a prior.

    Solved by soft policy iteration (evaluate π exactly, then π ∝ ρ exp(βQ), as often as needed), which is Newton's method:
    about ten linear systems of S equations, whatever γ. Time grows as S²·A, and as S³ from some thousand states on; memory
    as S²·A.

    With γ = 1 the policies compared are those under which episodes surely end. The value exists if there is such a policy
    from every state, and if rewards minus penalties are positive on no cycle, where a policy would stay for ever. A sum over
    more than 1e10 steps counts as infinite.

    :param transition: P(s'|s,a), [S, A, S]; a row that sums to 1 within 1e-9 has no termination
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]; with γ = 1 there must be a way to termination under ρ from every state
    :param beta: β from 0 to ∞ included, in 1/reward
    :param prior: ρ, [A]
    :param tolerance: largest error of Q and V, in units of reward, as far as rounding allows it: the rounding of max |Q|,
        times 1/(1-γ), may be more
    :return: Q, V and π
    :raises ValueError: for arrays that are no MDP, values out of range, and γ = 1 where the value does not exist
    """
    mdp = _Mdp.of(transition, reward, gamma)
    prior = _as_distribution("prior", prior, mdp.reward.shape[1:])
    beta, tolerance = _check_beta(beta), _check_tolerance(tolerance)
    return _policy_iteration(mdp, beta, prior, _first_policy(mdp, beta, prior), tolerance)


def _first_policy(mdp: _Mdp, beta: float, prior: np.ndarray) -> np.ndarray:
    """Some policy [S, A] under which, if γ = 1, episodes do not only end, but end soon."""
    policy = np.broadcast_to(prior, mdp.reward.shape).copy()
    mdp.check_episodes_end(policy > 0.0)
    # With a small β the penalty of any other policy is beyond all measure, and ρ itself is nearly the best
    if mdp.gamma == 1.0 and beta * np.abs(mdp.reward).max(initial=np.finfo(np.float64).tiny) > 1e-3:
        return mdp.shortest_way_out(policy > 0.0)
    return policy


def _policy_iteration(mdp: _Mdp, beta: float, prior: np.ndarray, policy: np.ndarray, tolerance: float) -> SoftOptimum:
    """
    :func:`soft_value_iteration` on checked arguments, from a policy [S, A], under which episodes end if γ = 1.

    The policy is changed only where it gains more than rounding. With γ = 1 this decides whether there is a value: if
    episodes no longer end after a change, then the gains, averaged over the states where they stay, are what they earn in
    each step for ever. (Rounding might also choose between equal actions so that they do not end.)
    """
    penalty = _penalty(policy, prior, beta)
    unbounded = f"gamma=1: the value does not exist, because it grows without bound (beta={beta})"
    before = np.inf
    for _ in range(_MAX_ROUNDS):
        try:
            base, v = _Chain.of(mdp, policy).value((policy * mdp.reward).sum(axis=1) - penalty)
        except ValueError as error:
            if mdp.gamma < 1.0:
                raise
            raise ValueError(unbounded) from error
        q = mdp.action_values(base, v)
        improved, better, better_penalty = _soft_improvement(q, prior, beta)
        gain = improved - v
        size = np.maximum(np.maximum(np.abs(q), np.abs(mdp.reward))[:, prior > 0.0].max(axis=1), np.abs(v))
        rounding, residual = _ROUNDING * size.max(), np.abs(gain).max()
        # V* - v <= max gain / (1 - γ). Nothing but rounding is left where gains are small and do not fall any more
        stalled = residual <= (16 + len(v)) * rounding and residual > 0.5 * before
        if stalled or residual <= max(4.0 * rounding, tolerance * (1.0 - mdp.gamma)):
            _check_bounded(mdp, policy, penalty, unbounded)
            ends = mdp.gamma < 1.0 or not mdp.never_ending(better > 0.0).any()
            return SoftOptimum(base + q, base + improved, better if ends else policy)
        before = residual
        change = np.abs(gain) > 4.0 * rounding
        if mdp.gamma == 1.0:
            staying = mdp.never_ending(np.where(change[:, None], better, policy) > 0.0)
            if (gain[staying] > (16 + len(v)) * _ROUNDING * size[staying].max(initial=0.0)).any():
                raise ValueError(unbounded)
            change &= ~staying
        policy, penalty = np.where(change[:, None], better, policy), np.where(change, better_penalty, penalty)
    raise ValueError(f"gamma={mdp.gamma}: no fixed point within {_MAX_ROUNDS} rounds (beta={beta}, tolerance={tolerance})")


def _soft_improvement(q: np.ndarray, prior: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m(q) [S], the policy π ∝ ρ exp(βq) [S, A] and its penalty KL(π‖ρ)/β = Σ π q - m(q) [S]."""
    rho = th.from_numpy(prior)
    policy = soft_policy(th.from_numpy(q), rho, beta).numpy()
    # Relative to the largest, so that a large q does not round the penalty
    peak = q[:, prior > 0.0].max(axis=1, keepdims=True)
    relative = np.where(prior > 0.0, q - peak, 0.0)
    penalty = (policy * relative).sum(axis=1) - soft_value(th.from_numpy(relative), rho, beta).numpy()
    return soft_value(th.from_numpy(q), rho, beta).numpy(), policy, np.maximum(penalty, 0.0)


def _check_bounded(mdp: _Mdp, policy: np.ndarray, penalty: np.ndarray, message: str) -> None:
    """With γ = 1: whether the value is the sum of so few rewards that it means something."""
    if mdp.gamma == 1.0:
        cost = (policy * np.abs(mdp.reward)).sum(axis=1) + penalty
        base, relative = _Chain.of(mdp, policy).value(cost)
        if not base + relative.max() <= _MOST_STEPS * cost.max():
            raise ValueError(message)


def _occupancy(mdp: _Mdp, policy: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Expected discounted number of visits, Σₜ γᵗ P(sₜ = s), [S]."""
    transition_of_policy = _transition_of(policy, mdp.transition)
    visited = initial > 0.0
    while (grown := visited | (transition_of_policy[visited] > 0.0).any(axis=0)).sum() > visited.sum():
        visited = grown
    inside = _Mdp(mdp.transition[visited][:, :, visited], mdp.reward[visited], mdp.termination[visited], mdp.gamma)
    inside.check_episodes_end(policy[visited] > 0.0)
    occupancy = np.zeros(len(initial))
    occupancy[visited] = _Chain.of(inside, policy[visited]).visits(initial[visited])
    return occupancy


def discounted_visitation(
    transition: ArrayLike, gamma: float, policy: ArrayLike, initial_distribution: ArrayLike
) -> np.ndarray:
    """
    d(s) ∝ Σₜ γᵗ P(sₜ = s): how often a policy visits each state, discounted, normalised to sum to 1.

    :param transition: P(s'|s,a), [S, A, S]
    :param gamma: γ in [0, 1]
    :param policy: π(a|s), [S, A]
    :param initial_distribution: ν₀, [S]
    :return: d, [S]
    :raises ValueError: for arrays that are no MDP or distribution; with γ = 1 if episodes do not end
    """
    shape = np.shape(transition)[:2]
    mdp = _Mdp.of(transition, np.zeros(shape), gamma)
    policy = _as_distribution("policy", policy, shape)
    initial = _as_distribution("initial_distribution", initial_distribution, shape[:1])
    occupancy = _occupancy(mdp, policy, initial)
    return occupancy / occupancy.sum()


def mutual_information(policy: ArrayLike, state_distribution: ArrayLike) -> float:
    """
    I(S;A) = Σ_s d(s) KL(π(·|s)‖ρ) with ρ(a) = Σ_s d(s) π(a|s), in nats.

    :param policy: π(a|s), [S, A]
    :param state_distribution: d(s), [S]
    :return: the mutual information, at most log S and log A
    """
    policy = _as_distribution("policy", policy, np.shape(policy))
    weights = _as_distribution("state_distribution", state_distribution, policy.shape[:1])
    divergence = kl_divergence(th.from_numpy(policy), th.from_numpy(weights @ policy)).numpy()
    return float(weights[weights > 0.0] @ divergence[weights > 0.0])


def optimize_prior(
    transition: ArrayLike,
    reward: ArrayLike,
    gamma: float,
    beta: float,
    initial_distribution: ArrayLike,
    prior: ArrayLike | None = None,
    tolerance: float = 1e-9,
    max_iterations: int = 10_000,
) -> PriorOptimum:
    """
    Maximise Σ ν₀ V over policies and priors by the paper's two questions in turn: the best π for ρ
    (:func:`soft_value_iteration`), then the best ρ for π, ρ(a) = Σ_s d(s) π(a|s) with d the discounted visitation from ν₀.

    The objective rises to a fixed point, at which (1-γ) Σ ν₀ V = E_d[r] - I(S;A)/β if no mass is lost. With γ = 0 this is
    the algorithm of Blahut and Arimoto, and the fixed point the global optimum; with γ > 0 it depends on where it starts.
    An action with ρ(a) = 0 never comes back. With β = 0 every ρ is a fixed point, since π = ρ.

    :param transition: P(s'|s,a), [S, A, S]
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]
    :param beta: β from 0 to ∞ included, in 1/reward
    :param initial_distribution: ν₀, [S]
    :param prior: the first ρ, [A]; uniform by default
    :param tolerance: ends where the best ρ for π is nowhere more than (1 + tolerance) times the ρ of π
    :param max_iterations: ends here in any case
    :return: ρ with its Q, V and π, the objective at every iteration, and whether ρ is a fixed point
    :raises ValueError: as :func:`soft_value_iteration`
    """
    mdp = _Mdp.of(transition, reward, gamma)
    beta = _check_beta(beta)
    n_states, n_actions = mdp.reward.shape
    initial = _as_distribution("initial_distribution", initial_distribution, (n_states,))
    first = np.full(n_actions, 1.0 / n_actions) if prior is None else prior
    rho = _as_distribution("prior", first, (n_actions,))
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations!r}")
    _check_tolerance(tolerance)
    objective: list[float] = []
    policy = _first_policy(mdp, beta, rho)
    while True:
        solution = _policy_iteration(mdp, beta, rho, policy, 1e-10)
        policy = solution.policy
        objective.append(float(initial @ solution.v))
        visits = _occupancy(mdp, policy, initial)
        best_prior = visits / visits.sum() @ policy
        growth = np.divide(best_prior, rho, out=np.ones(n_actions), where=rho > 0.0)
        converged = bool(growth.max() <= 1.0 + tolerance)
        if converged or len(objective) == max_iterations:
            return PriorOptimum(rho, *solution, np.array(objective), converged)
        # Not quite 0, lest states that are never visited lose every way to the end of an episode
        best_prior = np.where(rho > 0.0, np.maximum(best_prior, _SMALLEST_PRIOR), 0.0)
        rho = best_prior / best_prior.sum()
        if gamma < 1.0:  # else episodes might never end
            policy = _soft_improvement(solution.q, rho, beta)[1]


@dataclass(frozen=True, kw_only=True)
class TabularSettings:
    """
    A tabular learner: of the paper's four systems, or in between. The defaults are MIRL's as the slides and the paper's
    reproducers give them, except ``gamma``, which is unknown.

    :param regularization: ``"mutual_information"``: target and π use the learned ρ; ``"entropy"``: the uniform distribution
    :param prior_lr: α_ρ in [0, 1], per step; 0 keeps ρ fixed
    :param prior_init: the first ρ, [A]; uniform by default
    :param beta_init: β₀ from 0 to ∞ included, in 1/reward
    :param beta_lr: c ≥ 0 of β_i = β₀ + c·i, per step
    :param beta_max: the largest β
    :param gamma: γ in [0, 1]
    :param exploration: ε in [0, 1], the probability of drawing the action from ρ
    :param q_lr: α in [0, 1], of the learning rate α_Q = α · n(s,a)^(-ω), n counting visits from 1
    :param q_lr_decay: ω ≥ 0; 0 gives a constant learning rate
    :raises ValueError: for a value out of its range
    """

    regularization: str = "mutual_information"
    prior_lr: float = 2e-3
    prior_init: Sequence[float] | None = None
    beta_init: float = 0.0
    beta_lr: float = 1e-3
    beta_max: float = np.inf
    gamma: float = 0.99
    exploration: float = 0.1
    q_lr: float = 1.0
    q_lr_decay: float = 0.8

    def __post_init__(self) -> None:
        if self.regularization not in ("mutual_information", "entropy"):
            raise ValueError(f"regularization must be 'mutual_information' or 'entropy', got {self.regularization!r}")
        for name in ("prior_lr", "gamma", "exploration", "q_lr"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")
        for name in ("beta_init", "beta_max"):
            if not (0.0 <= getattr(self, name) <= 1e100 or getattr(self, name) == np.inf):
                raise ValueError(f"{name} must lie in [0, 1e100] or be ∞, got {getattr(self, name)!r}")
        for name in ("beta_lr", "q_lr_decay"):
            if not 0.0 <= getattr(self, name) <= 1e100:
                raise ValueError(f"{name} must lie in [0, 1e100], got {getattr(self, name)!r}")


#: The paper's four systems as settings, under their usual names
TABULAR_ALGORITHMS = {
    "ql": TabularSettings(regularization="entropy", prior_lr=0.0, beta_init=np.inf, beta_lr=0.0),
    "sql": TabularSettings(regularization="entropy", prior_lr=0.0),
    "sql_m": TabularSettings(regularization="entropy"),
    "mirl": TabularSettings(),
}


class TabularRun(NamedTuple):
    """One learner in one world."""

    env: Any
    """An environment with ``P`` and ``initial_state_distrib``: a ``GridWorld``, FrozenLake, CliffWalking, Taxi, ..."""
    settings: TabularSettings
    seed: int


class _Tables(NamedTuple):
    """``P`` as arrays. K is the largest number of outcomes of an action."""

    next_state: np.ndarray  # [S, A, K]
    reward: np.ndarray  # [S, A, K]
    done: np.ndarray  # [S, A, K]
    cumulative: np.ndarray  # [S, A, K], P(outcome <= k)
    start: np.ndarray  # [S], P(first state <= s)

    @classmethod
    def of(cls, env: Any, n_outcomes: int, n_actions: int) -> "_Tables":
        """Padded with outcomes of probability 0, and with actions that end nowhere."""
        outcomes: Outcomes = env.unwrapped.P
        shape = (len(outcomes), n_actions, n_outcomes)
        next_state = np.broadcast_to(np.arange(shape[0])[:, None, None], shape).copy()
        reward, done, probability = np.zeros(shape), np.zeros(shape, dtype=bool), np.zeros(shape)
        for state, actions in outcomes.items():
            for action, follow in actions.items():
                for k, (p, destination, step_reward, terminated) in enumerate(follow):
                    probability[state, action, k] = p
                    next_state[state, action, k] = destination
                    reward[state, action, k] = step_reward
                    done[state, action, k] = terminated
        start = np.asarray(env.unwrapped.initial_state_distrib, dtype=np.float64)
        return cls(next_state, reward, done, _cumulative(probability), _cumulative(start))


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Cumulative sums over the last axis, in which rounding leaves no gap below 1."""
    cumulative = probability.cumsum(axis=-1)
    return np.where(cumulative >= cumulative[..., -1:], 1.0, cumulative)


class TabularLearners:
    """
    Many tabular learners at once, each as if it ran alone: a run has its own random numbers, drawn from its seed only, and
    runs with the same seed meet the same ones whatever their settings. (Where worlds beside it have more actions, sums over
    actions may be rounded differently.) All arrays have one row per run, so that a step of all of them costs little more than
    a step of one.

    One step of one learner, Algorithm 1 with a table: π_i ∝ ρ_i exp(β_i Q_i(s,·)); the action is the most probable one, or
    with probability ε a draw from ρ_i; ρ_{i+1} from π_i; then Q(s,a) moves by α_Q towards r + γ V(s'), V the soft value of
    Q_i for ρ_{i+1} and β_i. Q starts at 0. Where an episode ends, the next one starts; nothing else cuts it short.

    :param runs: worlds, settings and seeds; worlds may differ in size
    :raises ValueError: if there are no runs, or one's first prior does not fit its world
    """

    def __init__(self, runs: Sequence[TabularRun]) -> None:
        if not runs:
            raise ValueError("runs must hold at least one run, got none")
        self.runs = list(runs)
        #: Environment steps that every run has made
        self.n_steps = 0
        self._rows = np.arange(len(self.runs))
        self._set_up_tables()
        self._set_up_settings()
        streams = [np.random.SeedSequence(run.seed).spawn(2) for run in self.runs]
        self._training_random = [np.random.default_rng(training) for training, _ in streams]
        self._evaluation_random = [np.random.default_rng(evaluation) for _, evaluation in streams]
        self._state = self._first_states(np.array([[generator.random()] for generator in self._training_random]))[:, 0]

    def _set_up_tables(self) -> None:
        """Every run's copy of its world, one after the other: states are counted through over all runs."""
        worlds = {id(run.env): run.env for run in self.runs}
        outcomes = [env.unwrapped.P for env in worlds.values()]
        self._n_actions = max(len(p[0]) for p in outcomes)
        self._n_outcomes = max(len(follow) for p in outcomes for actions in p.values() for follow in actions.values())
        tables = {key: _Tables.of(env, self._n_outcomes, self._n_actions) for key, env in worlds.items()}
        tables_of_runs = [tables[id(run.env)] for run in self.runs]
        self._n_states = np.array([len(table.start) for table in tables_of_runs])
        self._first_state = np.concatenate([[0], self._n_states.cumsum()[:-1]])
        self._starts = [table.start for table in tables_of_runs]
        offsets = [table.next_state + offset for table, offset in zip(tables_of_runs, self._first_state, strict=True)]
        self._next_state = np.concatenate(offsets).ravel()
        self._reward = np.concatenate([table.reward for table in tables_of_runs]).ravel()
        self._done = np.concatenate([table.done for table in tables_of_runs]).ravel()
        self._cumulative = np.concatenate([table.cumulative for table in tables_of_runs]).reshape(-1, self._n_outcomes)
        gammas = np.repeat([run.settings.gamma for run in self.runs], self._n_states * self._n_actions * self._n_outcomes)
        self._discount = np.where(self._done, 0.0, gammas)
        self._q = np.zeros((self._n_states.sum(), self._n_actions))
        self._visits = np.zeros(self._q.size)

    def _set_up_settings(self) -> None:
        """The settings as columns, one row per run."""

        def column(name: str) -> np.ndarray:
            return np.array([getattr(run.settings, name) for run in self.runs], dtype=np.float64)

        self._beta_init, self._beta_lr, self._beta_max = column("beta_init"), column("beta_lr"), column("beta_max")
        self._exploration, self._q_lr, self._q_lr_decay = column("exploration"), column("q_lr"), column("q_lr_decay")
        self._prior_lr = column("prior_lr")[:, None]
        self._uniform = np.zeros((len(self.runs), self._n_actions))
        self._prior = self._uniform.copy()
        for row, run in enumerate(self.runs):
            n_actions = len(run.env.unwrapped.P[0])
            self._uniform[row, :n_actions] = 1.0 / n_actions
            given = run.settings.prior_init
            first = self._uniform[row, :n_actions] if given is None else _as_distribution("prior_init", given, (n_actions,))
            self._prior[row, :n_actions] = first
        uses_prior = np.array([run.settings.regularization == "mutual_information" for run in self.runs])
        self._reference = np.where(uses_prior[:, None], self._prior, self._uniform)
        learns_prior = self._prior_lr[:, 0] > 0.0
        # Where β = ∞ only the support of ρ matters to target and action: its indicator takes the place of ρ
        self._hard = np.isinf(self._beta_init) & np.isinf(self._beta_max)
        given_prior = np.array([run.settings.prior_init is not None for run in self.runs])
        self._breaks_ties = self._hard & uses_prior & (learns_prior | given_prior)
        self._hard_learners = np.flatnonzero(self._hard & learns_prior)
        self._moving_reference = np.flatnonzero(uses_prior & learns_prior)
        self._log_weights = self._logarithm(self._rows)

    def _logarithm(self, rows: np.ndarray) -> np.ndarray:
        """log ρ of target and π, [rows, A]; where β = ∞, 0 on its support and -∞ elsewhere."""
        reference = self._reference[rows]
        with np.errstate(divide="ignore"):
            return np.log(np.where(self._hard[rows, None], reference > 0.0, reference))

    def _first_states(self, random: np.ndarray) -> np.ndarray:
        """States in which episodes start, for uniform random numbers [R, n]."""
        rows = zip(self._starts, random, self._first_state, strict=True)
        return np.stack([np.searchsorted(start, numbers, "right") + first for start, numbers, first in rows])

    @property
    def prior(self) -> np.ndarray:
        """ρ of every run, a copy, [R, A]; 0 for actions that a run's world does not have."""
        return self._prior.copy()

    @property
    def beta(self) -> np.ndarray:
        """β_i of the next step of every run, [R], in 1/reward."""
        return self._betas(self.n_steps, 1)[0]

    def q_values(self, run: int) -> np.ndarray:
        """Q(s,a) of one run, a copy, [S, A] of its world."""
        first, n_states = self._first_state[run], self._n_states[run]
        return self._q[first : first + n_states, : len(self.runs[run].env.unwrapped.P[0])].copy()

    def policy(self, run: int) -> np.ndarray:
        """π(a|s) of one run, [S, A] of its world."""
        q_values = self.q_values(run)
        prior = self._reference[run, : q_values.shape[1]]
        return soft_policy(th.from_numpy(q_values), th.from_numpy(prior), self.beta[run]).numpy()

    def _betas(self, first: int, n_steps: int) -> np.ndarray:
        """β_i for i from ``first`` on, [n_steps, R]."""
        steps = np.arange(first, first + n_steps)[:, None]
        return np.minimum(self._beta_init + self._beta_lr * steps, self._beta_max)

    def learn(self, n_steps: int) -> "TabularLearners":
        """
        Let every run make ``n_steps`` more environment steps. Learning in two calls is the same as in one.

        :param n_steps: number of steps, from 0 on
        :return: the learners themselves
        :raises ValueError: if ``n_steps`` is negative
        """
        if n_steps < 0:
            raise ValueError(f"n_steps must not be negative, got {n_steps!r}")
        for done in range(0, n_steps, _BLOCK):
            self._learn_block(min(_BLOCK, n_steps - done))
        return self

    def _learn_block(self, n_steps: int) -> None:
        """:meth:`learn` for as many steps as random numbers are drawn at once."""
        # Of every run for every step: whether to explore, the action explored, the outcome, where a new episode starts
        random = np.stack([generator.random((n_steps, 4)) for generator in self._training_random])
        coins, choices, chances, _ = np.ascontiguousarray(random.transpose(2, 1, 0))
        explores = coins < self._exploration
        starts = np.ascontiguousarray(self._first_states(random[:, :, 3]).T)
        betas = self._betas(self.n_steps, n_steps)
        scales = self._scale(betas)
        for i in range(n_steps):
            action, policy = self._act(scales[i], explores[i], choices[i])
            outcome, pair = self._outcome(self._state, action, chances[i])
            self._move_prior(policy)
            self._move_q(pair, outcome, betas[i], scales[i])
            self._state = np.where(self._done[outcome], starts[i], self._next_state[outcome])
        self.n_steps += n_steps

    def _scale(self, beta: np.ndarray) -> np.ndarray:
        """What Q is multiplied by in the logits of π, [..., R]: β, but 1 where β = ∞."""
        return np.where(self._hard, 1.0, beta)

    def _act(self, scale: np.ndarray, explores: np.ndarray, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [R] of the behaviour policy, and π [R, A] where the agents are."""
        logits = scale[:, None] * self._q[self._state] + self._log_weights
        action = self._most_probable(logits, self._rows)
        policy = np.exp(logits - logits.max(axis=1, keepdims=True))
        if len(rows := self._hard_learners):
            policy[rows] = self._reference[rows] * (policy[rows] == 1.0)
        policy /= policy.sum(axis=1, keepdims=True)
        if len(rows := np.flatnonzero(explores)):
            action[rows] = _draw(self._prior[rows], choice[rows])
        return action, policy

    def _most_probable(self, logits: np.ndarray, run: np.ndarray) -> np.ndarray:
        """argmax π for logits [n, A] of these runs [n]; where β = ∞, the best action with the largest ρ."""
        action = logits.argmax(axis=1)
        if len(rows := np.flatnonzero(self._breaks_ties[run])):
            best = logits[rows] == logits[rows].max(axis=1, keepdims=True)
            action[rows] = (best * self._reference[run[rows]]).argmax(axis=1)
        return action

    def _outcome(self, state: np.ndarray, action: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the flat tables: of what an action led to, and of the pair (s, a). Both the shape of ``state``."""
        pair = state * self._n_actions + action
        if self._n_outcomes == 1:
            return pair, pair
        return pair * self._n_outcomes + (self._cumulative[pair] <= chance[:, None]).sum(axis=1), pair

    def _move_prior(self, policy: np.ndarray) -> None:
        """ρ ← (1 - α_ρ) ρ + α_ρ π(·|s)."""
        self._prior += self._prior_lr * (policy - self._prior)
        if len(rows := self._moving_reference):
            self._reference[rows] = self._prior[rows]
            self._log_weights[rows] = self._logarithm(rows)

    def _move_q(self, pair: np.ndarray, outcome: np.ndarray, beta: np.ndarray, scale: np.ndarray) -> None:
        """Q(s,a) ← Q(s,a) + α_Q (r + γ V(s') - Q(s,a)), with the ρ that has just moved."""
        next_q = self._q[self._next_state[outcome]]
        logits = scale[:, None] * next_q + self._log_weights
        peak = logits.max(axis=1)
        # The shifted log-sum-exp of operators.soft_value, for one β per row
        log_sum = np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        value = (peak + np.where(self._hard, 0.0, log_sum)) / np.where(scale == 0.0, 1.0, scale)
        if len(rows := np.flatnonzero(beta < _SMALL_BETA)):
            small = (th.from_numpy(x[rows]) for x in (next_q, self._reference, beta))
            value[rows] = soft_value(*small).numpy()
        self._visits[pair] += 1.0
        step_size = self._q_lr * self._visits[pair] ** -self._q_lr_decay
        table = self._q.reshape(-1)
        table[pair] += step_size * (self._reward[outcome] + self._discount[outcome] * value - table[pair])

    def evaluate(self, n_episodes: int = 30, max_steps: int = 100, exploration: float = 0.05) -> np.ndarray:
        """
        Returns of new episodes played by the behaviour policy, without learning. Training is not disturbed: evaluation has
        random numbers of its own.

        :param n_episodes: number of episodes of every run
        :param max_steps: an episode ends after this many steps in any case
        :param exploration: ε in [0, 1]
        :return: undiscounted returns, [R, n_episodes], in units of reward
        :raises ValueError: for a value out of its range
        """
        if n_episodes < 1 or max_steps < 1:
            raise ValueError(f"n_episodes and max_steps must be at least 1, got {n_episodes!r} and {max_steps!r}")
        if not 0.0 <= exploration <= 1.0:
            raise ValueError(f"exploration must lie in [0, 1], got {exploration!r}")
        run_of_state = np.repeat(self._rows, self._n_states)
        scale = self._scale(self.beta)[run_of_state, None]
        greedy = self._most_probable(scale * self._q + self._log_weights[run_of_state], run_of_state)
        random = np.stack([generator.random((max_steps + 1, 3, n_episodes)) for generator in self._evaluation_random], axis=-2)
        state = self._first_states(random[0, 0]).ravel()
        random = random.reshape(max_steps + 1, 3, -1)
        run = np.repeat(self._rows, n_episodes)
        returns, playing = np.zeros(len(run)), np.arange(len(run))
        for coin, choice, chance in random[1:]:
            action = greedy[state]
            rows = np.flatnonzero(coin[playing] < exploration)
            action[rows] = _draw(self._prior[run[playing[rows]]], choice[playing[rows]])
            outcome, _ = self._outcome(state, action, chance[playing])
            returns[playing] += self._reward[outcome]
            goes_on = ~self._done[outcome]
            state, playing = self._next_state[outcome][goes_on], playing[goes_on]
        return returns.reshape(len(self.runs), n_episodes)


def _draw(distribution: np.ndarray, random: np.ndarray) -> np.ndarray:
    """One index per row of ``distribution`` [n, A], for uniform random numbers [n]: the inverse of the cumulative sum."""
    cumulative = distribution.cumsum(axis=1)
    return (cumulative <= (random * cumulative[:, -1])[:, None]).sum(axis=1)
