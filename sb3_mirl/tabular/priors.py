"""
Priors that depend on a part of the state, and the best prior of a kind for a given policy.

A prior sees x = g(s), the group of the state. It is a table ρ(a|x), with or without masks of valid actions, or a mixture of K
skills z, ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z,x_L), whose two levels may see different groups. One group gives MIRL's marginal ρ(a).

Shapes: S states, A actions, G groups, K skills. All arrays are NumPy's. Symbols are those of ``operators.py``; d(s) is the
distribution of visited states.

Sources: Galashov et al., *Information asymmetry in KL-regularized RL*, ICLR 2019; Tirumala et al., *Exploiting hierarchy for
learning and transfer in KL-regularized RL*, 2019; for masks: Hunter, *MM algorithms for generalized Bradley-Terry models*,
Annals of Statistics 32, 2004.
"""

from typing import NamedTuple

import numpy as np
import torch as th
from numpy.typing import ArrayLike

from sb3_mirl.mirl.operators import kl_divergence, masked_prior
from sb3_mirl.tabular.mdp import as_distribution

# Smallest probability of an action in the support, so that unvisited states keep a way to the end of an episode
_SMALLEST_PRIOR = 1e-300
# The same for both levels of a mixture, whose product must stay a normal number
_SMALLEST_SKILL = 1e-150


def check_groups(name: str, groups: ArrayLike | None, n_states: int) -> np.ndarray:
    """
    Check the group of each state.

    :param name: the argument's name, for errors
    :param groups: g(s), whole numbers from 0, [S]; None: all states are in group 0
    :param n_states: S
    :return: g(s), int64, [S]
    :raises ValueError: if the shape is not [S], or if a group is not a whole number from 0
    """
    groups = np.zeros(n_states, dtype=np.int64) if groups is None else np.asarray(groups)
    if groups.shape != (n_states,):
        raise ValueError(f"{name} must have the shape {(n_states,)}, one group for each state, got {groups.shape}")
    if groups.dtype.kind not in "iu" or groups.min() < 0:
        wrong = groups.dtype if groups.dtype.kind not in "iu" else groups.min()
        raise ValueError(f"{name} must be whole numbers from 0, got {wrong}")
    return groups.astype(np.int64)


def check_masks(action_masks: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """
    Check the masks of valid actions.

    :param action_masks: which actions are valid in each state, True and False or 1 and 0, [S, A]
    :param shape: (S, A)
    :return: the masks, bool, [S, A]
    :raises ValueError: if the shape or a value is not accepted, or if a state has no valid action
    """
    masks = np.asarray(action_masks)
    if masks.shape != shape:
        raise ValueError(f"action_masks must have the shape [S, A] = {shape}, got {masks.shape}")
    if not np.isin(masks, (0, 1)).all():
        raise ValueError(f"action_masks must be True or False, got {masks[~np.isin(masks, (0, 1))][0]}")
    if not (valid := masks.any(axis=1)).all():
        raise ValueError(f"action_masks: state {np.argmin(valid)} has no valid action; each state needs one")
    return masks.astype(bool)


def apply_masks(prior: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """:func:`~sb3_mirl.mirl.operators.masked_prior` of a prior [..., A]; without masks, the prior itself."""
    return prior if masks is None else masked_prior(th.from_numpy(prior), th.from_numpy(masks)).numpy()


def prior_of_states(prior: ArrayLike, action_masks: ArrayLike | None, shape: tuple[int, int]) -> np.ndarray:
    """
    Check a prior and write it out for each state.

    :param prior: ρ, [A] or [S, A]
    :param action_masks: which actions are valid, [S, A]; None: all
    :param shape: (S, A)
    :return: ρ(·|s), [S, A], among the valid actions
    :raises ValueError: if an array has another shape, or values that are not accepted
    """
    checked = as_distribution("prior", prior, shape if np.ndim(prior) == 2 else shape[1:])
    masks = None if action_masks is None else check_masks(action_masks, shape)
    return apply_masks(np.broadcast_to(checked, shape).copy(), masks)


def weights_in_groups(weights: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """
    Weights of states, normalised within each group: d(s|x).

    :param weights: d(s), [S]
    :param groups: g(s), [S]
    :param n_groups: G
    :return: d(s|x), [G, S]; the row of a group without weight is zero
    """
    inside = np.where(groups == np.arange(n_groups)[:, None], weights, 0.0)
    sums = inside.sum(axis=1, keepdims=True)
    return np.divide(inside, sums, out=inside, where=sums > 0.0)


def _replace_rows(rows: np.ndarray, best: np.ndarray, smallest: float) -> np.ndarray:
    """
    Replace each distribution on the last axis by that of ``best``, normalised, if ``best`` has mass there. Zeros stay zero.
    """
    has_mass = best.sum(axis=-1, keepdims=True) > 0.0
    best = np.where(rows > 0.0, np.maximum(best, smallest), 0.0)
    return np.where(has_mass, best / best.sum(axis=-1, keepdims=True), rows)


def check_n_skills(n_skills: int) -> None:
    """
    :param n_skills: K
    :raises ValueError: if it is not a whole number from 1
    """
    if not (isinstance(n_skills, (int, np.integer)) and n_skills >= 1):
        raise ValueError(f"n_skills must be a whole number from 1, got {n_skills!r}")


def draw_skills(generator: np.random.Generator, n_skills: int, n_groups: int, n_actions: int) -> np.ndarray:
    """
    A random first ρ(a|z,x_L). Skills that begin as equals receive equal updates and stay equal.

    The posterior ρ(z|a,x_L) of each action is drawn from the uniform Dirichlet distribution over the K skills, and
    ρ(a|z,x_L) ∝ ρ(z|a,x_L). A single skill is uniform.

    :param generator: of random numbers
    :param n_skills: K
    :param n_groups: G_L
    :param n_actions: A
    :return: ρ(a|z,x_L), [K, G_L, A]
    """
    posterior = generator.dirichlet(np.ones(n_skills), (n_groups, n_actions))
    posterior /= posterior.sum(axis=2, keepdims=True)  # exactly 1 for one skill
    return np.moveaxis(posterior / posterior.sum(axis=1, keepdims=True), 2, 0)


class GroupPrior(NamedTuple):
    """ρ(a|x), and with masks ρ(a|s) ∝ ρ(a|x) · mask(s)."""

    table: np.ndarray  # ρ(a|x), [G, A]
    groups: np.ndarray  # x = g(s), [S]
    masks: np.ndarray | None = None  # [S, A]

    @classmethod
    def from_arrays(
        cls, prior: ArrayLike | None, groups: ArrayLike | None, action_masks: ArrayLike | None, shape: tuple[int, int]
    ) -> "GroupPrior":
        """
        Check the arrays of a prior.

        :param prior: ρ(a|x), [G, A], or ρ(a), [A], if there are no groups; None: uniform
        :param groups: g(s), [S]; None: no groups
        :param action_masks: which actions are valid, [S, A]; None: all
        :param shape: (S, A)
        :raises ValueError: if an array has another shape, or values that are not accepted
        """
        n_states, n_actions = shape
        checked = check_groups("prior_groups", groups, n_states)
        masks = None if action_masks is None else check_masks(action_masks, shape)
        n_groups = int(checked.max()) + 1
        if prior is None:
            prior = np.full((n_groups, n_actions), 1.0 / n_actions)
        elif groups is None:
            return cls(as_distribution("prior", prior, (n_actions,))[None], checked, masks)
        # A table may also have groups that no state of this MDP belongs to
        rows = max(n_groups, np.shape(prior)[0] if np.ndim(prior) == 2 else 0)
        return cls(as_distribution("prior", prior, (rows, n_actions)), checked, masks)

    def of_states(self) -> np.ndarray:
        """ρ(·|s), [S, A]."""
        return apply_masks(self.table[self.groups], self.masks)

    def improve(self, visits: np.ndarray, policy: np.ndarray) -> tuple["GroupPrior", float]:
        """
        The best prior for a policy: ρ(a|x) = E_d[π(a|s)|x]. A group that is not visited keeps its prior.

        With masks the best prior solves ρ(a|x) = E_d[π(a|s)|x] / E_d[m(a,s) / Σ_b ρ(b|x) m(b,s) | x], up to a factor. The
        right-hand side is one step of Hunter's minorise-maximise algorithm, which does not increase E_d[KL(π‖ρ)]. The result
        is this step, or a longer one. A state in which no valid action has mass does not depend on ρ, and is left out.

        :param visits: d(s), not necessarily normalised, [S]
        :param policy: π(a|s), [S, A]
        :return: the new prior, and the largest factor by which the (short) step multiplies a probability, which is 1 if and
            only if ρ is stationary
        """
        weights = weights_in_groups(visits, self.groups, len(self.table))
        if self.masks is None:
            best = weights @ policy
        else:
            mass = np.where(self.masks, self.table[self.groups], 0.0).sum(axis=1, keepdims=True)
            has_mass = mass > 0.0
            availability = weights @ np.divide(self.masks, mass, out=np.zeros(policy.shape), where=has_mass)
            best = np.divide(weights @ (has_mass * policy), availability, out=self.table.copy(), where=availability > 0.0)
            best *= availability.any(axis=1, keepdims=True)
        growth = np.divide(best, self.table, out=np.ones(best.shape), where=self.table > 0.0)
        improved = self._replace(table=_replace_rows(self.table, best, _SMALLEST_PRIOR))
        return improved if self.masks is None else self._lengthen(improved, weights, policy), float(growth.max())

    def _lengthen(self, improved: "GroupPrior", weights: np.ndarray, policy: np.ndarray) -> "GroupPrior":
        """
        For each group, double the step from this prior to ``improved``, in log ρ, as long as E_d[KL(π‖ρ)|x] falls.
        E_d[KL(π‖ρ)] is convex in log ρ. Plain steps can be slow: if the best ρ(a) is 0 although a is the only valid action of
        some states, n plain steps only reach ρ(a) ~ 1/n.
        """
        positive = self.table > 0.0
        start = np.log(np.where(positive, self.table, 1.0))
        step = np.log(np.where(positive, improved.table, 1.0)) - start
        lengthened, divergence = improved, improved._divergence(weights, policy)
        falls = np.ones(len(self.table), dtype=bool)
        while falls.any():
            step = 2.0 * step
            logarithm = np.where(positive, start + step, -np.inf)
            longer = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
            candidate = self._replace(table=_replace_rows(self.table, longer, _SMALLEST_PRIOR))
            its_divergence = candidate._divergence(weights, policy)
            falls &= its_divergence < divergence
            lengthened = self._replace(table=np.where(falls[:, None], candidate.table, lengthened.table))
            divergence = np.where(falls, its_divergence, divergence)
        return lengthened

    def _divergence(self, weights: np.ndarray, policy: np.ndarray) -> np.ndarray:
        """E_d[KL(π‖ρ)|x], [G]."""
        return weights @ kl_divergence(th.from_numpy(policy), th.from_numpy(self.of_states())).numpy()


class SkillPrior(NamedTuple):
    """ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z,x_L)."""

    high: np.ndarray  # ρ(z|x_H), [G_H, K]
    low: np.ndarray  # ρ(a|z,x_L), [K, G_L, A]
    high_groups: np.ndarray  # x_H, [S]
    low_groups: np.ndarray  # x_L, [S]

    @classmethod
    def from_arrays(
        cls,
        n_skills: int,
        high: ArrayLike | None,
        low: ArrayLike | None,
        high_groups: ArrayLike | None,
        low_groups: ArrayLike | None,
        shape: tuple[int, int],
        seed: int,
    ) -> "SkillPrior":
        """
        Check the arrays of a prior.

        :param n_skills: K
        :param high: ρ(z|x_H), [G_H, K]; None: uniform
        :param low: ρ(a|z,x_L), [K, G_L, A]; None: :func:`draw_skills`
        :param high_groups: x_H, [S]; None: all states are in group 0
        :param low_groups: x_L, [S]; None: all states are in group 0
        :param shape: (S, A)
        :param seed: seed of the draw
        :raises ValueError: if an array has another shape, or values that are not accepted
        """
        check_n_skills(n_skills)
        x_high, x_low = check_groups("high_groups", high_groups, shape[0]), check_groups("low_groups", low_groups, shape[0])
        n_high, n_low = int(x_high.max()) + 1, int(x_low.max()) + 1
        high = np.full((n_high, n_skills), 1.0 / n_skills) if high is None else high
        low = draw_skills(np.random.default_rng(seed), n_skills, n_low, shape[1]) if low is None else low
        # Tables may also have groups that no state of this MDP belongs to
        n_high = max(n_high, np.shape(high)[0] if np.ndim(high) == 2 else 0)
        n_low = max(n_low, np.shape(low)[1] if np.ndim(low) == 3 else 0)
        high = as_distribution("high", high, (n_high, n_skills))
        return cls(high, as_distribution("low", low, (n_skills, n_low, shape[1])), x_high, x_low)

    def joint(self) -> np.ndarray:
        """ρ(z|x_H) ρ(a|z,x_L) in each state, [S, K, A]."""
        return self.high[self.high_groups][:, :, None] * self.low[:, self.low_groups].transpose(1, 0, 2)

    def of_states(self) -> np.ndarray:
        """ρ(·|s), [S, A]."""
        return self.joint().sum(axis=1)

    def improve(self, visits: np.ndarray, policy: np.ndarray) -> tuple["SkillPrior", float]:
        """
        One step of expectation-maximisation: both levels are averages of π(z,a|s) = π(a|s) ρ(z|s,a), the policy with the
        posterior of the skill. ρ(z|x_H) = E_d[π(z|s)|x_H] and ρ(a|z,x_L) ∝ E_d[π(z,a|s)|x_L]. A group that is not visited
        keeps its prior.

        :param visits: d(s), not necessarily normalised, [S]
        :param policy: π(a|s), [S, A]
        :return: the new prior, and 1 plus the largest gain of a step towards a single skill or action, in the penalty per
            visit of the group; that is 1 if and only if both levels are stationary
        """
        joint = self.joint()
        mixture = joint.sum(axis=1, keepdims=True)
        posterior = np.divide(joint, mixture, out=np.zeros(joint.shape), where=mixture > 0.0)
        skill_policy = policy[:, None, :] * posterior
        high = weights_in_groups(visits, self.high_groups, len(self.high)) @ skill_policy.sum(axis=2)
        low = weights_in_groups(visits, self.low_groups, self.low.shape[1]) @ skill_policy.transpose(1, 0, 2)
        # The number of uses of a skill weighs the growth of its actions: a skill without use is stationary
        use = low.sum(axis=2, keepdims=True)
        growth = np.divide(high, self.high, out=np.ones(high.shape), where=self.high > 0.0)
        low_growth = 1.0 + np.divide(low, self.low, out=use + np.zeros(low.shape), where=self.low > 0.0) - use
        low = np.divide(low, use, out=np.zeros(low.shape), where=use > 0.0)
        improved = self._replace(
            high=_replace_rows(self.high, high, _SMALLEST_SKILL), low=_replace_rows(self.low, low, _SMALLEST_SKILL)
        )
        return improved, float(max(growth.max(), low_growth.max()))
