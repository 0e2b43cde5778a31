"""
Priors ρ(·|x) that see a view x = g(s) of the observation: :class:`Conditional` for a discrete x and
:class:`ConditionalNetwork` for a continuous one. The marginal ρ(a) is a buffer of the policy.

Source: Galashov et al., *Information asymmetry in KL-regularized RL*, ICLR 2019, https://arxiv.org/abs/1905.01240
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.optim.adam import adam

from sb3_mirl.common.text import shortened
from sb3_mirl.mirl.operators import update_prior
from sb3_mirl.mirl.views import View

#: Largest number of probabilities in a table
MAX_ELEMENTS = 2**20


class StatePrior(th.nn.Module):
    """ρ(·|x) with x = g(s), a view of the observation."""

    #: What :meth:`start_from` takes
    parts: ClassVar[tuple[str, ...]] = ()
    #: Whether it is learned by :meth:`fit`, from batches, instead of :meth:`move`
    learns_from_batches: ClassVar[bool] = False

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations as the network takes them
        :return: ρ(·|x), float64 [batch, n_actions], rows sum to 1
        """
        raise NotImplementedError

    def move(self, obs: PyTorchObs, policy: th.Tensor, step_size: float) -> None:
        """
        Move ρ(·|x) towards the policy at visited states.

        :param obs: the states, as the network takes them
        :param policy: π(·|s), float64 [batch, n_actions]
        :param step_size: α_ρ in [0, 1], per state
        """

    def fit(self, obs: PyTorchObs, policy: th.Tensor) -> None:
        """
        One gradient step that lowers the mean of KL(π(·|s)‖ρ(·|x)).

        :param obs: states of the replay buffer, as the network takes them
        :param policy: π(·|s), float64 [batch, n_actions]
        """

    def start_from(self, parts: Mapping[str, Any]) -> None:
        """
        Set the distributions with which learning begins.

        :param parts: arrays by the names of :attr:`parts`, some or all
        :raises ValueError: if one does not fit
        """
        for name, value in parts.items():
            buffer = self._buffers[name]
            assert buffer is not None
            given = np.asarray(value, dtype=np.float64)
            fits = given.shape in (tuple(buffer.shape), tuple(buffer.shape[-1:]))
            if not fits or not np.all(given >= 0) or not np.all(np.abs(given.sum(axis=-1) - 1) <= 1e-6):
                raise ValueError(
                    f"prior_init: {name} must have shape {tuple(buffer.shape)}, non-negative numbers whose rows sum to 1, got "
                    f"shape {given.shape}, {shortened(given.tolist())}"
                )
            buffer.copy_(th.as_tensor(given / given.sum(axis=-1, keepdims=True)).expand(buffer.shape))

    def check_loaded_state(self) -> None:
        """Check the distributions that a file has set; raises ValueError."""
        for name in self.parts:
            table = self._buffers[name]
            assert table is not None
            if not ((table >= 0).all() and ((table.sum(dim=-1) - 1).abs() <= 1e-6).all()):
                raise ValueError(
                    f"policy.state_prior.{name} must be non-negative numbers whose rows sum to 1, the file has "
                    f"{shortened(table.tolist())}"
                )

    def logged_values(self) -> dict[str, float]:
        """What is logged of it, by name: entropies in nats."""
        return {}

    def _apply(self, fn: Callable[[th.Tensor], th.Tensor], recurse: bool = True) -> "StatePrior":
        # policy.float() must not make the tables float32: only their device changes
        exact = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            self._buffers[name] = buffer.to(self._buffers[name].device)  # type: ignore[union-attr]
        return self


class Conditional(StatePrior):
    """
    ρ(a|x) for a discrete x: a table, which follows the averages of π over the visited states of each x.

    :param view: x = g(s), discrete
    :param n_actions: the number of actions
    :raises ValueError: if the table would be too large
    """

    parts = ("table",)
    table: th.Tensor

    def __init__(self, view: View, n_actions: int) -> None:
        super().__init__()
        assert view.n_values is not None
        self.view = view
        self.register_buffer("table", uniform_table(view.name, view.n_values, n_actions))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """ρ(·|x), float64 [batch, n_actions]."""
        return self.table[self.view(obs)]

    def move(self, obs: PyTorchObs, policy: th.Tensor, step_size: float) -> None:
        """Algorithm 1's step, for each x on its own; k states with the same x act as k steps."""
        x = self.view(obs)
        for value in x.unique().tolist():
            self.table[value] = update_prior(self.table[value], policy[x == value], step_size)

    def logged_values(self) -> dict[str, float]:
        """The mean entropy of the rows, in nats."""
        return {"prior_entropy": mean_entropy(self.table)}


class ConditionalNetwork(StatePrior):
    """
    ρ_φ(a|x) for a continuous x: a network that begins at the uniform distribution and is trained by Adam.

    The state of Adam is in buffers, so that files hold it like the weights.

    :param view: x = g(s), continuous
    :param n_actions: the number of actions
    :param seed: of the first weights; None: they depend on the state of torch's generator. The state is never changed
    :param net_arch: sizes of the hidden layers
    :param learning_rate: of Adam
    """

    parts = ("network",)
    learns_from_batches = True
    adam_steps: th.Tensor

    def __init__(
        self,
        view: View,
        n_actions: int,
        seed: int | None = None,
        net_arch: tuple[int, ...] | list[int] = (64, 64),
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        assert view.n_features is not None
        self.view, self.learning_rate = view, learning_rate
        with th.random.fork_rng(devices=[]):
            if seed is not None:
                th.random.default_generator.manual_seed(seed)
            self.network = th.nn.Sequential(*create_mlp(view.n_features, n_actions, list(net_arch)))
        parameters = [*self.network.parameters()]
        with th.no_grad():
            for parameter in parameters[-2:]:
                parameter.zero_()
        self.register_buffer("adam_steps", th.zeros(len(parameters)))
        for index, parameter in enumerate(parameters):
            for name in ("mean", "square"):
                self.register_buffer(f"adam_{name}_{index}", th.zeros_like(parameter, requires_grad=False))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """ρ_φ(·|x), float64 [batch, n_actions]."""
        return self.network(self.view(obs)).double().softmax(dim=1)

    def fit(self, obs: PyTorchObs, policy: th.Tensor) -> None:
        """A step of Adam along the gradient of the mean of KL(π(·|s)‖ρ_φ(·|x))."""
        parameters: list[th.Tensor] = [*self.network.parameters()]
        with th.enable_grad():
            log_prior = self.network(self.view(obs)).double().log_softmax(dim=1)
            # KL(π‖ρ) but for the entropy of π, which does not depend on the weights
            gradients = th.autograd.grad(-(policy.detach() * log_prior).sum(dim=1).mean(), parameters)
        means, squares = (
            [getattr(self, f"adam_{name}_{index}") for index in range(len(parameters))] for name in ("mean", "square")
        )
        settings: dict[str, Any] = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
        with th.no_grad():
            # The functional form of th.optim.Adam
            adam(
                parameters,
                list(gradients),
                means,
                squares,
                [],
                list(self.adam_steps.unbind()),
                foreach=False,
                lr=self.learning_rate,
                maximize=False,
                **settings,
            )

    def start_from(self, parts: Mapping[str, Any]) -> None:
        """Set the weights: ``network`` holds an array for each name of the network's ``state_dict``."""
        own = self.network.state_dict()
        given = parts.get("network")
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        if not isinstance(given, Mapping) or {name: np.shape(value) for name, value in given.items()} != shapes:
            raise ValueError(f"prior_init: network must hold arrays of the shapes {shapes}, got {shortened(given)}")
        arrays = {name: np.asarray(value, dtype=np.float32) for name, value in given.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("prior_init: network must hold finite numbers")
        with th.no_grad():
            for name, value in own.items():
                value.copy_(th.as_tensor(arrays[name]))

    def check_loaded_state(self) -> None:
        """No check: the softmax of finite weights is a distribution, and other weights end the training with an error."""


def uniform_table(name: str, *shape: int) -> th.Tensor:
    """
    :param name: of the view, for the error
    :param shape: of the table, actions or skills last
    :return: uniform distributions, float64
    :raises ValueError: if the table would be too large
    """
    if np.prod(shape, dtype=object) > MAX_ELEMENTS:
        raise ValueError(f"{name} must give a table of at most {MAX_ELEMENTS} probabilities, got the shape {shape}")
    return th.full(shape, 1.0 / shape[-1], dtype=th.float64)


def mean_entropy(table: th.Tensor) -> float:
    """The mean entropy of the rows of a table, in nats."""
    return -th.special.xlogy(table, table).sum(dim=-1).mean().item()
