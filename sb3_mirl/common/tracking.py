"""Trackers of experiments: what SB3's logger records, in Weights & Biases or in trackio."""

import inspect
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

TRACKERS = ("wandb", "trackio")


class TrackingCallback(BaseCallback):
    """
    Sends all numbers of SB3's logger to a tracker of experiments: what TensorBoard would show.

    A run of the tracker begins and ends with the training. Weights & Biases opens it beside other runs, so that models that
    are trained jointly have one each. Its settings are the arguments of the model that are numbers, text or truth values.
    The tracker itself is set up by its environment variables, such as ``WANDB_MODE=offline``.

    :param project: the tracker's project
    :param tracker: ``"wandb"`` for Weights & Biases, ``"trackio"`` for trackio, which keeps its data on this machine
    :param name: of the run; None: the tracker chooses
    :param config: further settings to be recorded with the run
    :param verbose: 0: no output, 1: info messages
    :param settings: further arguments of the tracker's ``init``
    :raises ValueError: for another tracker
    :raises ImportError: if the tracker is not installed
    """

    def __init__(
        self,
        project: str,
        tracker: str = "wandb",
        name: str | None = None,
        config: dict[str, Any] | None = None,
        verbose: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(verbose)
        if tracker not in TRACKERS:
            raise ValueError(f"tracker must be one of {', '.join(TRACKERS)}, got {tracker!r}")
        try:
            import_module(tracker)
        except ImportError as error:
            raise ImportError(f"tracker={tracker!r} needs a package ({error}): pip install {tracker}") from error
        self.project = project
        self.tracker = tracker
        self.name = name
        self.config = config or {}
        # By default Weights & Biases returns the run that is open, which may be that of another model
        self.settings = {"reinit": "create_new", **settings} if tracker == "wandb" else settings

    def _on_training_start(self) -> None:
        # The last training may have been interrupted
        self._end_run()
        config = {**arguments_of(self.model), **self.config}
        names = {} if self.name is None else {"name": self.name}
        # Both have the same functions
        run = import_module(self.tracker).init(project=self.project, config=config, **names, **self.settings)
        _OPEN[self] = _TrackerOutput(run)
        self.logger.output_formats.append(_OPEN[self])

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._end_run()

    def _end_run(self) -> None:
        # rl-zoo3 announces the end of a training twice
        output = _OPEN.pop(self, None)
        if output is None:
            return
        if output in self.logger.output_formats:
            self.logger.output_formats.remove(output)
        output.run.finish()


class _TrackerOutput(KVWriter):
    """An output of SB3's logger."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Send the numbers that TensorBoard would get."""
        numbers = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in key_values.items()
            if isinstance(value, np.ScalarType) and not isinstance(value, (str, bytes))
            if "tensorboard" not in (key_excluded[key] or ())
        }
        if numbers:
            self.run.log(numbers, step=step)

    def close(self) -> None:
        """The callback ends the run."""


#: The open runs. They are no attributes, which a checkpoint would restore
_OPEN: WeakKeyDictionary[TrackingCallback, _TrackerOutput] = WeakKeyDictionary()


def arguments_of(model: BaseAlgorithm) -> dict[str, Any]:
    """
    :param model: any of SB3
    :return: its class and those arguments of its constructor that are numbers, text, truth values or None
    """
    classes = type(model).__mro__
    names = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}  # type: ignore[misc]
    # A folder of this machine
    names.discard("tensorboard_log")
    plain = (bool, int, float, str, type(None))
    values = {name: vars(model)[name] for name in sorted(names & vars(model).keys())}
    return {"algorithm": type(model).__name__, **{name: value for name, value in values.items() if isinstance(value, plain)}}
