"""Plain values: containers, arrays and tensors, random generators, and other classes of Python, NumPy and PyTorch."""

import ast
import collections
import datetime
import decimal
import fractions
import functools
import random
import warnings
from typing import Any

import numpy as np
import torch as th

from sb3_mirl.common.resume.classes import BUILTIN_PART, IMMUTABLE, attributes, is_instance, qualified_name
from sb3_mirl.common.resume.walk import Capture, Kind, Restore, exactly, instances, place

_SEQUENCES = (list, tuple, collections.deque)
_DICTS: dict[str, type[dict]] = {cls.__name__: cls for cls in (dict, collections.OrderedDict, collections.defaultdict)}
#: Factories of defaultdicts that are restored by name, even if the present object has another one
_FACTORIES = {f"builtins.{cls.__name__}": cls for cls in (bool, int, float, str, list, tuple, dict, set, frozenset)}
#: Types of items that are written as they are. Integers are not among them, because long ones need a node
_OWN_NODES = IMMUTABLE - {int}
_DATES = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)
_IMMUTABLE_CLASSES = (*_DATES, complex, range, slice, decimal.Decimal, fractions.Fraction, th.Size)
#: Classes that are instantiated by a call with arguments; those of pygame, if it is installed
_VALUES: dict[str, type] = {qualified_name(cls): cls for cls in _IMMUTABLE_CLASSES}
_VALUES_OF_PYGAME = ("pygame.rect.Rect", "pygame.rect.FRect", "pygame.math.Vector2", "pygame.math.Vector3")
_BIT_GENERATORS: dict[str, type[np.random.BitGenerator]] = {
    cls.__name__: cls for cls in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}


def _capture_items(walk: Capture, values: Any, path: str) -> dict[str, Any]:
    """The items of a container; those of a set in any order."""
    items = [
        value if type(value) in _OWN_NODES else walk.value(value, f"{path}[{index}]") for index, value in enumerate(values)
    ]
    return {"items": items, **({"maxlen": values.maxlen} if is_instance(values, collections.deque) else {})}


def _restored_items(walk: Restore, node: dict[str, Any], old: Any, path: str) -> list[Any]:
    """The items of a container; ``old`` is the container that is there."""
    before = list(old) if is_instance(old, _SEQUENCES) else []
    before += [None] * (len(node["items"]) - len(before))
    return [walk.value(item, before[index], f"{path}[{index}]") for index, item in enumerate(node["items"])]


def _restore_mutable(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls: Any = {"list": list, "deque": collections.deque, "set": set}[node["is"]]
    arguments = {"maxlen": node["maxlen"]} if cls is collections.deque else {}
    same = type(old) is cls and (cls is not collections.deque or old.maxlen == node["maxlen"])
    new = walk.register(node, old if same else cls(**arguments))
    items = _restored_items(walk, node, old, path)
    new.clear()
    (new.update if cls is set else new.extend)(items)
    return new


def _restore_immutable(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls: Any = tuple if node["is"] == "tuple" else frozenset
    return walk.register(node, cls(_restored_items(walk, node, old, path)))


def _capture_dict(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    pairs = [
        [walk.value(key, f"{path}.keys()[{index}]"), walk.value(item, _path_of_key(path, key))]
        for index, (key, item) in enumerate(value.items())
    ]
    factory = {"factory": walk.value(value.default_factory, path)} if is_instance(value, collections.defaultdict) else {}
    return {"type": type(value).__name__, "pairs": pairs, **factory}


def _path_of_key(path: str, key: Any) -> str:
    return f"{path}[{repr(key)[:80] if type(key) in IMMUTABLE else f'a {type(key).__name__}'}]"


def _restore_dict(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if type(old).__name__ != node["type"] or type(old) not in BUILTIN_PART:
        old = _DICTS[node["type"]]()
    walk.register(node, old)
    if node["type"] == "defaultdict":
        factory = node["factory"]
        known = factory is not None and _FACTORIES.get(factory.get("name"))
        old.default_factory = known or walk.value(factory, old.default_factory, f"{path}.default_factory")
    before = dict(old)
    new = []
    for key_node, item in node["pairs"]:
        key = walk.value(key_node, None, path)
        new.append((key, walk.value(item, before.get(key), _path_of_key(path, key))))
    old.clear()
    for key, value in new:
        old[key] = value
    return old


@functools.lru_cache(maxsize=1000)
def _is_plain_dtype(dtype: np.dtype) -> bool:
    if dtype.hasobject:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes that NumPy could only pickle
        return bool(np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype)


def _is_plain_array(value: Any) -> bool:
    is_scalar = is_instance(value, np.generic)
    return type(value) is (value.dtype.type if is_scalar else np.ndarray) and _is_plain_dtype(value.dtype)


def _memory_order(array: np.ndarray) -> list[int]:
    """The axes from the largest to the smallest stride. With axes in another order, operations may round differently."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]) if array.shape[axis] > 1 else 0)


def _capture_array(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    array = np.asarray(value)
    axes = _memory_order(array)
    array = array.transpose(axes)
    node = {
        "dtype": repr(np.lib.format.dtype_to_descr(array.dtype)),
        "shape": array.shape,
        "axes": axes,
        "content": walk.store(array.tobytes()),
    }
    return {**node, "scalar": True} if is_instance(value, np.generic) else {**node, "owner": walk.owner(array)}


def _restore_array(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(node["dtype"]))
    array = np.frombuffer(walk.arrays[node["content"]], dtype) if dtype.itemsize else np.zeros(node["shape"], dtype)
    array = array.reshape(node["shape"]).transpose(np.argsort(node["axes"]))
    if "scalar" in node:
        return walk.register(node, array.reshape(-1)[0].copy())
    fits = type(old) is np.ndarray and (old.dtype, old.shape) == (array.dtype, array.shape) and old.flags.writeable
    if fits and _memory_order(old) == node["axes"]:
        np.copyto(old, array)
        return walk.register(node, old)
    return walk.register(node, array.copy(order="K"))


def _capture_objects(walk: Capture, value: np.ndarray, path: str) -> dict[str, Any]:
    return {"shape": value.shape, **_capture_items(walk, value.ravel(), path)}


def _restore_objects(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = list(old.ravel()) if is_instance(old, np.ndarray) else None
    new = np.empty(len(node["items"]), dtype=object)
    shaped = walk.register(node, new.reshape(node["shape"]))
    for index, item in enumerate(_restored_items(walk, node, before, path)):
        new[index] = item
    return shaped


def _is_plain_tensor(value: Any) -> bool:
    plain = type(value) in (th.Tensor, th.nn.Parameter) and value.layout is th.strided
    return plain and not value.is_quantized and not value.is_nested and value.device.type != "meta"


def _capture_tensor(walk: Capture, value: th.Tensor, path: str) -> dict[str, Any]:
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    content = plain.view(th.uint8).numpy().tobytes() if plain.numel() else b""
    return {
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": tuple(value.shape),
        "content": walk.store(content),
        "device": str(value.device),
        # The graph that a tensor was computed with is not captured
        "requires_grad": value.is_leaf and value.requires_grad,
        "parameter": is_instance(value, th.nn.Parameter),
        "owner": walk.owner(value),
    }


def _restore_tensor(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    tensor = th.empty(node["shape"], dtype=getattr(th, node["dtype"]))
    if tensor.numel():
        tensor = th.as_tensor(walk.arrays[node["content"]].copy()).view(tensor.dtype).reshape(node["shape"])
    cls = th.nn.Parameter if node["parameter"] else th.Tensor
    if type(old) is cls and (old.dtype, old.shape) == (tensor.dtype, tensor.shape) and _is_plain_tensor(old) and old.is_leaf:
        try:
            with th.no_grad():
                old.copy_(tensor)
            return walk.register(node, old.requires_grad_(node["requires_grad"]))
        except RuntimeError:  # for example, several elements share memory
            pass
    if node["parameter"]:  # an optimiser may refer to the existing one
        raise walk.unknown(path, f"a parameter of the shape {tuple(node['shape'])}, which is not there")
    if node["device"] != "cpu":
        tensor = tensor.to(old.device if is_instance(old, th.Tensor) else node["device"])
    return walk.register(node, tensor.requires_grad_(node["requires_grad"]))


def _capture_optimizer(walk: Capture, value: th.optim.Optimizer, path: str) -> dict[str, Any]:
    return {"state": walk.value(value.state_dict(), path), "attributes": walk.all_values(attributes(value), path)}


def _restore_optimizer(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    if not is_instance(old, th.optim.Optimizer):
        raise walk.unknown(path, "an optimiser, but the resumed run has no such object to restore it into")
    walk.register(node, old)
    # Not in place: load_state_dict compares the new param_groups with the old ones
    old.load_state_dict(walk.value(node["state"], None, path))
    vars(old).update(walk.all_values(node["attributes"], vars(old), path))
    return old


def _capture_bytes(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    return {"content": walk.store(bytes(value))}


def _restore_bytes(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    cls = bytes if node["is"] == "bytes" else bytearray
    return walk.register(node, cls(walk.arrays[node["content"]].tobytes()))


def _is_value(value: Any) -> bool:
    name = qualified_name(type(value))
    return _VALUES.get(name) is type(value) or name in _VALUES_OF_PYGAME


def _capture_value(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    arguments = (value.real, value.imag) if is_instance(value, complex) else value.__reduce_ex__(4)[1]
    return {"class": qualified_name(type(value)), "arguments": walk.value(arguments, path)}


def _restore_value(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    name = node["class"]
    if name not in _VALUES and name not in _VALUES_OF_PYGAME:
        raise ValueError(f"at {place(path)} the state has a {name} as a value")
    cls = _VALUES.get(name) or walk.find_class(name, old, path)
    return walk.register(node, cls(*walk.value(node["arguments"], None, path)))


def _capture_bit_generator(walk: Capture, value: np.random.BitGenerator, path: str) -> dict[str, Any]:
    seeds: Any = value.seed_seq
    spawned = isinstance(seeds, np.random.SeedSequence) and seeds.n_children_spawned > 0
    return {"state": walk.value(value.state, path), **({"seeds": walk.value(seeds.state, path)} if spawned else {})}


def _restore_bit_generator(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    state = walk.value(node["state"], None, path)
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"at {place(path)} the state has a generator {name!r}, which is none of {', '.join(_BIT_GENERATORS)}")
    new = old if type(old) is _BIT_GENERATORS[name] else _BIT_GENERATORS[name]()
    if "seeds" in node:  # the seed sequence counts the generators that were spawned
        seeds = walk.value(node["seeds"], None, path)
        if not isinstance(new.seed_seq, np.random.SeedSequence) or new.seed_seq.state != seeds:
            new = _BIT_GENERATORS[name](np.random.SeedSequence(**seeds))
    new.state = state
    return walk.register(node, new)


def _capture_generator(walk: Capture, value: np.random.Generator, path: str) -> dict[str, Any]:
    return {"bit_generator": walk.value(value.bit_generator, path)}


def _restore_generator(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    before = old.bit_generator if type(old) is np.random.Generator else None
    bit_generator = walk.value(node["bit_generator"], before, path)
    return walk.register(node, old if bit_generator is before else np.random.Generator(bit_generator))


def _is_random_state(value: Any) -> bool:
    return type(value) is np.random.RandomState and value.get_state(legacy=False)["bit_generator"] == "MT19937"


def _capture_state(walk: Capture, value: Any, path: str) -> dict[str, Any]:
    """A generator that is described by its state."""
    if type(value) is th.Generator:
        return {"device": str(value.device), "state": walk.value(value.get_state(), path)}
    state = value.getstate() if type(value) is random.Random else value.get_state(legacy=False)
    return {"state": walk.value(state, path)}


def _restore_state(walk: Restore, node: dict[str, Any], old: Any, path: str) -> Any:
    state = walk.value(node["state"], None, path)
    new: Any
    if node["is"] == "random":
        new = old if type(old) is random.Random else random.Random()
        new.setstate(state)
    elif node["is"] == "random_state":
        new = old if _is_random_state(old) else np.random.RandomState()
        new.set_state(state)
    else:
        same = type(old) is th.Generator and str(old.device) == node["device"]
        new = old if same else th.Generator(node["device"])
        new.set_state(state)
    return walk.register(node, new)


def _is_object_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype == object


KINDS = (
    Kind("array", _is_plain_array, _capture_array, _restore_array, in_place=True),
    Kind("objects", _is_object_array, _capture_objects, _restore_objects),
    Kind("tensor", _is_plain_tensor, _capture_tensor, _restore_tensor, in_place=True),
    Kind("optimizer", instances(th.optim.Optimizer), _capture_optimizer, _restore_optimizer),
    Kind("list", exactly(list), _capture_items, _restore_mutable, in_place=True),
    Kind("tuple", exactly(tuple), _capture_items, _restore_immutable),
    Kind("deque", exactly(collections.deque), _capture_items, _restore_mutable, in_place=True),
    Kind("set", exactly(set), _capture_items, _restore_mutable, in_place=True),
    Kind("frozenset", exactly(frozenset), _capture_items, _restore_immutable),
    Kind("dict", exactly(*_DICTS.values()), _capture_dict, _restore_dict, in_place=True),
    Kind("bytes", exactly(bytes), _capture_bytes, _restore_bytes),
    Kind("bytearray", exactly(bytearray), _capture_bytes, _restore_bytes),
    Kind("value", _is_value, _capture_value, _restore_value),
    Kind("bit_generator", instances(*_BIT_GENERATORS.values()), _capture_bit_generator, _restore_bit_generator, in_place=True),
    Kind("generator", exactly(np.random.Generator), _capture_generator, _restore_generator, in_place=True),
    Kind("random_state", _is_random_state, _capture_state, _restore_state, in_place=True),
    Kind("random", exactly(random.Random), _capture_state, _restore_state, in_place=True),
    Kind("torch_generator", exactly(th.Generator), _capture_state, _restore_state, in_place=True),
)
