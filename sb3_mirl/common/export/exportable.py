"""Exports as methods of a DQN: :class:`ExportableDQN`."""

import io
import json
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv

from sb3_mirl.common.export.load import load_model
from sb3_mirl.common.export.model import ExportableModel
from sb3_mirl.common.export.onnx import write_onnx
from sb3_mirl.common.export.writer import export_model
from sb3_mirl.common.inputs import check_argument
from sb3_mirl.common.policies import DQNPolicy
from sb3_mirl.common.signatures import constructor_signature, refuse_unknown_arguments

SelfDQN = TypeVar("SelfDQN", bound="ExportableDQN")


class ExportableDQN(ExportableModel):
    """SB3's DQN, written to files that hold data only."""

    policy: DQNPolicy

    def export(self, path: str | Path, **arguments: Any) -> Path:
        """
        Write the model to one file that holds data only, for :meth:`load_exported`.

        It holds the policy, the optimiser's state, the constructor's arguments and the counters of training, so that training
        continues as after ``save`` and ``load``. Unlike them, an export records which parameters are frozen
        (``requires_grad=False``). It leaves out the replay buffer, as ``save`` does, the folder of TensorBoard logs, the last
        observation and the statistics of the latest episodes. It also leaves out the statistics of ``VecNormalize``, which
        has a ``save`` of its own.

        :param path: of the file, which is replaced atomically; ``.safetensors`` is added if it has no suffix
        :param arguments: constructor arguments to be written in place of the model's, such as a number for a
            ``learning_rate`` that is a function
        :return: the path of the file
        :raises ValueError: if a part of the model cannot be written as data; the message names it
        """
        return export_model(self, path, arguments)

    @classmethod
    def load_exported(
        cls: type[SelfDQN],
        path: str | Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, type] | None = None,
        **arguments: Any,
    ) -> SelfDQN:
        """
        Load a file that :meth:`export` wrote. No code in the file is run, whatever its origin.

        :param path: of the file; ``.safetensors`` may be left out
        :param env: the environment to go on with; not needed to predict
        :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
        :param custom_objects: your classes by their names in the file, such as ``{"my_package.nets.Net": Net}``; those of
            torch, SB3 and this package are known
        :param arguments: constructor arguments to be used in place of the file's
        :return: the model
        :raises ValueError: if the file is refused; the message says why, and what is accepted
        """
        return load_model(cls, path, env, device, custom_objects, arguments)

    def export_onnx(self, path: str | Path) -> None:
        """
        Write the policy that acts without exploration as one ONNX file.

        Inputs are observations with a batch axis of any length, as the environment gives them and in its dtype, images
        channel-first: ``observation``, or for Dict spaces one by the name of each key. Outputs are those of
        ``policy.onnx_outputs``: ``action`` int64 [batch], ``q_values`` float32 [batch, n_actions] and what
        the policy adds. A model that was trained with action masks has one more input, ``action_masks``, bool
        [batch, n_actions], with a valid action in each row. Preprocessing of observations is inside; exploration and
        ``VecNormalize`` are not.

        :param path: of the file, which is replaced atomically
        :raises ImportError: without the packages of the extra ``onnx``
        :raises ValueError: if a key of a Dict space has the name of an output or of the masks
        """
        metadata = {"algorithm": self.algorithm, "action_names": json.dumps(self.action_names)}
        write_onnx(path, self.policy.onnx_module(), self.observation_space, self.policy.onnx_outputs, metadata)

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfDQN],
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfDQN:
        """
        SB3's ``load``, which unpickles the file: load only files that you trust.

        A step size that was resolved from ``"auto"`` is resolved anew if its argument is given. Arguments that set initial
        values have no effect, because the model continues with what it has learned.

        :param path: of the file; ``.zip`` may be left out
        :param env: the environment to go on with; not needed to predict
        :param device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``
        :param custom_objects: objects in place of entries of the file that can't be unpickled, by name
        :param print_system_info: whether to print on what the file was saved, and what runs here
        :param force_reset: whether ``learn`` begins with a new episode
        :param kwargs: constructor arguments in place of the file's, or other attributes of the model
        :return: the model
        :raises TypeError: if a name in ``kwargs`` is neither
        :raises ValueError: if the file was saved by another algorithm, or an argument is not accepted
        """
        check_argument("device", {"device": device}, cls.argument_rules)
        if isinstance(path, str | Path) and Path(path).suffix == ".safetensors":
            raise ValueError(f"path must be a file of save(), got {str(path)!r}: {cls.__name__}.load_exported reads exports")
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        unknown = kwargs.keys() - constructor_signature(cls).parameters.keys() - {*model._excluded_save_params()}
        # A file object is read already
        if unknown and isinstance(path, (str, Path)):
            saved, _, _ = load_from_zip_file(path, custom_objects=custom_objects, device="cpu")
            refuse_unknown_arguments(cls, sorted(unknown - (saved or {}).keys()))
        for name in cls.exported_attributes:
            if name.removeprefix("resolved_") in kwargs:
                setattr(model, name, None)
        return model
