"""Events that SB3's callbacks lack: after each gradient step, and rollouts for callbacks inside of SB3's EventCallbacks."""

from collections.abc import Iterator
from typing import TypeVar

import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback

SomeCallback = TypeVar("SomeCallback", bound=BaseCallback)


class GradientStepCallback(BaseCallback):
    """
    An SB3 callback with one more event: :meth:`_on_gradient_step`, after each gradient step of ``train()``.

    SB3 has no event inside ``train()``, which may do many gradient steps between two calls of ``_on_step``.
    :class:`~sb3_mirl.common.dqn.BaseDQN` and its subclasses trigger this event.
    """

    def _on_step(self) -> bool:
        return True

    def on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        """Called by the algorithm, with the argument of :meth:`_on_gradient_step`."""
        self._on_gradient_step(squared_td_error)

    def _on_gradient_step(self, squared_td_error: th.Tensor) -> None:
        """
        :param squared_td_error: the mean squared TD error of the batch before the step, [] on the model's device, whatever
            the loss is
        """


class RolloutEvents(BaseCallback):
    """
    Forwards the beginning and end of rollouts and the end of training to callbacks inside of SB3's EventCallback
    (EveryNTimesteps, EvalCallback), which does not forward these events itself.

    :param callbacks: the callbacks inside
    """

    def __init__(self, callbacks: list[BaseCallback]) -> None:
        super().__init__()
        self.callbacks = callbacks

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def _on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        for callback in self.callbacks:
            callback.on_training_end()


def flatten_callbacks(callback: BaseCallback) -> Iterator[BaseCallback]:
    """The callback and all that SB3's containers (CallbackList, EventCallback, EvalCallback) hold."""
    yield callback
    children: list[BaseCallback | None] = [*callback.callbacks] if isinstance(callback, CallbackList) else []
    if isinstance(callback, EventCallback):
        children = [callback.callback, getattr(callback, "callback_on_new_best", None)]
    for child in children:
        if child is not None:
            yield from flatten_callbacks(child)


def callbacks_inside_events(callback: BaseCallback, kind: type[SomeCallback]) -> list[SomeCallback]:
    """The callbacks of a kind that are inside of SB3's EventCallbacks, each once."""
    events = [item for item in flatten_callbacks(callback) if isinstance(item, EventCallback)]
    inside = [item for event in events for item in flatten_callbacks(event) if isinstance(item, kind)]
    return list(dict.fromkeys(inside))
