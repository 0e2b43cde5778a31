"""Layers as products equal torch's layers, with their gradients."""

import pytest
import torch as th
from torch.func import functional_call, vmap
from torch.nn import functional as F

from sb3_mirl.joint.layers import LayersAsProducts, convolution, linear


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((4, 3, 3), {}),
        ((2, 4, 3), {"stride": (2, 1)}),
        ((3, 2, 2), {"stride": 2, "padding": 1}),
        ((3, 3, 3), {"padding": (2, 0), "dilation": 2}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_convolution(shape, settings, first):
    filters, height, width = shape
    images = th.randn(5, 3, 9, 8, dtype=th.float64, requires_grad=not first)
    weight = th.randn(filters, 3, height, width, dtype=th.float64, requires_grad=True)
    bias = th.randn(filters, dtype=th.float64, requires_grad=True)
    results = [function(images, weight, bias, **settings) for function in (F.conv2d, convolution)]
    th.testing.assert_close(results[1], results[0])
    inputs = [tensor for tensor in (images, weight, bias) if tensor.requires_grad]
    expected, gradients = (th.autograd.grad(result.square().sum(), inputs) for result in results)
    for gradient, other in zip(gradients, expected, strict=True):
        th.testing.assert_close(gradient, other)


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    inputs, weight = (th.randn(*shape, dtype=th.float64, requires_grad=True) for shape in ((6, 4), (3, 4)))
    arguments = [inputs, weight, *([th.randn(3, dtype=th.float64, requires_grad=True)] if bias else [])]
    results = [function(*arguments) for function in (F.linear, linear)]
    th.testing.assert_close(results[1], results[0])
    for first, second in zip(*(th.autograd.grad(result.square().sum(), arguments) for result in results), strict=True):
        th.testing.assert_close(first, second)


def test_linear_of_more_axes():
    inputs, weight = th.randn(2, 6, 4), th.randn(3, 4)
    th.testing.assert_close(linear(inputs, weight), F.linear(inputs, weight))


@pytest.mark.parametrize(
    "network",
    [
        th.nn.Sequential(th.nn.Conv2d(2, 4, 3, groups=2), th.nn.Flatten(), th.nn.Linear(36, 2)),
        th.nn.Sequential(th.nn.Conv2d(2, 3, 3, padding="same"), th.nn.ReLU(), th.nn.Conv2d(3, 2, 2), th.nn.Flatten()),
    ],
)
def test_networks_of_several_runs(network):
    runs = [{name: th.randn_like(value) for name, value in network.named_parameters()} for _ in range(3)]
    stacked = {name: th.stack([run[name] for run in runs]).requires_grad_() for name in runs[0]}
    images = th.randn(3, 7, 2, 5, 5)
    with LayersAsProducts():
        outputs = vmap(lambda parameters, own: functional_call(network, parameters, (own,)))(stacked, images)
    gradients = th.autograd.grad(outputs.square().sum(), [*stacked.values()])
    for number, run in enumerate(runs):
        own = {name: value.clone().requires_grad_() for name, value in run.items()}
        expected = functional_call(network, own, (images[number],))
        th.testing.assert_close(outputs[number], expected)
        for gradient, other in zip(gradients, th.autograd.grad(expected.square().sum(), [*own.values()]), strict=True):
            th.testing.assert_close(gradient[number], other, rtol=1e-4, atol=1e-4)


def test_gradient_of_weights_lies_in_memory_as_they_do():
    weight = th.randn(3, 5, 4, requires_grad=True)
    outputs = vmap(linear)(th.randn(3, 6, 4), weight)
    (gradient,) = th.autograd.grad(outputs.sum(), weight)
    assert gradient.is_contiguous()
