"""
The priors of many tabular learners, as rows of shared tables. They are updated by the running averages of Algorithm 1.

Shapes: S states, A actions, R runs, G groups, K skills; n any number of states, which are numbered over all runs. All arrays
are NumPy's, float64. Symbols are those of ``operators.py``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sb3_mirl.tabular.mdp import as_distribution
from sb3_mirl.tabular.priors import apply_masks, check_groups, draw_skills


class RunPrior(NamedTuple):
    """The first prior of one run, checked, and what the run does with it."""

    high: np.ndarray  # ρ(z|x_H), [G_H, K]
    low: np.ndarray  # ρ(a|z,x_L), [K, G_L, A]
    high_groups: np.ndarray  # x_H of each state, [S]
    low_groups: np.ndarray  # x_L of each state, [S]
    masks: np.ndarray | None  # which actions are valid, [S, A]
    prior_lr: float
    high_lr: float
    uses_prior: bool  # whether target and π use ρ; otherwise the uniform distribution
    infinite_beta: bool  # whether β = ∞: only the support of ρ counts, so log ρ is replaced by 0 there


def first_low_level(
    prior_init: ArrayLike | None,
    prior_groups: ArrayLike | None,
    n_skills: int,
    shape: tuple[int, int],
    generator: np.random.Generator,
) -> np.ndarray:
    """
    The first ρ(a|z,x_L) of a run. One skill is uniform by default, several are drawn.

    :param prior_init: ρ(a), [A]; with groups ρ(a|x), [G, A]; with skills ρ(a|z,x_L), [K, G, A]; or None
    :param prior_groups: x_L of each state, [S]; or None
    :param n_skills: K
    :param shape: (S, A)
    :param generator: of the draw
    :return: ρ(a|z,x_L), [K, G, A]
    :raises ValueError: if ``prior_init`` or ``prior_groups`` does not fit
    """
    n_actions = shape[1]
    n_groups = int(check_groups("prior_groups", prior_groups, shape[0]).max()) + 1
    if prior_init is None:
        return draw_skills(generator, n_skills, n_groups, n_actions)
    if n_skills == 1 and prior_groups is None:
        return as_distribution("prior_init", prior_init, (n_actions,))[None, None]
    leading = (n_skills,) if n_skills > 1 else ()
    # A table may also have groups that no state of this world belongs to
    given = np.shape(prior_init)
    n_groups = max(n_groups, given[-2]) if len(given) == len(leading) + 2 else n_groups
    return as_distribution("prior_init", prior_init, (*leading, n_groups, n_actions)).reshape(n_skills, n_groups, n_actions)


class _Priors:
    """What :class:`TablePriors` and :class:`SkillPriors` share. ``reference`` is the prior in target and π: ρ or uniform."""

    def __init__(self, runs: Sequence[RunPrior], n_actions: int) -> None:
        n_states = [len(run.low_groups) for run in runs]
        self._runs = runs
        self._run_of_state = np.repeat(np.arange(len(runs)), n_states)
        self._first_low = np.cumsum([0, *(run.low.shape[1] for run in runs)])
        self._low_row = np.concatenate([run.low_groups + first for run, first in zip(runs, self._first_low, strict=False)])
        #: ρ(a|z,x_L) of all runs, [Σ G_L, K, A], zero for skills and actions that a run does not have
        self._low = np.zeros((self._first_low[-1], max(run.low.shape[0] for run in runs), n_actions))
        #: The uniform distribution over the actions of each run, [R, A]
        self._uniform = np.zeros((len(runs), n_actions))
        for row, (run, first) in enumerate(zip(runs, self._first_low, strict=False)):
            n_skills, n_groups, own_actions = run.low.shape
            self._low[first : first + n_groups, :n_skills, :own_actions] = run.low.transpose(1, 0, 2)
            self._uniform[row, :own_actions] = 1.0 / own_actions
        self._prior_lr = np.array([run.prior_lr for run in runs])
        self._uses_prior = np.array([run.uses_prior for run in runs])
        self._infinite_beta = np.array([run.infinite_beta for run in runs])

    def low(self, run: int) -> np.ndarray:
        """A copy of ρ(a|z,x_L) of one run, [K, G_L, A]; -1 is the last run."""
        run = range(len(self._runs))[run]
        first, (n_skills, n_groups, n_actions) = self._first_low[run], self._runs[run].low.shape
        return self._low[first : first + n_groups, :n_skills, :n_actions].transpose(1, 0, 2).copy()


def _log_weights(reference: np.ndarray, infinite_beta: np.ndarray) -> np.ndarray:
    """log ρ [n, A], for ``infinite_beta`` [n]: 0 on the support of ρ and -∞ elsewhere where β = ∞."""
    with np.errstate(divide="ignore"):
        return np.log(np.where(infinite_beta[:, None], reference > 0.0, reference))


class TablePriors(_Priors):
    """ρ(a|x) of many runs without skills and masks. The logarithms are cached."""

    def __init__(self, runs: Sequence[RunPrior], n_actions: int) -> None:
        super().__init__(runs, n_actions)
        run_of_row = np.repeat(np.arange(len(runs)), np.diff(self._first_low))
        self._prior = self._low[:, 0]
        self._reference = np.where(self._uses_prior[run_of_row, None], self._prior, self._uniform[run_of_row])
        self._logarithm = _log_weights(self._reference, self._infinite_beta[run_of_row])
        self._step_size = self._prior_lr[:, None]
        self._is_marginal = len(self._prior) == len(runs)
        #: Runs whose reference is a ρ that is learned
        self._moving = np.flatnonzero(self._uses_prior & (self._prior_lr > 0.0))
        self._infinite_beta_moving = self._infinite_beta[self._moving]

    def behaviour(self, state: np.ndarray) -> np.ndarray:
        """ρ(·|s), from which explored actions are drawn, [n, A]."""
        return self._prior[self._low_row[state]]

    def reference(self, state: np.ndarray) -> np.ndarray:
        """The distribution of target and π, [n, A]."""
        return self._reference[self._low_row[state]]

    def log_weights(self, state: np.ndarray) -> np.ndarray:
        """log_weights_everywhere() in one state of each run [R], [R, A]; not to be written to."""
        return self._logarithm[self._rows(state)]

    def log_weights_everywhere(self) -> np.ndarray:
        """The logarithm of the reference in all states, [Σ S, A]; with β = ∞, 0 on the support and -∞ elsewhere."""
        return self._logarithm[self._low_row]

    def _rows(self, state: np.ndarray) -> Any:
        """The rows of one state of each run. Without groups they are all rows: a slice, which costs nothing."""
        return slice(None) if self._is_marginal else self._low_row[state]

    def move(self, state: np.ndarray, policy: np.ndarray) -> None:
        """ρ(·|x) ← (1 - α_ρ) ρ(·|x) + α_ρ π(·|s), for one state of each run [R] and π [R, A]."""
        rows = self._rows(state)
        prior = self._prior[rows]
        prior += self._step_size * (policy - prior)
        self._prior[rows] = prior
        if len(moving := self._moving):
            rows = moving if self._is_marginal else rows[moving]
            self._reference[rows] = prior[moving]
            self._logarithm[rows] = _log_weights(prior[moving], self._infinite_beta_moving)


class SkillPriors(_Priors):
    """ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z,x_L) of many runs, among the valid actions: the general case, computed on demand."""

    def __init__(self, runs: Sequence[RunPrior], n_actions: int) -> None:
        super().__init__(runs, n_actions)
        self._first_high = np.cumsum([0, *(len(run.high) for run in runs)])
        self._high_row = np.concatenate([run.high_groups + first for run, first in zip(runs, self._first_high, strict=False)])
        self._high = np.zeros((self._first_high[-1], self._low.shape[1]))
        self._masks = np.zeros((len(self._run_of_state), n_actions), dtype=bool)
        first_state = np.cumsum([0, *(len(run.low_groups) for run in runs)])
        for run, high, state in zip(runs, self._first_high, first_state, strict=False):
            self._high[high : high + len(run.high), : run.high.shape[1]] = run.high
            self._masks[state : state + len(run.low_groups), : run.low.shape[2]] = True if run.masks is None else run.masks
        self._high_lr = np.array([run.high_lr for run in runs])

    def _joint(self, state: np.ndarray) -> np.ndarray:
        """ρ(z|x_H) ρ(a|z,x_L), [n, K, A]."""
        return self._high[self._high_row[state], :, None] * self._low[self._low_row[state]]

    def high(self, run: int) -> np.ndarray:
        """A copy of ρ(z|x_H) of one run, [G_H, K]; -1 is the last run."""
        run = range(len(self._runs))[run]
        first, (n_groups, n_skills) = self._first_high[run], self._runs[run].high.shape
        return self._high[first : first + n_groups, :n_skills].copy()

    def behaviour(self, state: np.ndarray) -> np.ndarray:
        """ρ(·|s), from which explored actions are drawn, [n, A]."""
        return apply_masks(self._joint(state).sum(axis=1), self._masks[state])

    def reference(self, state: np.ndarray) -> np.ndarray:
        """The distribution of target and π, [n, A]."""
        run = self._run_of_state[state]
        uniform = apply_masks(self._uniform[run], self._masks[state])
        return np.where(self._uses_prior[run, None], self.behaviour(state), uniform)

    def log_weights(self, state: np.ndarray) -> np.ndarray:
        """log_weights_everywhere() in the states [n], [n, A]."""
        return _log_weights(self.reference(state), self._infinite_beta[self._run_of_state[state]])

    def log_weights_everywhere(self) -> np.ndarray:
        """The logarithm of the reference in all states, [Σ S, A]; with β = ∞, 0 on the support and -∞ elsewhere."""
        return self.log_weights(np.arange(len(self._low_row)))

    def move(self, state: np.ndarray, policy: np.ndarray) -> None:
        """
        One step of expectation-maximisation with π(z,a|s) = π(a|s) ρ(z|s,a), for one state of each run [R] and π [R, A]:
        ρ(z|x_H) follows π(z|s), and ρ(a|z,x_L) follows π(a|z,s) with the step size α_ρ π(z|s).
        """
        high, low = self._high[self._high_row[state]], self._low[self._low_row[state]]
        joint = self._joint(state)
        mixture = joint.sum(axis=1, keepdims=True)
        # If no valid action has mass, the posterior of the skill is its prior: actions are drawn uniformly
        posterior = np.where(mixture > 0.0, joint / np.where(mixture > 0.0, mixture, 1.0), high[:, :, None])
        skill_policy = policy[:, None, :] * posterior
        use = skill_policy.sum(axis=2)
        self._high[self._high_row[state]] += self._high_lr[:, None] * (use - high)
        self._low[self._low_row[state]] += self._prior_lr[:, None, None] * (skill_policy - use[:, :, None] * low)
