"""
MIRL with a table instead of a network: the learners of the paper's grid worlds.

Source: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019.

Shapes: S states, A actions, R runs, G groups of states, K skills. All arrays are NumPy's, float64. Symbols are those of
``operators.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch as th
from numpy.typing import ArrayLike

from sb3_mirl.envs.gridworld import Outcomes
from sb3_mirl.mirl.operators import soft_policy, soft_value
from sb3_mirl.tabular.learned_priors import RunPrior, SkillPriors, TablePriors, first_low_level
from sb3_mirl.tabular.priors import check_groups, check_masks, check_n_skills

# Below this β, soft_value's log1p and expm1 keep the digits that log and exp lose
_SMALL_BETA = 1e-2
# Random numbers are drawn for this many steps at a time
_BLOCK_STEPS = 512


@dataclass(frozen=True, kw_only=True)
class TabularSettings:
    """
    Settings of a tabular learner. The defaults are MIRL's, from the paper's slides and its reproducers, except ``gamma``,
    which is unknown.

    :param regularization: ``"mutual_information"``: target and π use the learned ρ; ``"entropy"``: they use the uniform
        distribution
    :param prior_lr: α_ρ in [0, 1], per step; 0 keeps ρ fixed
    :param prior_init: the first ρ, [A]; with groups ρ(a|x), [G, A]; with skills ρ(a|z,x_L), [K, G_L, A]. By default ρ is
        uniform, and skills are drawn from the seed of the run by :func:`~sb3_mirl.tabular.priors.draw_skills`
    :param n_skills: K of ρ(a|x) = Σ_z ρ(z|x_H) ρ(a|z,x_L); 1: a prior without skills
    :param high_lr: step size in [0, 1] of ρ(z|x_H), which begins as uniform; by default ``prior_lr``, which is that of
        ρ(a|z,x_L)
    :param beta_init: β₀ from 0 to ∞ included, in 1/reward
    :param beta_lr: c ≥ 0 of β_i = β₀ + c·i, per step
    :param beta_max: the largest β
    :param gamma: γ in [0, 1]
    :param exploration: ε in [0, 1], the probability of drawing the action from ρ
    :param q_lr: α in [0, 1], of the learning rate α_Q = α · n(s,a)^(-ω), n counting visits from 1
    :param q_lr_decay: ω ≥ 0; 0 gives a constant learning rate
    :raises ValueError: if a value is out of its range
    """

    regularization: str = "mutual_information"
    prior_lr: float = 2e-3
    prior_init: ArrayLike | None = None
    n_skills: int = 1
    high_lr: float | None = None
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
        check_n_skills(self.n_skills)
        for name in ("prior_lr", "gamma", "exploration", "q_lr", "high_lr"):
            if not (name == "high_lr" and self.high_lr is None) and not 0.0 <= getattr(self, name) <= 1.0:
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
    """One learner in one world. Groups are whole numbers from 0; None: all states are in group 0."""

    env: Any
    """An environment with ``P`` and ``initial_state_distrib``, such as ``GridWorld``, FrozenLake, CliffWalking or Taxi"""
    settings: TabularSettings
    seed: int
    prior_groups: ArrayLike | None = None
    """x = g(s) of ρ(a|x), [S]; with skills x_L of ρ(a|z,x_L)"""
    high_groups: ArrayLike | None = None
    """x_H of ρ(z|x_H), [S]; without skills it has no effect"""
    action_masks: ArrayLike | None = None
    """Which actions are valid, [S, A]: ρ(a|s) ∝ ρ(a|x) · mask(s); None: all"""


class _Tables(NamedTuple):
    """An environment's ``P`` as arrays. K is the largest number of outcomes of an action."""

    next_state: np.ndarray  # [S, A, K]
    reward: np.ndarray  # [S, A, K]
    done: np.ndarray  # [S, A, K]
    cumulative: np.ndarray  # [S, A, K], P(outcome <= k)
    start: np.ndarray  # [S], P(first state <= s)

    @classmethod
    def from_env(cls, env: Any, n_outcomes: int, n_actions: int) -> "_Tables":
        """The tables, padded with outcomes of probability 0 and with actions that change nothing."""
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


def _first_prior(run: TabularRun, generator: np.random.Generator) -> RunPrior:
    """The checked prior of a run; ``generator`` draws skills."""
    settings, outcomes = run.settings, run.env.unwrapped.P
    n_states, n_actions, n_skills = len(outcomes), len(outcomes[0]), settings.n_skills
    groups = check_groups("high_groups", run.high_groups, n_states)
    return RunPrior(
        high=np.full((int(groups.max()) + 1, n_skills), 1.0 / n_skills),
        low=first_low_level(settings.prior_init, run.prior_groups, n_skills, (n_states, n_actions), generator),
        high_groups=groups,
        low_groups=check_groups("prior_groups", run.prior_groups, n_states),
        masks=None if run.action_masks is None else check_masks(run.action_masks, (n_states, n_actions)),
        prior_lr=settings.prior_lr,
        high_lr=settings.prior_lr if settings.high_lr is None else settings.high_lr,
        uses_prior=settings.regularization == "mutual_information",
        infinite_beta=bool(np.isinf(settings.beta_init) and np.isinf(settings.beta_max)),
    )


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Cumulative sums over the last axis. They reach exactly 1 in spite of rounding."""
    cumulative = probability.cumsum(axis=-1)
    return np.where(cumulative >= cumulative[..., -1:], 1.0, cumulative)


class TabularLearners:
    """
    Many independent tabular learners, stepped together: all arrays have one row per run.

    Each run draws its random numbers from its own seed, so that its result does not depend on the other runs, and runs with
    the same seed get the same random numbers whatever their settings. (If other runs have more actions, masks or skills, sums
    may be rounded differently.)

    A step of a learner is Algorithm 1 with a table. The policy is π_i ∝ ρ_i exp(β_i Q_i(s,·)). The action is the most probable
    one or, with probability ε, a draw from ρ_i. ρ_i moves towards π_i, in the group of the state only. Q(s,a) moves towards
    r + γ V(s') with the step α_Q, where V is the soft value of Q_i for ρ_{i+1} and β_i. Q starts at 0. Episodes end by
    termination only, and the next one starts at once.

    :param runs: worlds, settings and seeds; worlds may differ in size
    :raises ValueError: if there are no runs, or if the first prior, the groups or the masks of a run do not fit its world
    """

    def __init__(self, runs: Sequence[TabularRun]) -> None:
        if not runs:
            raise ValueError("runs must hold at least one run, got none")
        self.runs = list(runs)
        #: Environment steps that every run has made
        self.n_steps = 0
        self._rows = np.arange(len(self.runs))
        self._set_up_tables()
        # The third stream was added later: spawn() gives the same first two streams with and without it
        streams = [np.random.SeedSequence(run.seed).spawn(3) for run in self.runs]
        self._training_random = [np.random.default_rng(training) for training, _, _ in streams]
        self._evaluation_random = [np.random.default_rng(evaluation) for _, evaluation, _ in streams]
        self._set_up_settings([np.random.default_rng(skills) for _, _, skills in streams])
        self._state = self._first_states(np.array([[generator.random()] for generator in self._training_random]))[:, 0]

    def _set_up_tables(self) -> None:
        """Concatenate the tables of all runs; states are numbered over all runs."""
        worlds = {id(run.env): run.env for run in self.runs}
        outcomes = [env.unwrapped.P for env in worlds.values()]
        self._n_actions = max(len(p[0]) for p in outcomes)
        self._n_outcomes = max(len(follow) for p in outcomes for actions in p.values() for follow in actions.values())
        tables = {key: _Tables.from_env(env, self._n_outcomes, self._n_actions) for key, env in worlds.items()}
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

    def _set_up_settings(self, skills_random: list[np.random.Generator]) -> None:
        """The settings as columns, one row per run, and the priors."""

        def column(name: str) -> np.ndarray:
            return np.array([getattr(run.settings, name) for run in self.runs], dtype=np.float64)

        self._beta_init, self._beta_lr, self._beta_max = column("beta_init"), column("beta_lr"), column("beta_max")
        self._exploration, self._q_lr, self._q_lr_decay = column("exploration"), column("q_lr"), column("q_lr_decay")
        first = [_first_prior(run, generator) for run, generator in zip(self.runs, skills_random, strict=True)]
        is_plain = all(len(prior.low) == 1 and prior.masks is None for prior in first)
        self._priors = TablePriors(first, self._n_actions) if is_plain else SkillPriors(first, self._n_actions)
        # With β = ∞, target and action depend on the support of ρ only: its indicator replaces ρ
        self._infinite_beta = np.array([prior.infinite_beta for prior in first])
        self._breaks_ties = self._infinite_beta & np.array([prior.uses_prior for prior in first])
        learns_prior = np.array([prior.prior_lr > 0.0 or prior.high_lr > 0.0 for prior in first])
        self._infinite_beta_learners = np.flatnonzero(self._infinite_beta & learns_prior)

    def _first_states(self, random: np.ndarray) -> np.ndarray:
        """States in which episodes start, for uniform random numbers [R, n]."""
        rows = zip(self._starts, random, self._first_state, strict=True)
        return np.stack([np.searchsorted(start, numbers, "right") + first for start, numbers, first in rows])

    @property
    def prior(self) -> np.ndarray:
        """
        A copy of ρ of every run, [R, A]; 0 for actions that a run's world does not have.

        :raises ValueError: if a run has several groups, or skills
        """
        prior = np.zeros((len(self.runs), self._n_actions))
        for number in range(len(self.runs)):
            low = self._priors.low(number)
            if low.shape[:2] != (1, 1):
                raise ValueError(
                    f"prior holds one ρ(a) per run, but run {number} has {low.shape[0]} skills and {low.shape[1]} groups; "
                    f"take prior_table(run), skills(run) or prior_probabilities(run)"
                )
            prior[number, : low.shape[2]] = low[0, 0]
        return prior

    def prior_table(self, run: int) -> np.ndarray:
        """
        A copy of the prior of one run without skills.

        :param run: the run's index
        :return: ρ(a|x), [G, A] of its world
        :raises ValueError: if the run has skills
        """
        low = self._priors.low(run)
        if len(low) > 1:
            raise ValueError(f"prior_table: run {run} has {len(low)} skills; take skills(run) or prior_probabilities(run)")
        return low[0]

    def skills(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """
        A copy of the prior of one run with skills.

        :param run: the run's index
        :return: ρ(z|x_H), [G_H, K], and ρ(a|z,x_L), [K, G_L, A] of its world
        :raises ValueError: if the run has no skills
        """
        if self.runs[run].settings.n_skills == 1 or isinstance(self._priors, TablePriors):
            raise ValueError(f"skills: run {run} has n_skills=1; take prior_table(run)")
        return self._priors.high(run), self._priors.low(run)

    def prior_probabilities(self, run: int) -> np.ndarray:
        """
        The prior of one run in each state, among the valid actions.

        :param run: the run's index
        :return: ρ(·|s), [S, A] of its world
        """
        return self._priors.behaviour(self._states(run))[:, : self._own_actions(run)]

    def _states(self, run: int) -> np.ndarray:
        """The numbers of a run's states, [S]."""
        return self._first_state[run] + np.arange(self._n_states[run])

    def _own_actions(self, run: int) -> int:
        return len(self.runs[run].env.unwrapped.P[0])

    @property
    def beta(self) -> np.ndarray:
        """β_i of the next step of every run, [R], in 1/reward."""
        return self._betas(self.n_steps, 1)[0]

    def q_values(self, run: int) -> np.ndarray:
        """
        A copy of the table of one run.

        :param run: the run's index
        :return: Q(s,a), [S, A] of its world
        """
        return self._q[self._states(run), : self._own_actions(run)]

    def policy(self, run: int) -> np.ndarray:
        """
        The policy of one run.

        :param run: the run's index
        :return: π(a|s), [S, A] of its world
        """
        reference = self._priors.reference(self._states(run))[:, : self._own_actions(run)]
        return soft_policy(th.from_numpy(self.q_values(run)), th.from_numpy(reference), self.beta[run]).numpy()

    def _betas(self, first: int, n_steps: int) -> np.ndarray:
        """β_i for i from ``first`` on, [n_steps, R]."""
        steps = np.arange(first, first + n_steps)[:, None]
        return np.minimum(self._beta_init + self._beta_lr * steps, self._beta_max)

    def learn(self, n_steps: int) -> "TabularLearners":
        """
        Let every run make ``n_steps`` more environment steps. The result does not depend on how they are split into calls.

        :param n_steps: number of steps, at least 0
        :return: the learners themselves
        :raises ValueError: if ``n_steps`` is negative
        """
        if n_steps < 0:
            raise ValueError(f"n_steps must not be negative, got {n_steps!r}")
        for done in range(0, n_steps, _BLOCK_STEPS):
            self._learn_block(min(_BLOCK_STEPS, n_steps - done))
        return self

    def _learn_block(self, n_steps: int) -> None:
        """Make ``n_steps`` steps, whose random numbers are drawn at once."""
        # For each run and step: whether to explore, the explored action, the outcome, the start of a new episode
        random = np.stack([generator.random((n_steps, 4)) for generator in self._training_random])
        coins, choices, chances, _ = np.ascontiguousarray(random.transpose(2, 1, 0))
        explores = coins < self._exploration
        starts = np.ascontiguousarray(self._first_states(random[:, :, 3]).T)
        betas = self._betas(self.n_steps, n_steps)
        scales = self._scale(betas)
        for i in range(n_steps):
            action, policy = self._act(scales[i], explores[i], choices[i])
            outcome, pair = self._outcome(self._state, action, chances[i])
            self._priors.move(self._state, policy)
            self._move_q(pair, outcome, betas[i], scales[i])
            self._state = np.where(self._done[outcome], starts[i], self._next_state[outcome])
        self.n_steps += n_steps

    def _scale(self, beta: np.ndarray) -> np.ndarray:
        """The factor of Q in the logits of π, [..., R]: β, or 1 if β = ∞."""
        return np.where(self._infinite_beta, 1.0, beta)

    def _act(self, scale: np.ndarray, explores: np.ndarray, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [R] of the behaviour policy, and π [R, A] where the agents are."""
        logits = scale[:, None] * self._q[self._state] + self._priors.log_weights(self._state)
        action = self._most_probable(logits, self._rows, self._state)
        policy = np.exp(logits - logits.max(axis=1, keepdims=True))
        if len(rows := self._infinite_beta_learners):
            policy[rows] = self._priors.reference(self._state[rows]) * (policy[rows] == 1.0)
        policy /= policy.sum(axis=1, keepdims=True)
        if len(rows := np.flatnonzero(explores)):
            action[rows] = _draw(self._priors.behaviour(self._state[rows]), choice[rows])
        return action, policy

    def _most_probable(self, logits: np.ndarray, run: np.ndarray, state: np.ndarray) -> np.ndarray:
        """argmax π for logits [n, A] of the runs and states [n]; with β = ∞, ties are broken by the largest ρ."""
        action = logits.argmax(axis=1)
        if len(rows := np.flatnonzero(self._breaks_ties[run])):
            best = logits[rows] == logits[rows].max(axis=1, keepdims=True)
            action[rows] = (best * self._priors.reference(state[rows])).argmax(axis=1)
        return action

    def _outcome(self, state: np.ndarray, action: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices into the flat tables of the outcome and of the pair (s, a). Both have the shape of ``state``."""
        pair = state * self._n_actions + action
        if self._n_outcomes == 1:
            return pair, pair
        return pair * self._n_outcomes + (self._cumulative[pair] <= chance[:, None]).sum(axis=1), pair

    def _move_q(self, pair: np.ndarray, outcome: np.ndarray, beta: np.ndarray, scale: np.ndarray) -> None:
        """Q(s,a) ← Q(s,a) + α_Q (r + γ V(s') - Q(s,a)), with the updated ρ."""
        next_state = self._next_state[outcome]
        next_q = self._q[next_state]
        logits = scale[:, None] * next_q + self._priors.log_weights(next_state)
        peak = logits.max(axis=1)
        # The shifted log-sum-exp of operators.soft_value, for one β per row
        log_sum = np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        value = (peak + np.where(self._infinite_beta, 0.0, log_sum)) / np.where(scale == 0.0, 1.0, scale)
        if len(rows := np.flatnonzero(beta < _SMALL_BETA)):
            reference = self._priors.reference(next_state[rows])
            value[rows] = soft_value(*map(th.from_numpy, (next_q[rows], reference, beta[rows]))).numpy()
        self._visits[pair] += 1.0
        step_size = self._q_lr * self._visits[pair] ** -self._q_lr_decay
        table = self._q.reshape(-1)
        table[pair] += step_size * (self._reward[outcome] + self._discount[outcome] * value - table[pair])

    def evaluate(self, n_episodes: int = 30, max_steps: int = 100, exploration: float = 0.05) -> np.ndarray:
        """
        Returns of new episodes of the behaviour policy, without learning. Evaluation has its own random numbers, so that it
        does not change the training.

        :param n_episodes: number of episodes of every run
        :param max_steps: the largest number of steps of an episode
        :param exploration: ε in [0, 1]
        :return: undiscounted returns, [R, n_episodes], in units of reward
        :raises ValueError: if an argument is out of its range
        """
        if n_episodes < 1 or max_steps < 1:
            raise ValueError(f"n_episodes and max_steps must be at least 1, got {n_episodes!r} and {max_steps!r}")
        if not 0.0 <= exploration <= 1.0:
            raise ValueError(f"exploration must lie in [0, 1], got {exploration!r}")
        run_of_state, states = np.repeat(self._rows, self._n_states), np.arange(len(self._q))
        logits = self._scale(self.beta)[run_of_state, None] * self._q + self._priors.log_weights_everywhere()
        greedy = self._most_probable(logits, run_of_state, states)
        random = np.stack([generator.random((max_steps + 1, 3, n_episodes)) for generator in self._evaluation_random], axis=-2)
        state = self._first_states(random[0, 0]).ravel()
        random = random.reshape(max_steps + 1, 3, -1)
        returns = np.zeros(len(self.runs) * n_episodes)
        playing = np.arange(len(returns))
        for coin, choice, chance in random[1:]:
            action = greedy[state]
            rows = np.flatnonzero(coin[playing] < exploration)
            action[rows] = _draw(self._priors.behaviour(state[rows]), choice[playing[rows]])
            outcome, _ = self._outcome(state, action, chance[playing])
            returns[playing] += self._reward[outcome]
            goes_on = ~self._done[outcome]
            state, playing = self._next_state[outcome][goes_on], playing[goes_on]
        return returns.reshape(len(self.runs), n_episodes)


def _draw(distribution: np.ndarray, random: np.ndarray) -> np.ndarray:
    """One index per row of ``distribution`` [n, A], by inversion of its cumulative sum at uniform random numbers [n]."""
    cumulative = distribution.cumsum(axis=1)
    return (cumulative <= (random * cumulative[:, -1])[:, None]).sum(axis=1)
