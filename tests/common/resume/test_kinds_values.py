"""Containers, arrays, tensors and random generators are restored with value and type."""

import copy
import random

import numpy as np
import pytest
import torch as th
from held_values import VALUES_OF_OTHERS, Fixed, World, round_trip, same

from sb3_mirl.common.resume.state import capture, restore


@pytest.mark.parametrize("case", VALUES_OF_OTHERS)
@pytest.mark.parametrize("same_before", [False, True])
def test_value_is_restored_with_its_type(case, same_before):
    value = VALUES_OF_OTHERS[case]
    new = round_trip(value, copy.deepcopy(value) if same_before else None, prototype=Fixed(0, 0))
    assert same(new, value)
    assert vars(new) == vars(value) if hasattr(value, "__dict__") else True


@pytest.mark.parametrize("dtype", [th.float32, th.bfloat16, th.int64, th.bool])
def test_tensors_of_each_dtype_are_restored(dtype):
    tensor = (th.arange(6).reshape(2, 3) % 2).to(dtype)
    new = round_trip(tensor, th.ones(2, 3, dtype=dtype))
    assert th.equal(new, tensor) and new.dtype == dtype


IMAGES = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES,
        IMAGES.transpose(0, 3, 1, 2),
        np.asfortranarray(IMAGES),
        IMAGES[:, ::2],
        IMAGES[..., ::-1],
        IMAGES[:1],
        IMAGES.T[:, :1],
    ],
)
@pytest.mark.parametrize("before", [np.zeros_like, lambda array: np.zeros(array.shape, array.dtype), lambda array: None])
def test_arrays_keep_the_order_of_their_axes_in_memory(array, before):
    """Observations of images are transposed views, and the layers of a network round differently if they are copied."""
    new = round_trip(array, before(array))
    # As a copy in the same order, whose axes of length 1 do not matter
    assert np.array_equal(new, array)
    order = [axis for axis in np.argsort(np.negative(np.abs(array.strides)), kind="stable") if array.shape[axis] > 1]
    assert sorted(order, key=lambda axis: -new.strides[axis]) == order


@pytest.mark.parametrize(
    "tensor",
    [
        th.empty(0),
        th.empty(2, 0, dtype=th.int64),
        th.tensor(2.5),
        th.tensor([1 + 2j]).conj(),
        th.ones(2, 1).expand(2, 3),
        th.ones(3, requires_grad=True),
        th.nn.Parameter(th.zeros(2), requires_grad=False),
    ],
)
def test_unusual_tensor_is_restored(tensor):
    new = round_trip(tensor, tensor.clone() if tensor.is_leaf and not tensor.requires_grad else copy.deepcopy(tensor))
    assert type(new) in (type(tensor), th.Tensor)
    assert th.equal(new, tensor) and (new.dtype, new.requires_grad) == (tensor.dtype, tensor.requires_grad)


def test_networks_and_optimisers_continue_identically():
    def learner(seed):
        th.manual_seed(seed)
        network = th.nn.Linear(2, 1)
        return {"network": network, "optimizer": th.optim.Adam(network.parameters())}

    def learn(held):
        loss = held["network"](th.ones(1, 2)).sum()
        held["optimizer"].zero_grad()
        loss.backward()
        held["optimizer"].step()

    one = learner(1)
    learn(one)
    two = round_trip(one, learner(2))
    learn(one), learn(two)
    assert th.equal(one["network"].weight, two["network"].weight)


@pytest.mark.parametrize("generator", [np.random.default_rng(1), np.random.Generator(np.random.MT19937(1))])
@pytest.mark.parametrize("before", [None, np.random.default_rng(5)])
def test_numpy_generators_continue_identically(generator, before):
    generator.integers(5, dtype=np.int32)  # half of a 64-bit draw is left
    new = round_trip(generator, before)
    assert new.integers(2**31, size=9, dtype=np.int32).tolist() == generator.integers(2**31, size=9, dtype=np.int32).tolist()


def test_python_and_legacy_numpy_generators_continue_identically():
    generator, state = random.Random(1), np.random.RandomState(1)
    generator.gauss(0, 1)
    state.standard_normal()
    again, old_style = round_trip((generator, state))
    assert again.gauss(0, 1) == generator.gauss(0, 1)
    assert old_style.standard_normal(3).tolist() == state.standard_normal(3).tolist()


def test_torch_and_bit_generators_continue_identically():
    generator, bits = th.Generator().manual_seed(3), np.random.PCG64(5)
    th.rand(3, generator=generator)
    again, again_bits, of_it = round_trip((generator, bits, np.random.Generator(bits)))
    assert th.rand(1, generator=again) == th.rand(1, generator=generator)
    assert of_it.bit_generator is again_bits and of_it.random() == np.random.Generator(bits).random()


@pytest.mark.parametrize("before", [None, np.random.default_rng(7), np.random.default_rng(8)])
def test_spawning_of_generators_continues_identically(before):
    generator = np.random.default_rng(7)
    generator.spawn(2)
    new = round_trip(generator, before)
    assert new.spawn(1)[0].random() == generator.spawn(1)[0].random()


def test_unknown_bit_generators_are_refused():
    state = capture(World(np.random.default_rng(1)))
    pairs = state.tree["attributes"]["held"]["bit_generator"]["state"]["pairs"]
    pairs[0][1] = "seterr"
    assert restore(World(None), state).held is None
    assert "a generator 'seterr', which is none of" in state.missing[0]
