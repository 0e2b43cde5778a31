"""What is in a model file, an export or a zip of SB3's ``save``, without running code of it."""

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.dqn import DQN

from sb3_mirl.common.export.document import FORMAT, SUFFIX, check_depth, check_regular_file, opened
from sb3_mirl.common.export.model import TRAINING, argument_names, attribute_name
from sb3_mirl.common.learning_curve import is_curve

ZIP_FORMAT = "SB3 zip"
#: Largest size of a compressed entry of a zip after expansion
MAX_EXPANDED_BYTES = 2**26
MAX_INFO_BYTES = 2**16


def read_model_file(
    path: str | Path, tensors: tuple[str, ...] = (), algorithm: type = DQN
) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """
    Read a model file without unpickling. In SB3's zip the JSON entry ``data`` holds pickles in base64, which are not decoded:
    the text that SB3 wrote beside each is returned. torch's restricted reader (``weights_only=True``) reads ``policy.pth``.

    :param path: of the file; its suffix may be left out, and ``.zip`` is tried before ``.safetensors``
    :param tensors: names in the ``state_dict`` of the policy; a name that ends with a dot stands for all that begin with it
    :param algorithm: the class whose constructor arguments and training attributes are looked for in a zip
    :return: plain JSON: ``file_format``, ``algorithm``, ``training``, ``arguments``, ``observation_space``, ``action_space``,
        ``action_names``, ``learning_curve``, ``versions``, None for what the file does not say; and the requested tensors that
        the file has. Check a tensor's size before copying it: an expanded one may have more elements than fit into memory
    :raises ValueError: if the file is neither an export nor SB3's zip, or is damaged; the message says why
    """
    candidates = [Path(f"{path}{suffix}") for suffix in ("", ".zip", SUFFIX)]
    path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r}")
    check_regular_file(path)
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and zipfile.is_zipfile(path):
        found, state_dict = _read_zip(path, algorithm)
        return found, {name: state_dict[name] for name in _chosen(state_dict, tensors)}
    shown = ("algorithm", "training", "arguments", "observation_space", "action_space", "action_names", "learning_curve")
    with opened(path) as (document, file):
        found = {
            "file_format": f"{FORMAT} export, version {document['version']}",
            **{name: document.get(name) for name in shown},
            "versions": document["versions"],
        }
        names = [name.removeprefix("policy.") for name in file.keys() if name.startswith("policy.")]
        return found, {name: file.get_tensor(f"policy.{name}") for name in _chosen(names, tensors)}


def _chosen(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    exact, prefixes = {*wanted}, tuple(name for name in wanted if name.endswith("."))
    return [name for name in names if name in exact or name.startswith(prefixes)]


def _read_zip(path: Path, algorithm: type) -> tuple[dict[str, Any], dict[str, Any]]:
    text, system, weights = _read_entries(path)
    try:
        data = json.loads(text)
        check_depth(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r}: the entry data is not JSON as SB3 writes it: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{str(path)!r}: the entry data must be a JSON object, got {type(data).__name__}")
    arguments = {name: attribute_name(name) for name in [*argument_names(algorithm), "tensorboard_log"]}
    training = {name: attribute for name, (attribute, _) in TRAINING.items()}
    training |= {name: name for name in getattr(algorithm, "exported_attributes", ())}
    curve = data.get("learning_curve")
    found = {
        "file_format": ZIP_FORMAT,
        "algorithm": data.get("algorithm"),
        "training": {name: data.get(attribute) for name, attribute in training.items()},
        "arguments": {name: _readable(data[attribute]) for name, attribute in arguments.items() if attribute in data},
        "observation_space": _readable(data.get("observation_space")),
        "action_space": _readable(data.get("action_space")),
        "action_names": data.get("action_names"),
        "learning_curve": curve if is_curve(curve) else None,
        "versions": dict(line.removeprefix("- ").split(": ", 1) for line in system.splitlines() if ": " in line),
    }
    return found, _load_weights(weights, path)


def _read_entries(path: Path) -> tuple[str, str, bytes]:
    """The entries data, system_info.txt (empty if it is missing) and policy.pth of SB3's zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = set(archive.namelist())
            if not {"data", "policy.pth"} <= entries:
                raise ValueError(f"{str(path)!r} is a zip file but no model of SB3's: it lacks data or policy.pth")
            text, weights, system = _content(archive, "data").decode(), _content(archive, "policy.pth"), ""
            if "system_info.txt" in entries:
                with archive.open("system_info.txt") as file:
                    system = file.read(MAX_INFO_BYTES).decode()
        with zipfile.ZipFile(io.BytesIO(weights)) as inner:
            for name in inner.namelist():
                # torch's restricted reader creates bytearrays of any size that the file asks for
                if name.endswith(".pkl") and b"bytearray\n" in _content(inner, name):
                    raise ValueError(f"{str(path)!r}: policy.pth must hold weights only, but has a bytearray")
                _check_expansion(inner, name)
    except (zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError, RuntimeError, zlib.error, MemoryError) as error:
        raise ValueError(f"{str(path)!r} is a damaged zip file: {error}") from error
    return text, system, weights


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_expansion(archive, name)
    return archive.read(name)


def _check_expansion(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse compressed entries that expand beyond the limit. SB3 and torch write entries without compression."""
    entry = archive.getinfo(name)
    if entry.file_size > max(entry.compress_size, MAX_EXPANDED_BYTES):
        raise ValueError(
            f"the entry {name} is compressed, and must have at most {MAX_EXPANDED_BYTES} bytes, got {entry.file_size}"
        )


def _load_weights(weights: bytes, path: Path) -> dict[str, Any]:
    """The ``state_dict`` in ``policy.pth``, by torch's reader that runs no code of the file."""
    try:
        state_dict = th.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message recommends to lift the restriction; the error behind it says what was refused
        reason = str(error.__context__ or "it is damaged").partition(". ")[0]
        raise ValueError(
            f"{str(path)!r}: policy.pth is refused by torch's restricted reader, which runs no code: {reason[:300]}"
        ) from error
    except Exception as error:  # torch raises exceptions of many types
        raise ValueError(f"{str(path)!r}: policy.pth is damaged: {str(error).splitlines()[:1]}") from error
    if not isinstance(state_dict, dict):
        raise ValueError(f"{str(path)!r}: policy.pth must hold a state_dict, got {type(state_dict).__name__}")
    return state_dict


def _readable(value: Any) -> Any:
    """The text that SB3 wrote beside a pickle, instead of the pickle."""
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    if value.get(":type:") in ("<class 'abc.ABCMeta'>", "<class 'type'>"):
        return {"pickle of": f"a class of {value.get('__module__')}"}
    beside = {key: item for key, item in value.items() if key != ":serialized:" and not key.startswith("__")}
    return {"pickle of": beside.pop(":type:", None), **beside}
