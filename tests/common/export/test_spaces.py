"""Spaces as JSON come back exactly."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from sb3_mirl.common.export.spaces import decode_space, encode_space


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint32]
)
def test_bounds_of_every_dtype_are_exact(dtype):
    info = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    low = np.array([info.min, 0, 1], dtype)
    high = np.array([1, info.max, 3], dtype)
    check_space(spaces.Box(low, high, dtype=dtype))
    if np.issubdtype(dtype, np.floating):
        check_space(spaces.Box(np.array([-np.inf, dtype(0.1)], dtype), np.array([dtype(1) / 3, np.inf], dtype), dtype=dtype))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3, 2)),
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(0, 1, (0,)),
        spaces.Box(0, 1, ()),
        spaces.Discrete(5),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.int32),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Box(0, 1, (2,)))]),
    ],
)
def test_spaces_are_exact(space):
    check_space(space)


def check_space(space):
    back = decode_space(json.loads(json.dumps(encode_space(space, "space"), allow_nan=False)), "space")
    assert back == space and back.dtype == space.dtype and repr(back) == repr(space)
    if isinstance(space, spaces.Dict):
        assert [*back.spaces] == [*space.spaces]
    if isinstance(space, spaces.Box):
        assert back.low.tobytes() == space.low.tobytes() and back.high.tobytes() == space.high.tobytes()
        assert (back.bounded_below == space.bounded_below).all() and (back.bounded_above == space.bounded_above).all()


def test_the_bounds_of_a_large_image_space_take_few_bytes(tmp_path):
    assert len(json.dumps(encode_space(spaces.Box(0, 255, (84, 84, 4), np.uint8), "space"))) < 200
