"""
The networks of all runs: parameters stacked along a first axis R, and the functions that act and compute gradients.

While :class:`StackedNetworks` exists, the parameters of each model, its ρ and its β are views of the stacks. A change of a
stack changes the models, and vice versa. Callbacks, evaluations and ``save()`` therefore work as usual.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.utils import polyak_update
from torch.func import functional_call, vmap

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.gradient import Compiled, distinct, full_precision, observations_of_list, take_first
from sb3_mirl.joint.layers import LayersAsProducts
from sb3_mirl.mirl.mirl import MIRL
from sb3_mirl.mirl.operators import update_prior

#: Observations of all runs by key, the key of an observation that is no dictionary is ""
Observations = dict[str, th.Tensor]


class _Group(NamedTuple):
    """Neighbouring runs with the same loss."""

    rows: slice
    batch_loss: Callable[..., tuple[th.Tensor, th.Tensor]]
    needs_current_target_q_values: bool
    acting: Callable[..., list[th.Tensor]]
    soft: bool


class Gradients(NamedTuple):
    """What :meth:`StackedNetworks.compute_gradients` returns."""

    #: [R]
    losses: th.Tensor
    #: Mean squared TD errors, [R]
    squared_td_errors: th.Tensor
    #: Q(s, ·), [R, batch, n_actions]
    q_values: th.Tensor
    #: By parameter name, clipped, [R, ...]
    gradients: dict[str, th.Tensor]


class StackedNetworks:
    """
    :param models: those of MIRL first, and those with the same loss beside each other; they agree in all that
        :func:`~sb3_mirl.joint.compatibility.check_models` checks
    """

    def __init__(self, models: Sequence[BaseDQN]) -> None:
        self.models = [*models]
        self.n_soft = sum(isinstance(model, MIRL) for model in models)
        first = models[0]
        self.device, self._network, self._target_network = first.device, first.q_net, first.q_net_target
        self.names = [name for name, _ in self._network.named_parameters()]
        self.parameters = self._stack_parameters([model.q_net for model in models])
        self.target_parameters = self._stack_parameters([model.q_net_target for model in models])
        self._trained = [parameter.requires_grad for parameter in self._network.parameters()]
        self._used: list[bool] = []
        self._groups = _groups_of(models)
        dtype = next(iter(self.parameters.values())).dtype
        self._max_norms = self._numbers([model.max_grad_norm for model in models], dtype)
        self._gammas = self._numbers([model.gamma for model in models], dtype)
        self._stack_priors()
        # Tensors [R of the group, ...] by group. Empty for MIRL, whose coefficients are computed from ρ and β at each step
        self._coefficients = [[] if group.soft else _stack_coefficients(self.models[group.rows]) for group in self._groups]
        self._keys: list[str] = []
        compiled = partial(Compiled, wanted_by="Joint training", inductor=first.compile_update)
        self._compiled_acting = compiled(self._act_function, "the choice of actions")
        self._compiled_gradients = compiled(self._gradient_function, "the gradient step")

    def _numbers(self, values: Sequence[float], dtype: th.dtype) -> th.Tensor:
        return th.tensor(values, dtype=dtype, device=self.device)

    @th.no_grad()
    def _stack_parameters(self, networks: Sequence[th.nn.Module]) -> dict[str, th.Tensor]:
        stacks = {}
        for named in zip(*(network.named_parameters() for network in networks), strict=True):
            name, parameters = named[0][0], [parameter for _, parameter in named]
            stacks[name] = th.stack([parameter.detach() for parameter in parameters])
            for parameter, row in zip(parameters, stacks[name], strict=True):
                parameter.data = row
        return stacks

    def _stack_priors(self) -> None:
        soft = [model for model in self.models if isinstance(model, MIRL)]
        if not soft:
            return
        policies = [model.policy for model in soft]
        self.prior, self.beta = (th.stack([getattr(policy, name) for policy in policies]) for name in ("prior", "beta"))
        for policy, prior, beta in zip(policies, self.prior, self.beta, strict=True):
            policy.prior, policy.beta = prior, beta
        self._uniform = th.full_like(self.prior, 1 / self.prior.shape[1])
        self._learned = th.tensor([[p.regularization == "mutual_information"] for p in policies], device=self.device)
        #: α_ρ of the runs whose ρ is moved here, [n_soft]; 0 leaves ρ as it is
        self.prior_step_sizes = th.zeros(len(soft), dtype=th.float64, device=self.device)

    def _set_training_mode(self, training: bool) -> None:
        """Set the training mode as in solo training, because the traced ``forward`` may depend on the mode."""
        if self._network.training != training:
            self.models[0].policy.set_training_mode(training)

    def _prior_state(self) -> list[th.Tensor]:
        """The tensors besides Q on which π and the target depend, as arguments of the compiled functions."""
        return [self.prior, self.beta, self._learned, self._uniform]

    def reference_prior(self) -> th.Tensor:
        """The distributions that target and π are regularised towards, float64 [n_soft, n_actions]."""
        return th.where(self._learned, self.prior, self._uniform)

    def release(self, row: int) -> None:
        """Give one model tensors of its own. Its row of the stacks is computed on, and not used."""
        model = self.models[row]
        for network in (model.q_net, model.q_net_target):
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()
        if isinstance(model, MIRL):
            model.policy.prior, model.policy.beta = model.policy.prior.clone(), model.policy.beta.clone()

    def update_targets(self, rows: Sequence[int], tau: float) -> None:
        """
        Move target networks towards the networks.

        :param rows: of the runs whose turn it is
        :param tau: 1 copies
        """
        pairs = [(self.parameters[name], self.target_parameters[name]) for name in self.names]
        if len(rows) < len(self.models):
            pairs = [(parameter[row], target[row]) for row in rows for parameter, target in pairs]
        polyak_update([pair[0] for pair in pairs], [pair[1] for pair in pairs], tau)

    def act(self, observations: Observations) -> tuple[th.Tensor, th.Tensor | None, th.Tensor | None]:
        """
        :param observations: as the networks take them, [R, n_envs, ...]
        :return: the best actions [R, n_envs]; π(·|s) float64 [n_soft, n_envs, n_actions] and the ρ that follows it
            [n_soft, n_actions], None without MIRL
        """
        self._set_training_mode(training=False)
        self._keys = [*observations]
        state = [*self.parameters.values()]
        if self.n_soft:
            state += [*self._prior_state(), self.prior_step_sizes]
        actions, *soft = self._compiled_acting(tuple(self._keys), state, [*observations.values()])
        return (actions, *soft) if soft else (actions, None, None)  # type: ignore[return-value]

    def trace(self, observations: dict[str, np.ndarray]) -> None:
        """
        Act and compute gradients once, without using the results.

        :param observations: at the present step, [R, n_envs, ...]
        :raises ValueError: if a network cannot be traced; the message says why
        """
        self.act({key: th.tensor(array, device=self.device) for key, array in observations.items()})
        if any(array.ndim == 2 for array in observations.values()):
            return  # Discrete observations, which have one more axis in batches of a replay buffer
        size = self.models[0].batch_size
        rows = np.zeros(size, dtype=int)
        batch, next_batch = (
            {key: th.tensor(array[:, rows], device=self.device) for key, array in observations.items()} for _ in range(2)
        )
        numbers = th.zeros(len(self.models), size, 1, device=self.device)
        discounts = numbers if self.models[0].n_steps > 1 else None
        self.compute_gradients(batch, next_batch, numbers.long(), numbers, numbers, discounts=discounts)

    def _act_function(self, *tensors: th.Tensor) -> list[th.Tensor]:
        """The function that :meth:`act` compiles."""
        remaining = list(tensors)
        parameters = take_first(remaining, len(self.names))
        soft = take_first(remaining, 5 if self.n_soft else 0)
        q_values = self._q_values(self._network, parameters, remaining, nullcontext())
        actions, probabilities, priors = [], [], []
        for group in self._groups:
            if not group.soft:
                actions.append(vmap(group.acting)(q_values[group.rows])[-1])
                continue
            prior, beta, learned, uniform, step_sizes = (tensor[group.rows] for tensor in soft)
            reference = th.where(learned, prior, uniform)
            policy, best = vmap(group.acting)(q_values[group.rows], reference, beta)
            moved = vmap(update_prior)(prior, policy, step_sizes)
            actions.append(best)
            probabilities.append(policy)
            priors.append(th.where(step_sizes.unsqueeze(1) > 0, moved, prior))
        return [_joined(actions), *([_joined(probabilities), _joined(priors)] if priors else [])]

    def compute_gradients(
        self, observations: Observations, next_observations: Observations, *batch: th.Tensor, discounts: th.Tensor | None
    ) -> Gradients:
        """
        Losses and clipped gradients of one batch for each run.

        :param observations: s, [R, batch, ...]
        :param next_observations: s', [R, batch, ...]
        :param batch: actions, rewards and dones, each [R, batch, 1]
        :param discounts: γⁿ [R, batch, 1]; γ of each model for None
        """
        self._set_training_mode(training=True)
        self._keys = [*observations]
        inputs = [*observations.values(), *(next_observations[key] for key in self._keys), *batch]
        state = [*self.parameters.values(), *self.target_parameters.values(), self._max_norms]
        if self.n_soft:
            state += self._prior_state()
        state += [tensor for own in self._coefficients for tensor in own]
        inputs.append(self._gammas if discounts is None else discounts)
        losses, errors, q_values, factors, *found = self._compiled_gradients(tuple(self._keys), state, inputs)
        gradients = distinct(found)
        _clip(gradients, factors)
        names = [name for name, used in zip(self.names, self._used, strict=True) if used]
        return Gradients(losses, errors, q_values, dict(zip(names, gradients, strict=True)))

    def _gradient_function(self, *tensors: th.Tensor) -> list[th.Tensor]:
        """The function that :meth:`compute_gradients` compiles."""
        remaining = list(tensors)
        parameters = take_first(remaining, len(self.names))
        target_parameters = take_first(remaining, len(self.names))
        (max_norms,) = take_first(remaining, 1)
        coefficients = self._take_coefficients(remaining)
        observations = take_first(remaining, len(self._keys))
        next_observations = take_first(remaining, len(self._keys))
        next_q_values = self._q_values(self._target_network, target_parameters, next_observations, self._precision())
        current_target_q_values = self._current_target_q_values(target_parameters, observations)
        with th.enable_grad():
            parameters = [p.requires_grad_(trained) for p, trained in zip(parameters, self._trained, strict=True)]
            q_values = self._q_values(self._network, parameters, observations, self._precision())
            losses, errors = self._losses(q_values, next_q_values, current_target_q_values, remaining, coefficients)
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            # The gradient of the sum is that of each run's loss, which depends on the parameters of the run only
            found = iter(th.autograd.grad(losses.sum(), trained, allow_unused=True))
        gradients = [next(found) if trained else None for trained in self._trained]
        self._used = [gradient is not None for gradient in gradients]
        # Optimisers take for granted that gradients lie in memory as their parameters do
        used = [gradient.contiguous() for gradient in gradients if gradient is not None]
        return [losses.detach(), errors.detach(), q_values.detach(), _clipping_factors(used, max_norms), *used]

    def _take_coefficients(self, remaining: list[th.Tensor]) -> list[list[th.Tensor]]:
        """Removes the coefficients of the losses from the arguments of a compiled function, and returns them by group."""
        soft = take_first(remaining, 4 if self.n_soft else 0)
        coefficients = []
        for group, own in zip(self._groups, self._coefficients, strict=True):
            if group.soft:
                prior, beta, learned, uniform = (tensor[group.rows] for tensor in soft)
                coefficients.append([th.where(learned, prior, uniform), beta])
            else:
                coefficients.append(take_first(remaining, len(own)))
        return coefficients

    def _current_target_q_values(
        self, target_parameters: list[th.Tensor], observations: list[th.Tensor]
    ) -> list[list[th.Tensor]]:
        """By group, Q_target(s, ·) [R of the group, batch, n_actions] if its loss takes it, otherwise nothing."""
        found: list[list[th.Tensor]] = [[] for _ in self._groups]
        for own, group in zip(found, self._groups, strict=True):
            if group.needs_current_target_q_values:
                parameters, inputs = ([one[group.rows] for one in tensors] for tensors in (target_parameters, observations))
                own.append(self._q_values(self._target_network, parameters, inputs, self._precision()))
        return found

    def _losses(
        self,
        q_values: th.Tensor,
        next_q_values: th.Tensor,
        current_target_q_values: list[list[th.Tensor]],
        batch: list[th.Tensor],
        coefficients: list[list[th.Tensor]],
    ) -> tuple[th.Tensor, th.Tensor]:
        results = []
        for group, current, own in zip(self._groups, current_target_q_values, coefficients, strict=True):
            loss = vmap(partial(group.batch_loss, loss=self.models[0].loss))
            rows = [q_values[group.rows], next_q_values[group.rows], *current, *(tensor[group.rows] for tensor in batch)]
            results.append(loss(*rows, *own))
        losses, errors = zip(*results, strict=True)
        return _joined([*losses]), _joined([*errors])

    def _precision(self) -> AbstractContextManager:
        """The context in which the networks of a gradient step are run."""
        return th.autocast(self.device.type, th.bfloat16) if self.models[0].mixed_precision else nullcontext()

    def _q_values(
        self,
        network: th.nn.Module,
        parameters: list[th.Tensor],
        observations: list[th.Tensor],
        precision: AbstractContextManager,
    ) -> th.Tensor:
        """Q(s, ·) of every run, [R, batch, n_actions]."""
        keys = [key for key in self._keys if key]

        def forward(own_parameters: list[th.Tensor], own_observations: list[th.Tensor]) -> th.Tensor:
            named = dict(zip(self.names, own_parameters, strict=True))
            return functional_call(network, named, (observations_of_list(keys, own_observations),))

        with LayersAsProducts(), precision:
            q_values = vmap(forward)(parameters, observations)
        return full_precision(q_values)


def _groups_of(models: Sequence[BaseDQN]) -> list[_Group]:
    groups: list[_Group] = []
    for row, model in enumerate(models):
        own = (model.batch_loss, model.needs_current_target_q_values, model.policy.acting, isinstance(model, MIRL))
        if groups and groups[-1][1:] == own:
            groups[-1] = _Group(slice(groups[-1].rows.start, row + 1), *own)
        else:
            groups.append(_Group(slice(row, row + 1), *own))
    return groups


def _stack_coefficients(models: Sequence[BaseDQN]) -> list[th.Tensor]:
    """The loss coefficients of models with the same loss, stacked, [R, ...] each."""
    return [th.stack(values) for values in zip(*(model.loss_coefficients() for model in models), strict=True)]


def _joined(parts: list[th.Tensor]) -> th.Tensor:
    return parts[0] if len(parts) == 1 else th.cat(parts)


def _clipping_factors(gradients: list[th.Tensor], max_norms: th.Tensor) -> th.Tensor:
    """What ``clip_grad_norm_`` multiplies the gradients of each run by, [R], for gradients [R, ...]."""
    norms = th.stack([th.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    return (max_norms / (th.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)


def _clip(gradients: list[th.Tensor], factors: th.Tensor) -> None:
    # On a GPU, always multiply: reading the factors would make the CPU wait for the GPU
    if factors.is_cuda or bool((factors < 1).any()):
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
