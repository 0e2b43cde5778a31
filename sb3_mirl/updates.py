"""
How a gradient step is carried out faster, with the same result but for rounding.

- :func:`flushed_denormals`, :func:`clear_tiny_averages`, :func:`clip_gradient_norm` and :func:`adam_step` are what
  ``MIRL.train`` uses in place of torch's own, or beside it.
- :class:`Compiled` is a function of tensors compiled by Inductor, recorded as a CUDA graph on a GPU.
- :class:`CompiledUpdate` is ``MIRL._update`` as a single compiled function: forward passes, target, loss, gradient, clipping
  and Adam. ``MIRL(compile_update=True)`` uses it.

State stays where it was, in the policy's parameters and the optimiser's state: models saved with one load with the other.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.dqn.policies import QNetwork
from torch import _inductor
from torch.func import functional_call, grad_and_value
from torch.fx.experimental.proxy_tensor import make_fx
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


def clear_tiny_averages(optimizer: th.optim.Optimizer) -> None:
    """
    Sets to 0 those of Adam's averages that would be denormal numbers soon, as :func:`flushed_denormals` does at once but
    only in its own thread. Beside Adam's ε they are nothing.

    The average of the gradient loses a factor of 10⁴ in 100 steps without gradient, the other one a tenth of its value.

    :param optimizer: any
    """
    with th.no_grad():
        for state in optimizer.state.values():
            for name, tiny in (("exp_avg", 1e-30), ("exp_avg_sq", 1e-36)):
                if name in state:
                    state[name].mul_(state[name].abs() > tiny)


def split_samples(sample: Any, n_batches: int) -> list[Any]:
    """
    :param sample: a batch of a replay buffer, a named tuple of tensors, dictionaries of tensors and None
    :param n_batches: how many batches of equal size to make of it
    :return: the batches, which share memory with the sample
    """
    if n_batches == 1:
        return [sample]

    def split(field: Any) -> Sequence[Any]:
        if isinstance(field, dict):
            parts = [split(value) for value in field.values()]
            return [dict(zip(field, values, strict=True)) for values in zip(*parts, strict=True)]
        return [None] * n_batches if field is None else field.chunk(n_batches)

    return [type(sample)(*fields) for fields in zip(*map(split, sample), strict=True)]


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


def channels_last(images: th.Tensor) -> th.Tensor:
    """``images.contiguous(memory_format=th.channels_last)`` in a third of its time, [batch, channels, height, width]."""
    return th.stack(images.unbind(1), dim=-1).permute(0, 3, 1, 2)


class Compiled:
    """
    A function of tensors, compiled by Inductor for each combination of shapes with which it is called.

    ``th.compile`` does the same and, before each call, looks whether anything that the function depends on has changed:
    attributes of modules, types, globals. With a small network that takes a fifth of the step. Here nothing may change but
    the tensors.

    :param function: takes tensors and returns a list of tensors; may change what it is given in place
    """

    def __init__(self, function: Callable[..., list[th.Tensor]]) -> None:
        self.function = function
        self._compiled: dict[Any, Callable] = {}

    @th.no_grad()
    def __call__(self, state: list[th.Tensor], batch: list[th.Tensor]) -> list[th.Tensor]:
        """
        :param state: the first arguments, whose shapes and types are always the same
        :param batch: the others
        :return: what the function returns
        """
        key = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in batch)
        if key not in self._compiled:
            # Tracing computes, so with copies
            examples: list[Any] = [tensor.detach().clone() for tensor in (*state, *batch)]
            graph = make_fx(self.function)(*examples)
            for node in graph.graph.nodes:
                node.meta.clear()  # tensors that belong to make_fx, which Inductor does not accept
            if examples[0].is_cuda:
                self._compiled[key] = _CudaGraph(_inductor.compile(graph, examples), len(state))
            else:
                self._compiled[key] = _inductor.compile(graph, examples, options={"cpp_wrapper": True})
        return self._compiled[key](*state, *batch)

    def __getstate__(self) -> dict[str, Any]:
        # A copy compiles for itself
        return {**self.__dict__, "_compiled": {}}


class _CudaGraph:
    """
    A function recorded as a CUDA graph, which is launched as a whole instead of kernel by kernel.

    :param function: of tensors on one CUDA device; does not synchronise
    :param n_state: so many of its first arguments stay where they are in memory; the others are copied there
    """

    def __init__(self, function: Callable[..., list[th.Tensor]], n_state: int) -> None:
        self._function, self._n_state = function, n_state
        self._addresses: list[int] = []

    def __call__(self, *tensors: th.Tensor) -> list[th.Tensor]:
        state, batch = tensors[: self._n_state], tensors[self._n_state :]
        # Loading an optimiser's state puts other tensors in its place
        if [tensor.data_ptr() for tensor in state] != self._addresses:
            self._record(state, batch)
        for recorded, given in zip(self._batch, batch, strict=True):
            recorded.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]

    def _record(self, state: tuple[th.Tensor, ...], batch: tuple[th.Tensor, ...]) -> None:
        self._addresses = [tensor.data_ptr() for tensor in state]
        self._batch = [tensor.clone() for tensor in batch]
        kept = [tensor.clone() for tensor in state]
        # First calls choose kernels and allocate what they need, which cannot be recorded
        stream = th.cuda.Stream()
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            for _ in range(3):
                self._function(*state, *self._batch)
        th.cuda.current_stream().wait_stream(stream)
        self._graph = th.cuda.CUDAGraph()
        with th.cuda.graph(self._graph):
            self._results = list(self._function(*state, *self._batch))
        for tensor, value in zip(state, kept, strict=True):
            tensor.copy_(value)


class Layers(th.nn.Module):
    """A Q-network after that part of SB3's preprocessing which cannot be compiled."""

    def __init__(self, q_net: QNetwork) -> None:
        super().__init__()
        self.features_extractor, self.q_net = q_net.features_extractor, q_net.q_net
        self.space, self.normalize_images = q_net.observation_space, q_net.normalize_images
        self.images = self.normalize_images and is_image_space(self.space)
        # Not for other extractors: they may contain a view(), which does not work on such tensors
        self.channels_last = type(q_net.features_extractor) is NatureCNN
        self._names = [name for name, _ in self.named_parameters()]

    def prepare(self, observations: Any) -> list[th.Tensor]:
        """
        :param observations: of a batch, as the replay buffer gives them
        :return: a tensor, or several for Dict spaces: images as they are, categories as one-hot vectors, others as float
        """
        if self.images:
            return [channels_last(observations) if self.channels_last else observations]
        prepared = preprocess_obs(observations, self.space, normalize_images=self.normalize_images)
        return [*prepared.values()] if isinstance(prepared, dict) else [prepared]

    def call(self, parameters: Sequence[th.Tensor], observations: list[th.Tensor]) -> th.Tensor:
        """
        :param parameters: to be used in place of the network's own, in the order of ``parameters()``
        :param observations: as :meth:`prepare` returns them
        :return: Q(s, ·), [batch, n_actions]
        """
        return functional_call(self, dict(zip(self._names, parameters, strict=True)), (observations,))

    def forward(self, observations: list[th.Tensor]) -> th.Tensor:
        if self.images:
            return self.q_net(self.features_extractor(observations[0].float() / 255.0))
        if isinstance(self.space, spaces.Dict):
            return self.q_net(self.features_extractor(dict(zip(self.space.spaces, observations, strict=True))))
        return self.q_net(self.features_extractor(observations[0]))


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
        check_compilable_optimizer(optimizer)
        check_compilable_network(q_net)
        self.optimizer = optimizer
        self._layers, self._target_layers = Layers(q_net), Layers(q_net_target)
        self._loss, self._max_grad_norm, self._network_precision = loss, max_grad_norm, network_precision
        self._parameters, self._target_parameters = [*self._layers.parameters()], [*self._target_layers.parameters()]
        self._numbers: dict[str, tuple[float, th.Tensor]] = {}
        self._step = Compiled(self._function)

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
        states = [self._adam_state(parameter) for parameter in self._parameters]
        # Adam counts steps per parameter: they are all equal
        th._foreach_add_([state["step"] for state in states], 1)
        observations, actions, next_observations, dones, rewards = replay_data[:5]
        loss, squared_td_error, all_q_values = self._step(
            [
                *self._parameters,
                *self._target_parameters,
                *(state["exp_avg"] for state in states),
                *(state["exp_avg_sq"] for state in states),
                prior,
                beta,
            ],
            [
                *self._step_size_and_eps(states[0]["step"]),
                discounts if isinstance(discounts, th.Tensor) else self._on_device("discount", discounts),
                actions,
                dones,
                rewards,
                *self._layers.prepare(observations),
                *self._layers.prepare(next_observations),
            ],
        )
        return loss, squared_td_error, all_q_values

    def _step_size_and_eps(self, count: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Adam's after so many steps. Inductor would compute them in the innermost loop over the parameters."""
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        correction = (1.0 - beta2**count).sqrt_()
        step_size = self._on_device("learning_rate", group["lr"]) * correction / (1.0 - beta1**count)
        return step_size.float(), correction * group["eps"]

    def _on_device(self, name: str, value: float) -> th.Tensor:
        """A number as a tensor, [], copied to the device when it has changed."""
        if self._numbers.get(name, (None,))[0] != value:
            self._numbers[name] = value, th.tensor(value, dtype=th.float64, device=self._parameters[0].device)
        return self._numbers[name][1]

    def _adam_state(self, parameter: th.nn.Parameter) -> dict[str, th.Tensor]:
        """Adam's state of one parameter, as Adam itself sets it up before the first step."""
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = th.zeros((), dtype=th.float32, device=parameter.device)
            state["exp_avg"] = th.zeros_like(parameter, memory_format=th.preserve_format)
            state["exp_avg_sq"] = th.zeros_like(parameter, memory_format=th.preserve_format)
        return state

    def _function(self, *tensors: th.Tensor) -> list[th.Tensor]:
        """The gradient step to be compiled: changes parameters and Adam's averages in place."""
        n = len(self._parameters)
        parameters, target_parameters, averages, square_averages = (tensors[k * n : (k + 1) * n] for k in range(4))
        prior, beta, step_size, eps, discounts, actions, dones, rewards, *both = tensors[4 * n :]
        observations, next_observations = both[: len(both) // 2], both[len(both) // 2 :]

        def q_values_of(layers: Layers, values: Sequence[th.Tensor], inputs: list[th.Tensor]) -> th.Tensor:
            with self._network_precision():
                return layers.call(values, inputs).float()

        targets = soft_td_target(
            rewards, dones, discounts, q_values_of(self._target_layers, target_parameters, next_observations), prior, beta
        )

        def loss_of(values: tuple[th.Tensor, ...]) -> tuple[th.Tensor, tuple[th.Tensor, th.Tensor]]:
            all_q_values = q_values_of(self._layers, values, observations)
            q_values = th.gather(all_q_values, dim=1, index=actions.long())
            squared_td_error = F.mse_loss(q_values, targets)
            value = squared_td_error if self._loss == "mse" else F.smooth_l1_loss(q_values, targets)
            return value, (squared_td_error, all_q_values)

        gradients, (loss, (squared_td_error, all_q_values)) = grad_and_value(loss_of, has_aux=True)(parameters)
        norm = th.sqrt(sum(gradient.square().sum() for gradient in gradients))
        clip = (self._max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        # Adam: Kingma and Ba (2015), algorithm 1, in the order which they give at the end of section 2: a division less
        beta1, beta2 = self.optimizer.param_groups[0]["betas"]
        for parameter, gradient, average, square_average in zip(parameters, gradients, averages, square_averages, strict=True):
            clipped = gradient * clip
            average.lerp_(clipped, 1.0 - beta1)
            square_average.mul_(beta2).addcmul_(clipped, clipped, value=1.0 - beta2)
            parameter.sub_(step_size * average / (square_average.sqrt() + eps))
        return [loss, squared_td_error, all_q_values]


def check_compilable_optimizer(optimizer: th.optim.Optimizer) -> None:
    """
    :param optimizer: of the network that learns
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


def check_compilable_network(q_net: QNetwork) -> None:
    """
    :param q_net: the network to be compiled
    :raises ValueError: if it cannot be; the message says why
    """
    if next(q_net.buffers(), None) is not None:
        raise ValueError(
            "compile_update=True needs a network without buffers, such as batch norm has; set compile_update=False"
        )
    if next(q_net.parameters()).device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError("compile_update=True needs a C++ compiler on the PATH (g++ or clang++), and there is none")
