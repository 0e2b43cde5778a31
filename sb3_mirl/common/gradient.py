"""
The gradient step: DQN's loss, and faster ways to compute gradients and actions that differ by rounding only.

- :func:`td_loss` is DQN's loss; :func:`regression_loss` is the part that algorithms with another target share.
- :func:`without_denormals` avoids numbers with which processors are slow.
- :class:`Compiled` is a function of tensors traced once and compiled by Inductor, recorded as a CUDA graph on a GPU.
- :class:`CompiledGradient` is the forward passes, the loss and its gradient as one compiled function;
  :class:`CompiledActing` is the forward pass and what is computed from Q(s, ·). ``compile_update=True`` uses both.

A compiled function traces the network's own ``forward``. Gradients are clipped and applied by torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import _inductor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sb3_mirl.common.compilable import describe_network

_DENORMAL = 5e-324


def td_loss(
    q_values: th.Tensor,
    next_q_values: th.Tensor,
    actions: th.Tensor,
    rewards: th.Tensor,
    dones: th.Tensor,
    discounts: th.Tensor | float,
    next_action_masks: th.Tensor | None = None,
    loss: str = "huber",
) -> tuple[th.Tensor, th.Tensor]:
    """
    DQN's loss of Q(s,a) against r + (1 - done) γ maxₐ' Q_target(s',a').

    :param q_values: Q(s, ·), [batch, n_actions]
    :param next_q_values: Q_target(s', ·), [batch, n_actions]
    :param actions: a, [batch, 1]
    :param rewards: r, [batch, 1]
    :param dones: 1 where the episode ended at s', else 0, [batch, 1]
    :param discounts: γ, or γⁿ [batch, 1]
    :param next_action_masks: which a' are valid, bool [batch, n_actions], with one in each row; None: all
    :param loss: ``"huber"`` or ``"mse"``
    :return: the loss, [], and the mean squared TD error, []
    """
    with th.no_grad():
        if next_action_masks is not None:
            next_q_values = next_q_values.masked_fill(~next_action_masks, -th.inf)
        target_q_values = rewards + (1 - dones) * discounts * next_q_values.amax(dim=1, keepdim=True)
    return regression_loss(q_values, actions, target_q_values, loss)


def regression_loss(
    q_values: th.Tensor, actions: th.Tensor, target_q_values: th.Tensor, loss: str
) -> tuple[th.Tensor, th.Tensor]:
    """
    :param q_values: Q(s, ·), [batch, n_actions]
    :param actions: a, [batch, 1]
    :param target_q_values: [batch, 1], without gradient
    :param loss: ``"huber"`` or ``"mse"``
    :return: the loss of Q(s,a), [], and the mean squared TD error, []
    """
    # Retrieve the q-values for the actions from the replay buffer
    current_q_values = th.gather(q_values, dim=1, index=actions.long())
    squared_td_error = F.mse_loss(current_q_values, target_q_values)
    if loss == "mse":
        return squared_td_error, squared_td_error
    return F.smooth_l1_loss(current_q_values, target_q_values), squared_td_error


def full_precision(values: th.Tensor) -> th.Tensor:
    """Numbers of a network that ran in bfloat16 as float32; others as they are."""
    return values.float() if values.dtype == th.bfloat16 else values


def distinct(gradients: Iterable[th.Tensor]) -> list[th.Tensor]:
    """
    Clone gradients that share memory with an earlier one. A compiled function may return one tensor, or views of one tensor,
    as the gradients of several parameters; clipping in place would then change all of them.
    """
    found: list[th.Tensor] = []
    memories: set[int] = set()
    for gradient in gradients:
        memory = gradient.untyped_storage().data_ptr()
        found.append(gradient.clone() if memory in memories else gradient)
        memories.add(memory)
    return found


@contextmanager
def without_denormals(optimizer: th.optim.Optimizer, n_updates: int) -> Iterator[None]:
    """
    A context for one gradient step that avoids denormal numbers (see docs/performance.md): :func:`flushed_denormals`, and in
    every 100th step :func:`clear_tiny_averages`.

    :param optimizer: the optimiser
    :param n_updates: number of gradient steps before this one
    """
    if n_updates % 100 == 0:
        clear_tiny_averages(optimizer)
    with flushed_denormals():
        yield


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """
    Takes numbers below 1e-38 (float32) for 0, as far as the processor can.

    If a unit is inactive for whole batches, its gradient is 0, and Adam's average of that gradient decays to a denormal number
    within a thousand steps. Processors compute with denormal numbers many times slower.
    """
    already_flushed = _DENORMAL * 1.0 == 0.0
    th.set_flush_denormal(True)
    try:
        yield
    finally:
        th.set_flush_denormal(already_flushed)


def clear_tiny_averages(optimizer: th.optim.Optimizer) -> None:
    """
    Set tiny averages of Adam to 0 before they become denormal. :func:`flushed_denormals` does not suffice, because it works in
    the calling thread only. These averages are negligible compared with Adam's ε. Other optimisers are not changed.

    In 100 steps without gradient, the average of the gradient shrinks by a factor of 10⁴, that of its square by 10 %.

    :param optimizer: any optimiser; subclasses of Adam are not changed either
    """
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW):
        return
    with th.no_grad():
        for state in optimizer.state.values():
            for name, tiny in (("exp_avg", 1e-30), ("exp_avg_sq", 1e-36)):
                if name in state:
                    state[name].mul_(state[name].abs() > tiny)


def channels_last(images: th.Tensor) -> th.Tensor:
    """The same as ``images.contiguous(memory_format=th.channels_last)``, but faster, [batch, channels, height, width]."""
    return th.stack(images.unbind(1), dim=-1).permute(0, 3, 1, 2)


class Compiled:
    """
    A function of tensors, compiled by Inductor for each combination of shapes and settings with which it is called.

    ``th.compile`` also checks before each call whether attributes of modules, types or globals have changed. This is slow for
    small networks. Here the caller passes everything that may change as ``settings``.

    :param function: takes tensors, changes none of them, and returns a list of tensors
    :param name: what is compiled, for error messages
    :param wanted_by: the option that needs the compilation, for error messages
    :param inductor: True: compile; False: run the traced operations one by one
    """

    def __init__(
        self,
        function: Callable[..., list[th.Tensor]],
        name: str,
        wanted_by: str = "compile_update=True",
        inductor: bool = True,
    ) -> None:
        self.function, self.name, self.wanted_by, self.inductor = function, name, wanted_by, inductor
        self._compiled: dict[Any, Callable] = {}

    @th.no_grad()
    def __call__(self, settings: Any, state: list[th.Tensor], batch: list[th.Tensor]) -> list[th.Tensor]:
        """
        :param settings: a hashable value of everything that the function depends on besides its arguments
        :param state: the first arguments, which keep their memory addresses between calls
        :param batch: the remaining arguments
        :return: what the function returns
        :raises ValueError: if the function cannot be compiled; the message says why
        """
        key = (settings, tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in (*state, *batch)))
        if key not in self._compiled:
            self._compiled[key] = self._compile(state, batch)
        return self._compiled[key](*state, *batch)

    def _compile(self, state: list[th.Tensor], batch: list[th.Tensor]) -> Callable[..., list[th.Tensor]]:
        # Copies, because tracing runs the function, which calls requires_grad_() on its arguments
        examples: list[Any] = [tensor.detach().clone() for tensor in (*state, *batch)]
        try:
            with _TraceableOneHot():
                graph = make_fx(self.function)(*examples)
        except Exception as error:  # whatever a network's forward() may raise
            raise ValueError(
                f"{self.wanted_by} cannot compile {self.name}: {type(error).__name__}: {error}. "
                f"Avoid branches on the values of tensors in forward(), or train without {self.wanted_by}"
            ) from error
        for node in graph.graph.nodes:
            if th.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise ValueError(
                    f"{self.wanted_by} needs a network without random numbers, such as those of dropout, but {self.name} "
                    f"uses {node.target}; train without {self.wanted_by}"
                )
        if self.inductor:
            _allow_other_strides(graph)
        else:
            _remove_idle_operations(graph)
        for node in graph.graph.nodes:
            node.meta.clear()  # tensors that belong to make_fx, which Inductor does not accept
        if examples[0].is_cuda:
            return _CudaGraph(_inductor.compile(graph, examples) if self.inductor else graph, len(state))
        if not self.inductor:
            return graph
        return _inductor.compile(graph, examples, options={"cpp_wrapper": True})

    def __getstate__(self) -> dict[str, Any]:
        # A copy compiles for itself
        return {**self.__dict__, "_compiled": {}}


def _allow_other_strides(graph: GraphModule) -> None:
    """Replace view() by reshape(): Inductor may choose other strides than during tracing, for which view() would fail."""
    aten = th.ops.aten
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def _remove_idle_operations(graph: GraphModule) -> None:
    """Remove operations that return their first argument unchanged; ``vmap`` produces many of them."""
    aten = th.ops.aten
    views = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.slice.Tensor, aten.detach.default}
    for node in graph.graph.nodes:
        is_product_with_one = node.target is aten.mul.Scalar and node.args[1] == 1
        if node.target not in views and not is_product_with_one:
            continue
        source = node.args[0]
        before, after = source.meta.get("val"), node.meta.get("val")
        if before is not None and (before.shape, before.stride(), before.dtype) == (after.shape, after.stride(), after.dtype):
            node.replace_all_uses_with(source)
    graph.graph.eliminate_dead_code()
    graph.recompile()


class _TraceableOneHot(TorchFunctionMode):
    """``F.one_hot`` without its check of the values, which cannot be traced. SB3's preprocessing uses it for categories."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.one_hot:
            return function(*args, **kwargs)

        def one_hot(tensor: th.Tensor, num_classes: int) -> th.Tensor:
            return (tensor.unsqueeze(-1) == th.arange(num_classes, device=tensor.device)).long()

        return one_hot(*args, **kwargs)


class _CudaGraph:
    """
    A function recorded as a CUDA graph, which is launched as a whole instead of kernel by kernel.

    :param function: of tensors on one CUDA device; does not synchronise
    :param n_state: number of leading arguments that keep their address; the others are copied before each launch
    """

    def __init__(self, function: Callable[..., list[th.Tensor]], n_state: int) -> None:
        self._function, self._n_state = function, n_state
        self._addresses: list[int] = []

    def __call__(self, *tensors: th.Tensor) -> list[th.Tensor]:
        state, batch = tensors[: self._n_state], tensors[self._n_state :]
        # A parameter may have been replaced by another
        if [tensor.data_ptr() for tensor in state] != self._addresses:
            self._record(state, batch)
        for recorded, given in zip(self._batch, batch, strict=True):
            recorded.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]

    def _record(self, state: tuple[th.Tensor, ...], batch: tuple[th.Tensor, ...]) -> None:
        self._addresses = [tensor.data_ptr() for tensor in state]
        self._batch = [tensor.clone() for tensor in batch]
        # First calls choose kernels and allocate what they need, which cannot be recorded. A function may change its arguments
        stream = th.cuda.Stream()
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            for _ in range(3):
                self._function(*state, *(tensor.clone() for tensor in batch))
        th.cuda.current_stream().wait_stream(stream)
        self._graph = th.cuda.CUDAGraph()
        with th.cuda.graph(self._graph):
            self._results = list(self._function(*state, *self._batch))


class CompiledGradient:
    """
    The forward passes of a gradient step, its loss and the gradient, as one compiled function.

    :param q_net: the network that learns
    :param q_net_target: the target network
    :param loss: of Q(s, ·), Q_target(s', ·) and further tensors; returns the loss [] and the mean squared TD error []
    :param network_precision: makes the context in which the networks are run
    :param needs_current_target_q_values: the loss takes Q_target(s, ·) after Q_target(s', ·)
    :raises ValueError: for a network that cannot be compiled; the message says why
    """

    def __init__(
        self,
        q_net: th.nn.Module,
        q_net_target: th.nn.Module,
        loss: Callable[..., tuple[th.Tensor, th.Tensor]],
        network_precision: Callable[[], AbstractContextManager] = nullcontext,
        needs_current_target_q_values: bool = False,
    ) -> None:
        self.q_net, self.q_net_target, self.loss = q_net, q_net_target, loss
        self._needs_current = needs_current_target_q_values
        self._network_precision = network_precision
        self._compiled = Compiled(self._function, "the gradient step")
        # By settings: for which of the trained parameters there is a gradient
        self._used: dict[Any, list[bool]] = {}
        describe_network(q_net)

    def __call__(
        self, observations: PyTorchObs, next_observations: PyTorchObs, *tensors: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        Adds the gradient to that of the parameters, as ``loss.backward()`` does.

        :param observations: s of a batch, as the network takes them
        :param next_observations: s' of the batch
        :param tensors: the further arguments of the loss
        :return: loss [], mean squared TD error [] and Q(s, ·) [batch, n_actions]
        """
        kinds, self._names, parameters = describe_network(self.q_net)
        target_kinds, self._target_names, target_parameters = describe_network(self.q_net_target)
        self._trained = [parameter.requires_grad for parameter in parameters]
        self._keys, inputs = observation_list(observations)
        next_inputs = [next_observations[key] for key in self._keys] if self._keys else [next_observations]  # type: ignore[index]
        names = (tuple(self._names), tuple(self._target_names))
        self._settings = (kinds, target_kinds, *names, tuple(self._trained), tuple(self._keys))
        loss, squared_td_error, q_values, *gradients = self._compiled(
            self._settings, [*parameters, *target_parameters], [*inputs, *next_inputs, *tensors]
        )
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = [parameter for parameter, used in zip(trained, self._used[self._settings], strict=True) if used]
        for parameter, gradient in zip(used, distinct(gradients), strict=True):
            if gradient.stride() != parameter.stride():
                # backward() gives a gradient the strides of its parameter, and fused optimisers rely on this
                gradient = th.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss, squared_td_error, q_values

    def _function(self, *tensors: th.Tensor) -> list[th.Tensor]:
        """The function that is compiled, of parameters, target parameters, s, s' and the further arguments of the loss."""
        remaining = list(tensors)
        parameters = take_first(remaining, len(self._names))
        target_parameters = take_first(remaining, len(self._target_names))
        observations = observations_of_list(self._keys, take_first(remaining, len(self._keys) or 1))
        next_observations = observations_of_list(self._keys, take_first(remaining, len(self._keys) or 1))
        with self._network_precision():
            target = dict(zip(self._target_names, target_parameters, strict=True))
            target_inputs = [next_observations, observations] if self._needs_current else [next_observations]
            target_outputs = [functional_call(self.q_net_target, target, (states,)) for states in target_inputs]
        with th.enable_grad():
            parameters = [p.requires_grad_(trained) for p, trained in zip(parameters, self._trained, strict=True)]
            with self._network_precision():
                online = dict(zip(self._names, parameters, strict=True))
                q_values = functional_call(self.q_net, online, (observations,))
            q_values, *target_outputs = map(full_precision, (q_values, *target_outputs))
            loss, squared_td_error = self.loss(q_values, *target_outputs, *remaining)
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            gradients = th.autograd.grad(loss, trained, allow_unused=True)
        # Parameters that the loss does not depend on get no gradient, so that optimisers leave them alone
        self._used[self._settings] = [gradient is not None for gradient in gradients]
        used = [gradient for gradient in gradients if gradient is not None]
        return [loss.detach(), squared_td_error.detach(), q_values.detach(), *used]


class CompiledActing:
    """
    The forward pass of a network, and what is computed from Q(s, ·), as one compiled function.

    :param q_net: the network
    :param function: of Q(s, ·) and further tensors; returns a list of tensors
    :raises ValueError: for a network that cannot be compiled; the message says why
    """

    def __init__(self, q_net: th.nn.Module, function: Callable[..., list[th.Tensor]]) -> None:
        self.q_net, self.function = q_net, function
        self._compiled = Compiled(self._function, "the choice of actions")
        describe_network(q_net)

    def __call__(self, observations: PyTorchObs, *tensors: th.Tensor) -> list[th.Tensor]:
        """
        :param observations: as the network takes them
        :param tensors: the further arguments of the function, which keep their memory addresses between calls
        :return: what the function returns
        """
        kinds, self._names, parameters = describe_network(self.q_net)
        self._keys, inputs = observation_list(observations)
        settings = (kinds, tuple(self._names), tuple(self._keys))
        return self._compiled(settings, [*parameters, *tensors], inputs)

    def _function(self, *tensors: th.Tensor) -> list[th.Tensor]:
        """The function that is compiled, of parameters, further tensors and observations."""
        n_inputs = len(self._keys) or 1
        remaining = list(tensors[:-n_inputs])
        parameters = dict(zip(self._names, take_first(remaining, len(self._names)), strict=True))
        observations = observations_of_list(self._keys, list(tensors[-n_inputs:]))
        return self.function(functional_call(self.q_net, parameters, (observations,)), *remaining)


def observation_list(observations: PyTorchObs) -> tuple[list[str], list[th.Tensor]]:
    """The keys of a dictionary, which has an order of its own, and its tensors; no keys for a tensor."""
    if isinstance(observations, dict):
        return [*observations], [*observations.values()]
    return [], [observations]


def observations_of_list(keys: Sequence[str], tensors: list[th.Tensor]) -> PyTorchObs:
    """The counterpart of :func:`observation_list`."""
    return dict(zip(keys, tensors, strict=True)) if keys else tensors[0]


def take_first(tensors: list[th.Tensor], number: int) -> list[th.Tensor]:
    """Removes the first ones from a list and returns them."""
    taken, tensors[:] = tensors[:number], tensors[number:]
    return taken
