"""The acting policy as one ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import DQNPolicy

from sb3_mirl.common.files import write_whole

#: Name of the input of action masks
MASKS = "action_masks"


class Acting(th.nn.Module):
    """
    Observations → action and Q-values, with the preprocessing of observations. Subclasses may compute more from the Q-values.

    :param policy: of DQN
    """

    def __init__(self, policy: DQNPolicy) -> None:
        super().__init__()
        self.q_net, self.first_action = policy.q_net, int(policy.action_space.start)  # type: ignore[attr-defined]
        space = policy.observation_space
        self.keys = [*space.spaces] if isinstance(space, spaces.Dict) else []
        self.n_actions = int(policy.action_space.n)  # type: ignore[attr-defined]
        #: Whether the last input is action masks
        self.takes_masks: bool = getattr(policy, "needs_action_masks", False)

    def forward(self, *inputs: th.Tensor) -> tuple[th.Tensor, ...]:
        """The outputs for a batch of observations, one tensor for each key of a Dict space, and action masks."""
        observations, masks = (inputs[:-1], inputs[-1]) if self.takes_masks else (inputs, None)
        observation: Any = dict(zip(self.keys, observations, strict=True)) if self.keys else observations[0]
        return self.outputs(self.q_net(observation), observation, masks)

    def outputs(self, q_values: th.Tensor, obs: PyTorchObs, masks: th.Tensor | None = None) -> tuple[th.Tensor, ...]:
        """
        :param q_values: Q(s, ·), [batch, n_actions]
        :param obs: s, as the network takes them
        :param masks: which actions are valid, bool [batch, n_actions]; None: all
        :return: the outputs of the file: ``action``, int64 [batch]; ``q_values``
        """
        valid = q_values if masks is None else q_values.masked_fill(~masks, -th.inf)
        return valid.argmax(dim=1) + self.first_action, q_values


def write_onnx(
    path: str | Path, acting: Acting, space: spaces.Space, outputs: tuple[str, ...], metadata: Mapping[str, str]
) -> None:
    """
    Inputs of the file are observations with a batch axis of any length, as the environment gives them and in its dtype, images
    channel-first: ``observation``, or for a Dict space one input for each key, of the key's name. For a policy that was
    trained with action masks the last input is :data:`MASKS`, bool [batch, n_actions].

    :param path: of the file, written atomically
    :param acting: what the file computes
    :param space: of one observation
    :param outputs: names of the outputs
    :param metadata: texts by name, stored in the file's metadata
    :raises ImportError: without the packages of the extra ``onnx``
    :raises ValueError: if a key of a Dict space has the name of an output or of the masks
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Writing ONNX needs more packages ({error}): pip install 'sb3-mirl[onnx]'") from error

    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    masks = [MASKS] if acting.takes_masks else []
    if parts.keys() & {*outputs, *masks}:
        raise ValueError(
            f"Keys of the observation space must not have the names of outputs, {[*outputs, *masks]}: got {sorted(parts)}"
        )
    # Two observations: torch takes a batch axis of length 1 for a constant
    samples = [np.stack([part.sample()] * 2) for part in parts.values()]
    samples += [np.ones((2, acting.n_actions), dtype=bool) for _ in masks]
    device = next(acting.parameters()).device
    with _quiet_exporter():
        program = th.onnx.export(
            acting.eval(),
            tuple(th.as_tensor(sample, device=device) for sample in samples),
            dynamo=True,
            input_names=[*parts, *masks],
            output_names=[*outputs],
            dynamic_shapes=(tuple({0: th.export.Dim("batch")} for _ in samples),),
            verbose=False,
        )
    proto = program.model_proto  # type: ignore[union-attr]
    for key, value in metadata.items():
        proto.metadata_props.add(key=f"sb3_mirl.{key}", value=value)
    write_whole(Path(path), proto.SerializeToString())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings, and its messages about torchvision, which is not used."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
