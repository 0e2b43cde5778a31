"""Layers of networks whose weights differ between runs, as products of matrices: :class:`LayersAsProducts`."""

from typing import Any

import torch as th
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class LayersAsProducts(TorchFunctionMode):
    """
    A context in which linear layers and convolutions are matrix products, which ``vmap`` turns into fast batched products.

    Otherwise, if each run has its own weights, ``vmap`` turns a convolution into a grouped convolution, which is slow on CPUs,
    and the gradient of a linear layer's weights is a transposed matrix, which has to be copied.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.linear:
            return linear(*args, **kwargs)
        if function is F.conv2d and _is_plain(*args, **kwargs):
            return convolution(*args, **kwargs)
        return function(*args, **kwargs)


def linear(inputs: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """
    ``F.linear``.

    :param inputs: [batch, in_features]; with other axes ``F.linear`` itself is called
    :param weight: [out_features, in_features]
    :param bias: [out_features]
    :return: [batch, out_features]
    """
    if inputs.dim() != 2:
        return F.linear(inputs, weight, bias)
    if th.is_autocast_enabled(inputs.device.type):
        # The gradient is computed outside of the autocast context
        precision = th.get_autocast_dtype(inputs.device.type)
        inputs, weight = inputs.to(precision), weight.to(precision)
        bias = None if bias is None else bias.to(precision)
    product: th.Tensor = _Product.apply(inputs, weight)  # type: ignore[assignment]
    return product if bias is None else product + bias


class _Product(th.autograd.Function):
    """``inputs @ weight.T`` with gradients that lie in memory as their tensors do."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return (weight @ inputs.T).T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[th.Tensor, th.Tensor], output: th.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: th.Tensor) -> tuple[th.Tensor | None, th.Tensor | None]:  # type: ignore[override]
        inputs, weight = ctx.saved_tensors
        of_inputs = gradient @ weight if ctx.needs_input_grad[0] else None
        return of_inputs, gradient.T @ inputs if ctx.needs_input_grad[1] else None


def _is_plain(
    images: th.Tensor,
    weight: th.Tensor,
    bias: th.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    return groups == 1 and not isinstance(padding, str) and images.dim() == 4


def convolution(
    images: th.Tensor,
    weight: th.Tensor,
    bias: th.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> th.Tensor:
    """
    ``F.conv2d``.

    :param images: [batch, channels, height, width]
    :param weight: [filters, channels, height, width]
    :param bias: [filters]
    :param stride: a number or two
    :param padding: a number or two
    :param dilation: a number or two
    :param groups: 1
    :return: [batch, filters, height, width]
    """
    kernel = weight.shape[2:]
    strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
    height, width = (
        (size + 2 * pad - spread * (length - 1) - 1) // step + 1
        for size, pad, spread, length, step in zip(images.shape[2:], paddings, dilations, kernel, strides, strict=True)
    )
    if images.requires_grad or dilations != (1, 1):
        columns = F.unfold(images, kernel, dilations, paddings, strides).transpose(0, 1).flatten(1)
    else:
        # A copy of a view: unfold() goes through the images one by one
        padded = F.pad(images, (paddings[1], paddings[1], paddings[0], paddings[0])) if any(paddings) else images
        windows = padded.contiguous().unfold(2, kernel[0], strides[0]).unfold(3, kernel[1], strides[1])
        columns = windows.permute(1, 4, 5, 0, 2, 3).reshape(weight[0].numel(), -1)
    product = weight.flatten(1) @ columns
    if bias is not None:
        product = product + bias.unsqueeze(1)
    return product.view(len(weight), len(images), height, width).transpose(0, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
