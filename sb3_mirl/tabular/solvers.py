"""
Exact solutions of MIRL for a known MDP.

Source: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019.

Shapes: S states, A actions, G groups of states, K skills. An MDP is ``transition`` [S, A, S] and ``reward`` [S, A], see
:mod:`sb3_mirl.tabular.mdp`; its missing mass is termination, which is worth 0. Symbols are those of ``operators.py``; ν₀ is
the distribution of the first state and d(s), ``state_distribution``, the distribution of visited states. A prior may see the
group x = g(s) of the state, see :mod:`sb3_mirl.tabular.priors`.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import torch as th
from numpy.typing import ArrayLike

from sb3_mirl.mirl.operators import kl_divergence, soft_policy, soft_value
from sb3_mirl.tabular.mdp import Chain, Mdp, as_distribution, check_beta, state_transition
from sb3_mirl.tabular.priors import GroupPrior, SkillPrior, check_groups, check_masks, prior_of_states, weights_in_groups

# Policy iteration takes about ten rounds, unless it cannot converge
_MAX_ROUNDS = 1000
_ROUNDING = float(np.finfo(np.float64).eps)
# With γ = 1, a value that sums up more steps than this cannot be told from an infinite one
_MAX_STEPS = 1e10


AnyPrior = TypeVar("AnyPrior", GroupPrior, SkillPrior)


class SoftOptimum(NamedTuple):
    """Fixed point of the soft Bellman equation for one ρ and one β."""

    q: np.ndarray
    """Q(s,a), [S, A]"""
    v: np.ndarray
    """V(s), [S]"""
    policy: np.ndarray
    """π(a|s), [S, A]"""


class PriorOptimum(NamedTuple):
    """Result of :func:`optimize_prior`."""

    prior: np.ndarray
    """ρ(a), [A], or ρ(a|x), [G, A]"""
    q: np.ndarray
    """Q(s,a) for that ρ, [S, A]"""
    v: np.ndarray
    """V(s), [S]"""
    policy: np.ndarray
    """π(a|s), [S, A]"""
    objective: np.ndarray
    """Σ_s ν₀(s) V(s) at every iteration, [iterations]; it never falls"""
    converged: bool
    """Whether ρ is a fixed point to ``tolerance``; otherwise ``max_iterations`` was reached"""


class SkillsOptimum(NamedTuple):
    """Result of :func:`optimize_skills`."""

    high: np.ndarray
    """ρ(z|x_H), [G_H, K]"""
    low: np.ndarray
    """ρ(a|z,x_L), [K, G_L, A]"""
    q: np.ndarray
    """Q(s,a) for that ρ, [S, A]"""
    v: np.ndarray
    """V(s), [S]"""
    policy: np.ndarray
    """π(a|s) = Σ_z π(z,a|s), [S, A]"""
    objective: np.ndarray
    """Σ_s ν₀(s) V(s) at every iteration, [iterations]; it never falls"""
    converged: bool
    """Whether both levels are a fixed point to ``tolerance``; otherwise ``max_iterations`` was reached"""


def _check_tolerance(tolerance: float) -> float:
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance must not be negative, got {tolerance!r}")
    return tolerance


def _penalty(policy: np.ndarray, prior: np.ndarray, beta: float) -> np.ndarray:
    """KL(π‖ρ)/β in every state, [S]; zero if β = ∞, and if π = ρ up to rounding."""
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
    action_masks: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Exact value of a policy, with the penalty KL(π‖ρ)/β for every step if ``beta`` is finite.

    :param transition: P(s'|s,a), [S, A, S]
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]
    :param policy: π(a|s), [S, A]
    :param beta: β, in 1/reward; ∞ leaves the penalty out
    :param prior: ρ, [A] or [S, A]; only needed if β is finite
    :param action_masks: which actions are valid, [S, A]: the penalty is then that of ρ(a|s) ∝ ρ(a) · mask(s)
    :return: Q(s,a) [S, A] = r + γ P V and V(s) [S] = Σ π Q - KL(π‖ρ)/β, in units of reward
    :raises ValueError: if the arrays are not an MDP and a policy, if the policy takes an action that is not valid, or if the
        value does not exist
    """
    mdp = Mdp.from_arrays(transition, reward, gamma)
    shape = mdp.reward.shape
    policy = as_distribution("policy", policy, shape)
    if check_beta(beta) < np.inf and prior is None:
        raise ValueError(f"prior is needed for beta={beta}, got None")
    rho = prior_of_states(np.full(shape[1], 1.0 / shape[1]) if prior is None else prior, action_masks, shape)
    if action_masks is not None and (invalid := (policy > 0.0) & ~check_masks(action_masks, shape)).any():
        state, action = np.argwhere(invalid)[0]
        raise ValueError(
            f"policy must be 0 for actions that are not valid, got {policy[state, action]} in [{state}, {action}]"
        )
    penalty = _penalty(policy, rho, beta)
    if not np.isfinite(penalty).all():
        state = np.argmax(~np.isfinite(penalty))
        raise ValueError(f"policy has an infinite penalty in state {state} for beta={beta}, prior={rho[state]}")
    mdp.check_episodes_end(policy > 0.0)
    base, relative = Chain.from_policy(mdp, policy).value((policy * mdp.reward).sum(axis=1) - penalty)
    return base + mdp.action_values(base, relative), base + relative


def soft_value_iteration(
    transition: ArrayLike,
    reward: ArrayLike,
    gamma: float,
    beta: float,
    prior: ArrayLike,
    tolerance: float = 1e-10,
    action_masks: ArrayLike | None = None,
) -> SoftOptimum:
    """
    The best policy for a prior: the fixed point of Q(s,a) = r(s,a) + γ Σ P(s'|s,a) V(s') with
    V(s) = β⁻¹ log Σ ρ(a) exp(β Q(s,a)).

    The method is soft policy iteration, which is Newton's method: evaluate π exactly, set π ∝ ρ exp(βQ), repeat. It takes
    about ten linear systems of S equations for every γ. Time grows as S²·A, and as S³ for several thousand states; memory
    grows as S²·A.

    With γ = 1, only policies under which every episode ends are compared. The value exists if there is such a policy, and if
    no cycle has rewards that exceed its penalties. A sum over more than 1e10 steps counts as infinite.

    :param transition: P(s'|s,a), [S, A, S]; a row that sums to 1 within 1e-9 has no termination
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]; with γ = 1 there must be a way to termination under ρ from every state
    :param beta: β from 0 to ∞ included, in 1/reward
    :param prior: ρ, [A], or ρ(·|s), [S, A]
    :param tolerance: largest error of Q and V, in units of reward. The rounding error may be larger: it is that of max |Q|,
        times 1/(1-γ)
    :param action_masks: which actions are valid, [S, A]: ρ(a|s) ∝ ρ(a) · mask(s), and uniform over the valid actions where ρ
        has no mass on them
    :return: Q, V and π
    :raises ValueError: if the arrays are not an MDP, a value is out of range, or γ = 1 and the value does not exist
    """
    mdp = Mdp.from_arrays(transition, reward, gamma)
    rho = prior_of_states(prior, action_masks, mdp.reward.shape)
    beta, tolerance = check_beta(beta), _check_tolerance(tolerance)
    return _policy_iteration(mdp, beta, rho, _first_policy(mdp, beta, rho), tolerance)


def _first_policy(mdp: Mdp, beta: float, prior: np.ndarray) -> np.ndarray:
    """The policy with which policy iteration begins, [S, A], for ρ(·|s), [S, A]. If γ = 1, its episodes end."""
    mdp.check_episodes_end(prior > 0.0)
    # With a tiny β, penalties exceed all rewards: ρ itself is nearly optimal
    if mdp.gamma == 1.0 and beta * np.abs(mdp.reward).max(initial=np.finfo(np.float64).tiny) > 1e-3:
        return mdp.shortest_way_out(prior > 0.0)
    return prior


def _policy_iteration(mdp: Mdp, beta: float, prior: np.ndarray, policy: np.ndarray, tolerance: float) -> SoftOptimum:
    """
    :func:`soft_value_iteration` on checked arguments, starting from ``policy``, whose episodes end if γ = 1. ``prior`` and
    ``policy`` are [S, A].

    The policy is changed only where the gain exceeds rounding. With γ = 1 the change also shows whether a value exists: if the
    changed policy never leaves a set of states, it earns the mean gain over these states in each of infinitely many steps.
    (Rounding alone may also select, among equal actions, one that does not end the episode.)
    """
    penalty = _penalty(policy, prior, beta)
    unbounded = f"gamma=1: the value does not exist, because it grows without bound (beta={beta})"
    before = np.inf
    for _ in range(_MAX_ROUNDS):
        try:
            base, v = Chain.from_policy(mdp, policy).value((policy * mdp.reward).sum(axis=1) - penalty)
        except ValueError as error:
            if mdp.gamma < 1.0:
                raise
            raise ValueError(unbounded) from error
        q = mdp.action_values(base, v)
        improved, better, better_penalty = _soft_improvement(q, prior, beta)
        gain = improved - v
        largest = np.where(prior > 0.0, np.maximum(np.abs(q), np.abs(mdp.reward)), 0.0).max(axis=1)
        size = np.maximum(largest, np.abs(v))
        rounding, residual = _ROUNDING * size.max(), np.abs(gain).max()
        # V* - v <= max gain / (1 - γ). Gains that are small and no longer fall are rounding
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
    """The soft value m(q) [S], the policy π ∝ ρ exp(βq) [S, A] and its penalty KL(π‖ρ)/β = Σ π q - m(q) [S]."""
    rho = th.from_numpy(prior)
    policy = soft_policy(th.from_numpy(q), rho, beta).numpy()
    # Relative to the largest value, so that a large q does not round the penalty
    peak = np.where(prior > 0.0, q, -np.inf).max(axis=1, keepdims=True)
    relative = np.where(prior > 0.0, q - peak, 0.0)
    penalty = (policy * relative).sum(axis=1) - soft_value(th.from_numpy(relative), rho, beta).numpy()
    return soft_value(th.from_numpy(q), rho, beta).numpy(), policy, np.maximum(penalty, 0.0)


def _check_bounded(mdp: Mdp, policy: np.ndarray, penalty: np.ndarray, message: str) -> None:
    """With γ = 1: raise ValueError if the value sums up more than ``_MAX_STEPS`` steps."""
    if mdp.gamma == 1.0:
        cost = (policy * np.abs(mdp.reward)).sum(axis=1) + penalty
        base, relative = Chain.from_policy(mdp, policy).value(cost)
        if not base + relative.max() <= _MAX_STEPS * cost.max():
            raise ValueError(message)


def _occupancy(mdp: Mdp, policy: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Expected discounted number of visits, Σₜ γᵗ P(sₜ = s), [S]."""
    transition_of_policy = state_transition(policy, mdp.transition)
    visited = initial > 0.0
    while (grown := visited | (transition_of_policy[visited] > 0.0).any(axis=0)).sum() > visited.sum():
        visited = grown
    inside = Mdp(mdp.transition[visited][:, :, visited], mdp.reward[visited], mdp.termination[visited], mdp.gamma)
    inside.check_episodes_end(policy[visited] > 0.0)
    occupancy = np.zeros(len(initial))
    occupancy[visited] = Chain.from_policy(inside, policy[visited]).visits(initial[visited])
    return occupancy


def discounted_visitation(
    transition: ArrayLike, gamma: float, policy: ArrayLike, initial_distribution: ArrayLike
) -> np.ndarray:
    """
    d(s) ∝ Σₜ γᵗ P(sₜ = s): the discounted frequency of each state under a policy, normalised to sum to 1.

    :param transition: P(s'|s,a), [S, A, S]
    :param gamma: γ in [0, 1]
    :param policy: π(a|s), [S, A]
    :param initial_distribution: ν₀, [S]
    :return: d, [S]
    :raises ValueError: if the arrays are not an MDP and distributions, or if γ = 1 and episodes do not end
    """
    shape = np.shape(transition)[:2]
    mdp = Mdp.from_arrays(transition, np.zeros(shape), gamma)
    policy = as_distribution("policy", policy, shape)
    initial = as_distribution("initial_distribution", initial_distribution, shape[:1])
    occupancy = _occupancy(mdp, policy, initial)
    return occupancy / occupancy.sum()


def mutual_information(policy: ArrayLike, state_distribution: ArrayLike, prior_groups: ArrayLike | None = None) -> float:
    """
    I(S;A) = Σ_s d(s) KL(π(·|s)‖ρ) with ρ(a) = Σ_s d(s) π(a|s), in nats.

    With groups x = g(s) it is the conditional mutual information I(S;A|X) = Σ_s d(s) KL(π(·|s)‖ρ(·|x)), where ρ(a|x) is the
    average over the states of the group, as in :func:`optimize_prior`.

    :param policy: π(a|s), [S, A]
    :param state_distribution: d(s), [S]
    :param prior_groups: g(s), whole numbers from 0, [S]; None: no groups
    :return: the mutual information, at most log S and log A
    :raises ValueError: if the arrays are not distributions and groups
    """
    policy = as_distribution("policy", policy, np.shape(policy))
    weights = as_distribution("state_distribution", state_distribution, policy.shape[:1])
    marginal = weights @ policy
    if prior_groups is not None:
        groups = check_groups("prior_groups", prior_groups, len(policy))
        marginal = (weights_in_groups(weights, groups, int(groups.max()) + 1) @ policy)[groups]
    divergence = kl_divergence(th.from_numpy(policy), th.from_numpy(marginal)).numpy()
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
    prior_groups: ArrayLike | None = None,
    action_masks: ArrayLike | None = None,
) -> PriorOptimum:
    """
    Maximise Σ ν₀ V over policies and priors, alternating between the best π for ρ (:func:`soft_value_iteration`) and the best
    ρ for π, which is ρ(a) = Σ_s d(s) π(a|s) with d the discounted visitation from ν₀.

    The objective rises to a fixed point, at which (1-γ) Σ ν₀ V = E_d[r] - I(S;A)/β if episodes do not end. With γ = 0 this is
    the Blahut-Arimoto algorithm, which finds the global optimum; with γ > 0 the result depends on the first ρ. An action with
    ρ(a) = 0 keeps ρ(a) = 0. With β = 0 every ρ is a fixed point, since π = ρ.

    With groups x = g(s) the prior is ρ(a|x) = Σ_{s∈x} d(s) π(a|s) / Σ_{s∈x} d(s), and the penalty at the fixed point is
    I(S;A|X)/β. A group that is not visited keeps its prior.

    With masks of valid actions the best ρ for fixed π has no closed form. Each iteration makes one minorise-maximise step
    towards it, or a longer one, with which the objective does not fall either:
    :meth:`sb3_mirl.tabular.priors.GroupPrior.improve`.

    :param transition: P(s'|s,a), [S, A, S]
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]
    :param beta: β from 0 to ∞ included, in 1/reward
    :param initial_distribution: ν₀, [S]
    :param prior: the first ρ, [A], or [G, A] with groups; uniform by default
    :param tolerance: stop when the step to the next ρ multiplies no probability of a visited group by more than 1 + tolerance
    :param max_iterations: the largest number of iterations
    :param prior_groups: g(s), whole numbers from 0 to G-1, [S]; None: no groups
    :param action_masks: which actions are valid, [S, A]; None: all
    :return: ρ with its Q, V and π, the objective at every iteration, and whether ρ is a fixed point
    :raises ValueError: see :func:`soft_value_iteration`; if ``prior_groups`` or ``action_masks`` do not fit the MDP
    """
    mdp = Mdp.from_arrays(transition, reward, gamma)
    first = GroupPrior.from_arrays(prior, prior_groups, action_masks, mdp.reward.shape)
    best, solution, objective, converged = _alternate(mdp, beta, initial_distribution, first, tolerance, max_iterations)
    return PriorOptimum(best.table if prior_groups is not None else best.table[0], *solution, objective, converged)


def optimize_skills(
    transition: ArrayLike,
    reward: ArrayLike,
    gamma: float,
    beta: float,
    initial_distribution: ArrayLike,
    n_skills: int,
    high_groups: ArrayLike | None = None,
    low_groups: ArrayLike | None = None,
    high: ArrayLike | None = None,
    low: ArrayLike | None = None,
    seed: int = 0,
    tolerance: float = 1e-9,
    max_iterations: int = 10_000,
) -> SkillsOptimum:
    """
    :func:`optimize_prior` for a mixture of skills z, ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z,x_L).

    The policy is π(z,a|s) ∝ ρ(z|x_H) ρ(a|z,x_L) exp(β Q(s,a)). Each iteration makes one step of expectation-maximisation for
    both levels, ρ(z|x_H) = E_d[π(z|s)|x_H] and ρ(a|z,x_L) ∝ E_d[π(z,a|s)|x_L], with which the objective does not fall. One
    skill gives :func:`optimize_prior` with the groups ``low_groups``. The result depends on the first ρ. Equal skills stay
    equal.

    This is the bound of Tirumala et al., 2019, for a discrete latent that is drawn anew in each step.

    :param transition: P(s'|s,a), [S, A, S]
    :param reward: r(s,a), [S, A]
    :param gamma: γ in [0, 1]
    :param beta: β from 0 to ∞ included, in 1/reward
    :param initial_distribution: ν₀, [S]
    :param n_skills: K
    :param high_groups: x_H, whole numbers from 0 to G_H-1, [S]; None: all states are in group 0
    :param low_groups: x_L, whole numbers from 0 to G_L-1, [S]; None: all states are in group 0
    :param high: the first ρ(z|x_H), [G_H, K]; uniform by default
    :param low: the first ρ(a|z,x_L), [K, G_L, A]; drawn by :func:`~sb3_mirl.tabular.priors.draw_skills` by default
    :param seed: seed of that draw
    :param tolerance: stop when a step to the next ρ multiplies no probability of a visited group by more than 1 + tolerance;
        for actions of a skill the growth is weighted by the use of the skill
    :param max_iterations: the largest number of iterations
    :return: both levels of ρ with their Q, V and π, the objective at every iteration, and whether ρ is a fixed point
    :raises ValueError: see :func:`soft_value_iteration`; if the groups or the first ρ do not fit the MDP
    """
    mdp = Mdp.from_arrays(transition, reward, gamma)
    first = SkillPrior.from_arrays(n_skills, high, low, high_groups, low_groups, mdp.reward.shape, seed)
    best, solution, objective, converged = _alternate(mdp, beta, initial_distribution, first, tolerance, max_iterations)
    return SkillsOptimum(best.high, best.low, *solution, objective, converged)


def _alternate(
    mdp: Mdp, beta: float, initial_distribution: ArrayLike, prior: AnyPrior, tolerance: float, max_iterations: int
) -> tuple[AnyPrior, SoftOptimum, np.ndarray, bool]:
    """The alternation of :func:`optimize_prior`: the last prior and its optimum, the objective, and convergence."""
    beta = check_beta(beta)
    initial = as_distribution("initial_distribution", initial_distribution, mdp.reward.shape[:1])
    if not isinstance(max_iterations, int | np.integer) or max_iterations < 1:
        raise ValueError(f"max_iterations must be a whole number of at least 1, got {max_iterations!r}")
    _check_tolerance(tolerance)
    objective: list[float] = []
    rho = prior.of_states()
    policy = _first_policy(mdp, beta, rho)
    while True:
        solution = _policy_iteration(mdp, beta, rho, policy, 1e-10)
        policy = solution.policy
        objective.append(float(initial @ solution.v))
        improved, growth = prior.improve(_occupancy(mdp, policy, initial), policy)
        converged = growth <= 1.0 + tolerance
        if converged or len(objective) == max_iterations:
            return prior, solution, np.array(objective), converged
        prior, rho = improved, improved.of_states()
        if mdp.gamma < 1.0:  # else episodes might never end
            policy = _soft_improvement(solution.q, rho, beta)[1]
