"""
The document of an exported file: its fields, its limits, and how it is read.

A file is one safetensors file. The value of ``sb3_mirl`` in its ``__metadata__`` is the document, a JSON object with the
fields :data:`FIELDS` and, in newer files, :data:`NEWER_FIELDS`. Tensors are named ``policy.`` or ``optimizer.`` and their name
in the ``state_dict``. Reading a file unpickles nothing and imports nothing; the size and depth of the document are limited, so
that a small file cannot take much memory.
"""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors

from sb3_mirl.common import learning_curve
from sb3_mirl.common.export.model import TRAINING
from sb3_mirl.common.export.values import MAX_ELEMENTS, count_elements
from sb3_mirl.common.text import printable, shortened

FORMAT, VERSION = "sb3_mirl", 1
SUFFIX = ".safetensors"

MAX_HEADER_BYTES = 2**22
#: Levels of lists and objects in the document
MAX_DEPTH = 32
#: Largest number of values in a field, without the elements of arrays. This limits the time to build a network
MAX_VALUES = {"arguments": 1_000, "observation_space": 5_000, "action_space": 5_000}
MAX_OTHER_VALUES = 20_000
MAX_ENVS = 2**16

#: First two bytes of files of other kinds
MAGIC = {
    b"PK": "a zip of SB3's save, for load()",
    **{bytes([0x80, protocol]): "a pickle, which would run code when loaded" for protocol in range(2, 6)},
}

#: What the document holds, and the JSON type of each
FIELDS: dict[str, tuple[type, ...]] = {
    **{"format": (str,), "version": (int,), "algorithm": (str,), "action_names": (list, type(None))},
    **dict.fromkeys(("arguments", "observation_space", "action_space", "training", "optimizer", "versions"), (dict,)),
}
#: What documents of older files do not hold: the names of the frozen parameters, the returns of the episodes, and whether the
#: model learns with action masks
NEWER_FIELDS: dict[str, tuple[type, ...]] = {"frozen": (list,), "learning_curve": (dict,), "uses_action_masks": (bool,)}


# ---- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """
    An exported file. Nothing is built from it, and tensors are read on demand.

    :param path: of the file; :data:`SUFFIX` may be left out
    :return: the document, checked by :func:`check_document`, and safetensors' reader of the tensors
    :raises ValueError: if it is not such a file, or damaged
    :raises OSError: if it does not exist or cannot be read
    """
    path = Path(path)
    if not path.suffix and not path.exists():
        path = path.with_name(path.name + SUFFIX)
    check_regular_file(path)
    try:
        document = _read_document(path)
        with safetensors.safe_open(path, framework="pt") as file:
            yield document, file
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def check_regular_file(path: Path) -> None:
    """Raise FileNotFoundError, or ValueError for folders, pipes and devices: opening a named pipe would wait for a writer."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} must be a file, and is a {'folder' if path.is_dir() else 'pipe, socket or device'}")


def _read_document(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"its header must have at most {MAX_HEADER_BYTES} bytes, and says {length}")
        header = file.read(length)
    try:
        fields = parse_json(header.decode())
    except ValueError as error:
        raise _damaged(path, error) from error
    metadata = fields.get("__metadata__") if isinstance(fields, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(FORMAT), str):
        raise ValueError(
            f"{path} is a safetensors file, but was not written by sb3_mirl's export: no {FORMAT!r} in its metadata"
        )
    try:
        document = parse_json(metadata[FORMAT])
    except ValueError as error:
        raise ValueError(f"{path}: the metadata {FORMAT!r} is not JSON: {error}") from error
    check_document(document, path)
    return document


def _damaged(path: Path, reason: object) -> ValueError:
    with open(path, "rb") as file:
        kind = MAGIC.get(file.read(2))
    hint = f"; it looks like {kind}" if kind else ""
    return ValueError(f"{path} is not a safetensors file, or damaged: {printable(reason)}{hint}")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """
    Parse JSON more strictly than Python does: no NaN, no infinity, no integer of more than 64 bits, no duplicate key.

    :param text: the JSON
    :raises ValueError: if it is something else, or nested too deeply for Python's parser
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique_keys, parse_int=_integer, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"a key is there twice, among {shortened([key for key, _ in pairs])}")
    return unique


def _integer(text: str) -> int:
    number = int(text[:21])  # of thousands of digits Python refuses to make a number, with another message
    if len(text) > 20 or not -(2**63) <= number < 2**64:
        raise ValueError(f"integers must have at most 64 bits, got {text[:40]}")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"numbers must be finite, got {text[:40]}")
    return float(text)


def check_depth(value: Any) -> None:
    """Raise ValueError if JSON has more than :data:`MAX_DEPTH` levels of lists and objects."""
    for _ in _containers(value, MAX_DEPTH):
        pass


def _containers(value: Any, depth: int) -> Iterator[Any]:
    """The lists and objects in JSON, without the elements of arrays and the bounds of spaces."""
    if not isinstance(value, (list, dict)):
        return
    if depth == 0:
        raise ValueError(f"lists and objects must be nested at most {MAX_DEPTH} deep")
    yield value
    is_array = isinstance(value, dict) and "dtype" in value
    for child in value.values() if isinstance(value, dict) else value:
        if not (is_array and isinstance(child, list) and not any(isinstance(item, (list, dict)) for item in child)):
            yield from _containers(child, depth - 1)


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_document(document: Any, path: Path) -> None:
    """
    Fields, their types and sizes. The values of ``arguments``, spaces and ``optimizer`` are checked when they are decoded.

    :param document: JSON
    :param path: of the file, for error messages
    :raises ValueError: if it is not a document
    """
    try:
        _check_document(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_document(document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"the format must be {FORMAT!r}, the file has {shortened(document)}")
    if document.get("version") != VERSION:
        version = shortened(document.get("version"))
        raise ValueError(f"this version of sb3_mirl reads format version {VERSION}, got {version}")
    _check_sizes(document)
    check_fields("document", document, FIELDS, NEWER_FIELDS)
    for name, value in document.items():
        types = {**FIELDS, **NEWER_FIELDS}[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{name} must be {' or '.join(t.__name__ for t in types)}, got {shortened(value)}")
    _check_training(document["training"])
    for name in ("action_names", "versions", "frozen"):
        content = document.get(name)
        values = content.values() if isinstance(content, dict) else content or ()
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name} must hold text, got {shortened(content)}")
    if not learning_curve.is_curve(document.get("learning_curve", learning_curve.new_curve())):
        raise ValueError(f"learning_curve must be a learning curve, got {shortened(document['learning_curve'])}")


def _check_sizes(document: dict[str, Any]) -> None:
    n_elements = 0
    for name, field in document.items():
        n_values, max_values = 0, MAX_VALUES.get(name, MAX_OTHER_VALUES)
        for container in _containers(field, MAX_DEPTH):
            n_values += len(container)
            if isinstance(container, dict) and "dtype" in container:
                n_elements += count_elements(container.get("shape", []))
            if n_values > max_values:
                raise ValueError(f"{shortened(name)} must have at most {max_values} values")
            if n_elements > MAX_ELEMENTS:
                raise ValueError(f"arrays and spaces must have at most {MAX_ELEMENTS} elements together")


def _check_training(training: dict[str, Any]) -> None:
    # Others are attributes of a subclass: loading compares their names with those of its class
    check_fields("training", training, TRAINING, training)
    for name, (_, kind) in TRAINING.items():
        value, largest = training[name], {"n_envs": MAX_ENVS}.get(name, 2**63 if kind is int else 1)
        if type(value) not in (kind, int) or not 0 <= value <= largest:
            raise ValueError(f"training: {name} must be {kind.__name__} in [0, {largest}], got {shortened(value)}")
    if training["n_envs"] < 1:
        raise ValueError(f"training: n_envs must be at least 1, got {training['n_envs']}")
    for name in training.keys() - TRAINING.keys():
        if type(training[name]) not in (int, float, type(None)):
            raise ValueError(f"training: {shortened(name)} must be a number or null, got {shortened(training[name])}")


def check_fields(what: str, given: Any, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise ValueError unless ``given`` is a JSON object with all needed fields, and no others than the optional ones."""
    needed, accepted = set(needed), {*needed, *optional}
    if not isinstance(given, dict):
        raise ValueError(f"{what}: must have the fields {sorted(accepted)}, got {shortened(given)}")
    unknown, missing = sorted(given.keys() - accepted), sorted(needed - given.keys())
    if unknown or missing:
        raise ValueError(
            f"{what}: unknown fields {shortened(unknown)}, missing fields {shortened(missing)}; "
            f"accepted are {shortened(sorted(accepted))}"
        )
