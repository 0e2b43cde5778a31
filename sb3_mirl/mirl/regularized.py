""":class:`RegularizedDQN`: the parts of MIRL beside its algorithm: ρ and β as attributes, in logs and in files."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.text import printable
from sb3_mirl.mirl.callbacks import decoupling_factor
from sb3_mirl.mirl.policies import MIRLPolicy
from sb3_mirl.mirl.skills import Skills
from sb3_mirl.mirl.state_priors import Conditional, ConditionalNetwork, StatePrior
from sb3_mirl.mirl.views import View, describe_view, resolve_view

#: With more actions than this, the entries of ρ are not logged
MAX_LOGGED_ACTIONS = 32


class RegularizedDQN(BaseDQN):
    """A DQN with a prior ρ and an inverse temperature β. Its arguments are those of :class:`~sb3_mirl.MIRL`."""

    newer_arguments: ClassVar[tuple[str, ...]] = (
        "reference_n_actions",
        "prior_type",
        "prior_observation",
        "n_skills",
        "prior_kwargs",
    )
    policy: MIRLPolicy
    prior_type: str
    prior_observation: Any
    n_skills: int | None
    prior_kwargs: dict[str, Any] | None
    prior_lr: float | str
    prior_init: Any
    beta_lr: float | str
    reference_n_actions: int | None
    regularization: str
    resolved_prior_lr: float | None
    resolved_beta_lr: float | None
    #: During :meth:`train`, where ρ is learned from batches: the states s of the latest batch and Q(s, ·), [batch, n_actions]
    gradient_batch: tuple[PyTorchObs, th.Tensor] | None = None

    def check_model_arguments(self) -> None:
        """Check the attributes that hold constructor arguments, see :class:`BaseDQN`. Slices become lists of indices."""
        super().check_model_arguments()
        self.prior_observation = _resolved(self.prior_observation, self.observation_space)

    def extend_policy(self, policy: Any) -> None:
        """Give a policy its regularisation and its ``state_prior``."""
        super().extend_policy(policy)
        policy.regularization = self.regularization
        state_prior = make_state_prior(
            self.prior_type,
            _resolved(self.prior_observation, self.observation_space),
            self.n_skills,
            self.prior_kwargs or {},
            self.observation_space,
            int(self.action_space.n),  # type: ignore[attr-defined]
            self.seed,
            policy.device,
        )
        if state_prior is not None and state_prior.learns_from_batches and self.uses_action_masks:
            raise ValueError(
                f"prior_observation must be a discrete view where the environment has action masks, got "
                f"{self.prior_observation!r}: a network learns from batches, which do not have the masks of s"
            )
        if state_prior is not None and self.prior_init is not None:
            start_from(state_prior, self.prior_init, self.prior_type, self.prior_observation)
        policy.state_prior = None if state_prior is None else state_prior.to(policy.device)

    def exported_argument(self, name: str, value: Any) -> Any:
        """A constructor argument in the form in which exports hold it; a function is replaced by its name."""
        return describe_view(value) if name == "prior_observation" else super().exported_argument(name, value)

    def prior_inputs(self, obs: Any, action_masks: np.ndarray | None) -> dict[str, Any]:
        """
        Arguments for draws from ρ. A marginal ρ without masks needs none, so that a user's policy may lack these parameters.

        :param obs: observations
        :param action_masks: bool [batch, n_actions]; None: no masks
        :return: arguments of ``policy.sample_prior`` and ``policy.explore``
        """
        if action_masks is not None:
            return {"obs": obs, "action_masks": action_masks}
        return {} if self.policy.state_prior is None else {"obs": obs}

    @property
    def prior(self) -> np.ndarray:
        """
        A copy of ρ(a), float64 [n_actions], or of the table ρ(a|x) of a discrete view x, [n_x, n_actions].

        :raises ValueError: if ρ is a network or a mixture of skills
        """
        state_prior = self.policy.state_prior
        if state_prior is not None and not isinstance(state_prior, Conditional):
            raise ValueError(
                f"prior is a table for a marginal or a discrete view only, and the model has a {type(state_prior).__name__}: "
                "policy.prior_probabilities(obs) gives its values"
            )
        return (self.policy.prior if state_prior is None else state_prior.table).cpu().numpy().copy()

    @property
    def beta(self) -> float:
        """β, in 1/reward."""
        return self.policy.beta.item()

    @property
    def beta_factor(self) -> float:
        """The factor of β for the number of actions: :func:`~sb3_mirl.mirl.callbacks.decoupling_factor`; usually 1."""
        return decoupling_factor(int(self.action_space.n), self.reference_n_actions)  # type: ignore[attr-defined]

    @property
    def prior_step_size(self) -> float | None:
        """α_ρ per environment transition; None for ``"auto"`` before the first :meth:`learn`."""
        return self.resolved_prior_lr if self.prior_lr == "auto" else self.prior_lr  # type: ignore[return-value]

    @property
    def beta_step_size(self) -> float | None:
        """α_β per gradient step, or per environment transition; None for ``"auto"`` before the first :meth:`learn`."""
        return self.resolved_beta_lr if self.beta_lr == "auto" else self.beta_lr  # type: ignore[return-value]

    def dump_logs(self) -> None:
        """SB3's ``dump_logs()``, with ρ and its entropy; of tables the mean entropy of their rows."""
        if self.policy.state_prior is not None:
            for name, value in self.policy.state_prior.logged_values().items():
                self.logger.record(f"rollout/{name}", value)
        else:
            self._log_marginal(self.policy.prior)
        super().dump_logs()

    @property
    def logs_prior(self) -> bool:
        """Whether ρ is logged by action: a marginal ρ of at most :data:`MAX_LOGGED_ACTIONS`."""
        return self.policy.state_prior is None and len(self.policy.prior) <= MAX_LOGGED_ACTIONS

    def _log_marginal(self, prior: th.Tensor) -> None:
        self.logger.record("rollout/prior_entropy", -th.special.xlogy(prior, prior).sum().item())
        if self.logs_prior:
            first = self.action_space.start  # type: ignore[attr-defined]
            names = self.action_names or [f"action_{first + action}" for action in range(len(prior))]
            for name, probability in zip(names, prior.tolist(), strict=True):
                # SB3's CSV files do not quote the names of columns
                self.logger.record(f"prior/{printable(name).replace(',', ';')}", probability)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "gradient_batch"]


def _resolved(given: Any, space: spaces.Space) -> Any:
    """``prior_observation``, checked against the observation space; slices become lists of indices."""
    if isinstance(given, Mapping):
        return {level: resolve_view(f"prior_observation[{level!r}]", view, space) for level, view in given.items()}
    return resolve_view("prior_observation", given, space)


def make_state_prior(
    prior_type: str,
    observation: Any,
    n_skills: int | None,
    settings: Mapping[str, Any],
    space: spaces.Space,
    n_actions: int,
    seed: int | None,
    device: th.device,
) -> StatePrior | None:
    """
    The ρ(·|x) that arguments of :class:`~sb3_mirl.MIRL` describe.

    :param prior_type: the argument
    :param observation: the argument ``prior_observation``, with lists for slices
    :param n_skills: the argument
    :param settings: the argument ``prior_kwargs``
    :param space: the observation space
    :param n_actions: the number of actions
    :param seed: the argument
    :param device: device on which a function ``prior_observation`` is tried
    :return: ρ(·|x); None for the marginal
    :raises ValueError: if they do not fit together; the message names the argument
    """
    if prior_type == "marginal":
        return None
    tried_on = "cpu" if device.type == "meta" else device
    own = {name: value for name, value in settings.items() if name != "n_values"}
    if prior_type == "skills":
        sizes = settings.get("n_values") or {}
        high, low = (
            View(f"prior_observation[{level!r}]", observation[level], space, sizes.get(level), tried_on)
            for level in ("high", "low")
        )
        assert n_skills is not None
        return Skills(high, low, n_skills, n_actions, seed, **own)
    view = View("prior_observation", observation, space, settings.get("n_values"), tried_on)
    if view.n_values is None:
        return ConditionalNetwork(view, n_actions, seed, **own)
    if own:
        raise ValueError(f"prior_kwargs: {sorted(own)} are for a continuous view, and prior_observation is a discrete one")
    return Conditional(view, n_actions)


def start_from(state_prior: StatePrior, given: Any, prior_type: str, observation: Any) -> None:
    """
    Set the distributions with which a prior begins.

    :param state_prior: the prior
    :param given: the argument ``prior_init``: an array, or what :func:`~sb3_mirl.load_prior` returns
    :param prior_type: the argument
    :param observation: the argument ``prior_observation``
    :raises ValueError: if ``given`` belongs to another kind of prior or to another view
    """
    parts = given if isinstance(given, Mapping) else {"table": given}
    view = parts.get("prior_observation")
    parts = {name: value for name, value in parts.items() if name != "prior_observation"}
    if unknown := sorted(parts.keys() - set(state_prior.parts)):
        raise ValueError(
            f"prior_init must hold {' and '.join(state_prior.parts)} for the {type(state_prior).__name__} of "
            f"prior_type={prior_type!r}, got {' and '.join(unknown)}, which belongs to another kind of prior or view"
        )
    own = describe_view(observation)
    if isinstance(view, Mapping) and isinstance(own, Mapping) and prior_type == "skills":
        own = {level: own[level] for level in view.keys() & own.keys()}
    if view is not None and _normalised_view(view) != _normalised_view(own):
        raise ValueError(f"prior_init must be of the view prior_observation={own!r}, got a prior of {view!r}")
    state_prior.start_from(parts)


def _normalised_view(view: Any) -> Any:
    """A view with each single key as a list of one key, so that equal views compare equal."""
    if isinstance(view, Mapping):
        return {name: _normalised_view(value) for name, value in view.items()}
    return [view] if isinstance(view, str) else view
