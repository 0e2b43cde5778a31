"""One optimiser for all runs: torch's own, on the stacked parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch as th

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.gradient import without_denormals


@dataclass
class _Segment:
    """Neighbouring runs with one optimiser."""

    rows: slice
    optimizer: th.optim.Optimizer
    #: Views of the stacks, by parameter name
    stacks: dict[str, th.Tensor]
    #: Whether the state of the models' own optimisers are views of the shared one
    linked: bool = False


class JointOptimizer:
    """
    Takes the steps of every model's optimiser. Neighbouring runs with the same learning rate and the same number of steps
    share one optimiser, whose tensors are views of the stacks. The state of each model's own optimiser is a view of its state.

    :param models: by row of the stacks
    :param parameters: stacked parameters by name, [R, ...]
    """

    def __init__(self, models: Sequence[BaseDQN], parameters: dict[str, th.Tensor]) -> None:
        self._models, self._stacked = [*models], parameters
        own = set(map(id, models[0].policy.optimizer.param_groups[0]["params"]))
        # Of the parameters that the optimiser holds
        self._names = [name for name, parameter in models[0].q_net.named_parameters() if id(parameter) in own]
        self._parameters = [dict(model.q_net.named_parameters()) for model in models]
        self._counts = [self._count(row) for row in range(len(models))]
        self._segments: list[_Segment] = []
        self._released: set[int] = set()
        self._rates = [0.0] * len(models)

    def step(self, gradients: dict[str, th.Tensor], n_updates: int) -> None:
        """
        Change the parameters. Learning rates are those of the models' optimisers; a released row keeps its last one.

        :param gradients: by parameter name, [R, ...]
        :param n_updates: gradient steps before this one
        """
        for row, model in enumerate(self._models):
            if row not in self._released:
                self._rates[row] = model.policy.optimizer.param_groups[0]["lr"]
        keys = [*zip(self._rates, self._counts, strict=True)]
        wanted = []
        for _, members in groupby(range(len(keys)), key=keys.__getitem__):
            first, *others = members
            wanted.append(slice(first, first + 1 + len(others)))
        if wanted != [segment.rows for segment in self._segments]:
            for row in range(len(self._models)):
                self.count_steps(row)
            self._segments = [self._make_segment(rows) for rows in wanted]
        for segment in self._segments:
            segment.optimizer.param_groups[0]["lr"] = self._rates[segment.rows.start]
            for name, stack in segment.stacks.items():
                gradient = gradients.get(name)
                stack.grad = None if gradient is None else gradient[segment.rows]
            with without_denormals(segment.optimizer, n_updates):
                segment.optimizer.step()
            if not segment.linked:
                self._link(segment)
        self._counts = [count + 1 for count in self._counts]

    def count_steps(self, row: int) -> None:
        """
        Write the number of steps into the state of one model's optimiser. Every other number there is a view of the shared
        state; the shared count must not be one, because a step that the model takes by itself would count for all.
        """
        for segment in self._segments if row not in self._released else ():
            if segment.linked and segment.rows.start <= row < segment.rows.stop:
                for name, stack in segment.stacks.items():
                    own = self._state(row).get(self._parameters[row][name], {})
                    if "step" in own:
                        own["step"].copy_(segment.optimizer.state[stack]["step"])

    def release(self, row: int) -> None:
        """Give one model's optimiser tensors of its own."""
        self.count_steps(row)
        self._released.add(row)
        state = self._state(row)
        for parameter in self._parameters[row].values():
            for name, value in state.get(parameter, {}).items():
                if isinstance(value, th.Tensor):
                    state[parameter][name] = value.clone()

    def _state(self, row: int) -> dict[th.Tensor, Any]:
        return self._models[row].policy.optimizer.state

    def _count(self, row: int) -> int:
        """Number of steps of one model's optimiser. For optimisers that do not count them: 1 if there is a state, else 0."""
        states = [self._state(row).get(parameter, {}) for parameter in self._parameters[row].values()]
        return max(int(state["step"]) if "step" in state else int(bool(state)) for state in states)

    def _make_segment(self, rows: slice) -> _Segment:
        """Create the shared optimiser of these rows, with the state of the models' own optimisers."""
        numbers = range(rows.start, rows.stop)
        own = self._models[rows.start].policy.optimizer
        stacks = {name: self._stacked[name][rows].detach() for name in self._names}
        optimizer = type(own)([*stacks.values()])  # type: ignore[call-arg]
        optimizer.param_groups[0].update({name: value for name, value in own.param_groups[0].items() if name != "params"})
        for parameter, stack in stacks.items():
            states = [self._state(row).get(self._parameters[row][parameter], {}) for row in numbers]
            # A released row does not count its steps any more
            living = [state for row, state in zip(numbers, states, strict=True) if row not in self._released]
            for name, value in next(filter(None, living), {}).items():
                if isinstance(value, th.Tensor):
                    # A run that ended before its first gradient step has no state
                    values = [state.get(name, th.zeros_like(value)) for state in states]
                    value = value.clone() if name == "step" else th.stack(values)
                optimizer.state[stack][name] = value
        return _Segment(rows, optimizer, stacks)

    def _link(self, segment: _Segment) -> None:
        for parameter, stack in segment.stacks.items():
            shared = segment.optimizer.state.get(stack, {})
            for index, row in enumerate(range(segment.rows.start, segment.rows.stop)):
                if not shared or row in self._released:
                    continue
                own = self._state(row)[self._parameters[row][parameter]]
                for name, value in shared.items():
                    if isinstance(value, th.Tensor):
                        value = value.clone() if name == "step" else value[index]
                    own[name] = value
        segment.linked = True
