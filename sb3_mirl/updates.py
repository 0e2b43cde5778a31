"""
How a gradient step is carried out faster, with the same result but for rounding.

- :func:`flushed_denormals`, :func:`clip_gradient_norm` and :func:`adam_step` are what ``MIRL._update`` uses in place of
  torch's own, which take longer.
- :class:`CompiledUpdate` is ``MIRL._update`` as a single compiled function: forward passes, target, loss, gradient, clipping
  and Adam. ``MIRL(compile_update=True)`` uses it.

State stays where it was, in the policy's parameters and the optimiser's state: models saved with one load with the other.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.dqn.policies import QNetwork
from torch.func import functional_call, grad_and_value
from torch.nn import functional as F

from sb3_mirl.operators import soft_td_target

_DENORMAL = 5e-324


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """
    Takes numbers below 1e-38 (float32) for 0, as far as the processor can.

    Adam's average of a gradient that has become 0, which is that of every unit that is off for all of a batch, decays to such
    numbers within a thousand steps and stays there. Processors compute with them many times slower.
    """
    already_flushed = _DENORMAL * 1.0 == 0.0
    th.set_flush_denormal(True)
    try:
        yield
    finally:
        th.set_flush_denormal(already_flushed)


def clip_gradient_norm(parameters: list[th.nn.Parameter], max_norm: float) -> None:
    """``th.nn.utils.clip_grad_norm_`` for parameters on one device, in a third of its time."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)))
    th._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def adam_step(optimizer: th.optim.Optimizer) -> None:
    """
    ``optimizer.step()``. For fused Adam without hooks, only its kernel: around it torch sorts tensors by device and type,
    which takes longer than the kernel with a small network.

    :param optimizer: any
    """
    group = optimizer.param_groups[0]
    parameters = group["params"]
    states = [optimizer.state[parameter] for parameter in parameters]
    plain = type(optimizer) is th.optim.Adam and len(optimizer.param_groups) == 1 and group["fused"]
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if hooks or not plain or not all(states) or group["amsgrad"] or any(p.grad is None for p in parameters):
        optimizer.step()
        return
    steps = [state["step"] for state in states]
    with th.no_grad():
        th._foreach_add_(steps, 1)
        th._fused_adam_(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )


class _Layers(th.nn.Module):
    """A Q-network after its preprocessing."""

    def __init__(self, q_net: QNetwork) -> None:
        super().__init__()
        self.features_extractor, self.q_net = q_net.features_extractor, q_net.q_net

    def forward(self, observations: Any) -> th.Tensor:
        return self.q_net(self.features_extractor(observations))


class CompiledUpdate:
    """
    A compiled gradient step of a Q-network with Adam.

    :param q_net: the network that learns
    :param q_net_target: the target network
    :param optimizer: Adam over the parameters of ``q_net``, without weight decay and amsgrad
    :param loss: ``"mse"`` or ``"huber"``
    :param max_grad_norm: bound on the norm of the gradient
    :param network_precision: makes the context in which the networks are run
    :raises ValueError: for what it cannot compile; the message says what
    """

    def __init__(
        self,
        q_net: QNetwork,
        q_net_target: QNetwork,
        optimizer: th.optim.Optimizer,
        loss: str,
        max_grad_norm: float,
        network_precision: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        check_compilable(q_net, optimizer)
        self.optimizer = optimizer
        self._q_net = q_net
        self.parameters = dict(_Layers(q_net).named_parameters())
        self.target_parameters = dict(_Layers(q_net_target).named_parameters())
        betas, eps = optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["eps"]
        self._step = th.compile(
            _make_step(_Layers(q_net), loss, max_grad_norm, betas, eps, network_precision),
            dynamic=False,
            fullgraph=True,
            options={"cpp_wrapper": True},
        )

    def __call__(
        self, replay_data: Any, discounts: th.Tensor | float, prior: th.Tensor, beta: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        One gradient step on one batch.

        :param replay_data: a batch of SB3's replay buffer
        :param discounts: γ, or γⁿ [batch, 1]
        :param prior: ρ of the target, [n_actions]
        :param beta: β, []
        :return: loss [], mean squared TD error [] and Q(s, ·) [batch, n_actions], before the step
        """
        states = [self._state(parameter) for parameter in self.parameters.values()]
        learning_rate = th.tensor(self.optimizer.param_groups[0]["lr"], dtype=th.float64)
        observations, actions, next_observations, dones, rewards = replay_data[:5]
        with th.no_grad():
            # Adam counts steps per parameter: they are all equal
            for state in states:
                state["step"] += 1
            return self._step(
                self.parameters,
                self.target_parameters,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                states[0]["step"],
                learning_rate,
                (self._preprocess(observations), actions, self._preprocess(next_observations), dones, rewards),
                discounts,
                prior,
                beta,
            )

    def _preprocess(self, observations: Any) -> Any:
        """What SB3 does first in a forward pass, by code that cannot be compiled: images to [0, 1], categories to one-hot."""
        return preprocess_obs(observations, self._q_net.observation_space, normalize_images=self._q_net.normalize_images)

    def _state(self, parameter: th.nn.Parameter) -> dict[str, th.Tensor]:
        """Adam's state of one parameter, as Adam itself sets it up before the first step."""
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = th.zeros((), dtype=th.float32, device=parameter.device)
            state["exp_avg"] = th.zeros_like(parameter, memory_format=th.preserve_format)
            state["exp_avg_sq"] = th.zeros_like(parameter, memory_format=th.preserve_format)
        return state


def _make_step(
    layers: th.nn.Module,
    loss: str,
    max_grad_norm: float,
    betas: tuple[float, float],
    eps: float,
    network_precision: Callable[[], AbstractContextManager],
) -> Callable:
    """The function to be compiled. It changes parameters and averages in place."""
    beta1, beta2 = betas

    def loss_of(parameters, observations, actions, targets):
        with network_precision():
            all_q_values = functional_call(layers, parameters, (observations,)).float()
        q_values = th.gather(all_q_values, dim=1, index=actions)
        squared_td_error = F.mse_loss(q_values, targets)
        value = squared_td_error if loss == "mse" else F.smooth_l1_loss(q_values, targets)
        return value, (squared_td_error, all_q_values)

    def step(parameters, target_parameters, averages, square_averages, count, learning_rate, batch, discounts, prior, beta):
        observations, actions, next_observations, dones, rewards = batch
        with network_precision():
            next_q_values = functional_call(layers, target_parameters, (next_observations,)).float()
        targets = soft_td_target(rewards, dones, discounts, next_q_values, prior, beta)
        values = {name: parameter.detach() for name, parameter in parameters.items()}
        gradients, (value, aux) = grad_and_value(loss_of, has_aux=True)(values, observations, actions.long(), targets)
        norm = th.sqrt(sum(gradient.square().sum() for gradient in gradients.values()))
        clip = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        # Adam: Kingma and Ba (2015), algorithm 1, in the order of torch's own
        correction1, correction2 = 1.0 - beta1**count, th.sqrt(1.0 - beta2**count)
        for (name, parameter), average, square_average in zip(parameters.items(), averages, square_averages, strict=True):
            gradient = gradients[name] * clip
            average.lerp_(gradient, 1.0 - beta1)
            square_average.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
            change = average / (square_average.sqrt() / correction2 + eps)
            parameter.data.sub_((learning_rate / correction1).to(parameter.dtype) * change)
        return value, *aux

    return step


def check_compilable(q_net: QNetwork, optimizer: th.optim.Optimizer) -> None:
    """
    :param q_net: the network that learns
    :param optimizer: its optimiser
    :raises ValueError: for what :class:`CompiledUpdate` cannot compute; the message says what
    """
    group = optimizer.param_groups[0]
    if type(optimizer) is not th.optim.Adam or len(optimizer.param_groups) != 1:
        raise ValueError(f"compile_update=True needs Adam with one group of parameters, got {optimizer}")
    for option in ("weight_decay", "amsgrad", "maximize"):
        if group[option]:
            raise ValueError(
                f"compile_update=True needs Adam without {option}, got optimizer_kwargs {option}={group[option]!r}"
            )
    if next(q_net.buffers(), None) is not None:
        raise ValueError(
            "compile_update=True needs a network without buffers, such as batch norm has; set compile_update=False"
        )
    if next(q_net.parameters()).device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError("compile_update=True needs a C++ compiler on the PATH (g++ or clang++), and there is none")
