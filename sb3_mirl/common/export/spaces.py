"""Observation and action spaces as JSON: ``{"Box": {"dtype": ..., "shape": ..., "low": ..., "high": ...}}`` and the like."""

from typing import Any

from gymnasium import spaces

from sb3_mirl.common.export.values import DTYPES, array_values, count_elements, decode_array, decode_dtype
from sb3_mirl.common.text import printable, shortened

#: The spaces, and the fields of each
FIELDS = {
    "Box": {"dtype", "shape", "low", "high"},
    "Discrete": {"dtype", "n", "start"},
    "MultiDiscrete": {"dtype", "shape", "nvec", "start"},
    "MultiBinary": {"n"},
}


def encode_space(space: spaces.Space, where: str) -> dict[str, Any]:
    """A Box, Discrete, MultiDiscrete, MultiBinary or Dict of these as JSON; raises ValueError if it is another space."""
    if type(space) is spaces.Dict and all(isinstance(key, str) for key in space.spaces):
        # A list, because the order of the keys matters
        return {"Dict": [[key, encode_space(part, f"{where}[{key!r}]")] for key, part in space.spaces.items()]}
    kind, dtype = type(space).__name__, space.dtype.name if space.dtype is not None else ""
    if type(space) is not getattr(spaces, kind, None) or kind not in FIELDS:
        raise ValueError(f"{where} must be a Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these, got {space!r}")
    if dtype not in DTYPES:
        raise ValueError(f"{where} must have one of the dtypes {[*DTYPES]}, got {space!r}")
    if isinstance(space, spaces.MultiBinary):
        return {kind: {"n": space.n if isinstance(space.n, int) else list(space.n)}}
    if isinstance(space, spaces.Discrete):
        return {kind: {"dtype": dtype, "n": int(space.n), "start": int(space.start)}}
    arrays = {name: array_values(getattr(space, name)) for name in sorted(FIELDS[kind] - {"dtype", "shape"})}
    return {kind: {"dtype": dtype, "shape": list(space.shape or ()), **arrays}}


def decode_space(value: Any, where: str) -> spaces.Space:
    """The inverse of :func:`encode_space`, for JSON whose depth was checked; raises ValueError if it is not a space."""
    kind, content = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (None, None)
    try:
        if kind == "Dict":
            return spaces.Dict([(str(key), decode_space(part, f"{where}[{key!r}]")) for key, part in content])  # type: ignore
        if not isinstance(content, dict) or kind not in FIELDS or content.keys() != FIELDS[kind]:
            raise ValueError(f"a space must be a Dict or have the fields of one of {FIELDS}")
        if kind == "MultiBinary":
            count_elements(content["n"] if isinstance(content["n"], list) else [content["n"]])
            return spaces.MultiBinary(content["n"])
        dtype: Any = decode_dtype(content["dtype"])
        if kind == "Discrete":
            return spaces.Discrete(content["n"], start=content["start"], dtype=dtype)
        arrays = {
            name: decode_array({"dtype": dtype.name, "shape": content["shape"], "values": content[name]}, f"{where}.{name}")
            for name in sorted(content.keys() - {"dtype", "shape"})
        }
        return getattr(spaces, kind)(**arrays, dtype=dtype.type)
    except Exception as error:  # Gymnasium raises exceptions of many types
        raise ValueError(f"{where}: the file has no space in {shortened(value)} ({printable(error)})") from error
