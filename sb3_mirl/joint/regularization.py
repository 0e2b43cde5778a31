"""ρ and β of all runs: the work of MIRL's default callbacks, by the same equations."""

from collections.abc import Sequence

import torch as th

from sb3_mirl.common.events import GradientStepCallback
from sb3_mirl.joint.networks import StackedNetworks
from sb3_mirl.mirl.callbacks import BetaUpdateCallback, PriorUpdateCallback
from sb3_mirl.mirl.mirl import MIRL
from sb3_mirl.mirl.operators import update_beta, update_beta_normalized


class Regularization:
    """
    Moves ρ and β of the runs whose default callbacks were taken out. Callbacks of the user's move those of the others.

    :param networks: of all runs
    :param taken: by row, the callbacks whose work is done here
    """

    def __init__(self, networks: StackedNetworks, taken: Sequence[Sequence[GradientStepCallback]]) -> None:
        self._networks = networks
        self._models = [model for model in networks.models if isinstance(model, MIRL)]
        self._schedules: dict[str, list[int]] = {}
        if not self._models:
            return
        for row, model in enumerate(self._models):
            kinds = {type(callback) for callback in taken[row]}
            if PriorUpdateCallback in kinds:
                # None if the training has no steps for which learn() could resolve it
                networks.prior_step_sizes[row] = model.prior_step_size or 0.0
            if BetaUpdateCallback in kinds:
                self._schedules.setdefault(model.beta_schedule, []).append(row)
        as_tensor = networks.beta.new_tensor
        # beta_step_size is None if the schedule is constant
        self._step_sizes = as_tensor([model.beta_step_size or 0.0 for model in self._models])
        self._factors = as_tensor([model.beta_factor for model in self._models])
        self._largest = as_tensor([model.beta_factor * model.beta_max for model in self._models])
        self._scales = as_tensor([model.beta_factor * model.beta_scale for model in self._models])

    def show_probabilities(self, probabilities: th.Tensor | None, rows: set[int]) -> None:
        """
        Set what callbacks can see of the policy.

        :param probabilities: π(·|s) behind the latest actions, [n_soft, n_envs, n_actions]; None during the warm-up
        :param rows: of the runs that have callbacks
        """
        for row in rows:
            if row < len(self._models):
                own = None if probabilities is None else probabilities[row]
                self._models[row].rollout_action_probabilities = self._models[row].policy.last_action_probabilities = own

    def after_step(self, moved_prior: th.Tensor | None) -> None:
        """
        Update ρ and the linear schedules of β after a step of the environments.

        :param moved_prior: ρ after the latest actions, [n_soft, n_actions]; None during the warm-up
        """
        if moved_prior is not None:
            self._networks.prior.copy_(moved_prior)
        if rows := self._schedules.get("linear"):
            steps = self._factors[rows] * self._step_sizes[rows] * self._models[0].n_envs
            self._networks.beta[rows] = th.minimum(self._networks.beta[rows] + steps, self._largest[rows])

    def after_gradient_step(self, squared_td_errors: th.Tensor) -> None:
        """
        Update the adaptive and normalized schedules of β after a gradient step.

        :param squared_td_errors: mean squared TD error of each run's batch, [R]
        """
        beta = self._networks.beta if self._models else None
        for schedule, rows in self._schedules.items():
            if schedule not in ("adaptive", "normalized"):
                continue
            assert beta is not None
            # All of them, as a view: several times faster than a list of indices
            where = slice(None) if len(rows) == len(beta) else rows
            errors, step_sizes, largest = squared_td_errors[: len(beta)][where], self._step_sizes[where], self._largest[where]
            if schedule == "adaptive":
                beta[where] = update_beta(beta[where], errors.double() / self._factors[where], step_sizes, largest)
            else:
                beta[where] = update_beta_normalized(beta[where], errors, step_sizes, largest, self._scales[where])
