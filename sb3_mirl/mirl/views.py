"""
Views of the observation, x = g(s): what a prior ρ(·|x) sees.

A view is given as data (keys of a Dict, indices of a vector, ``"all"``) or as a function. It is discrete (x in 0, ...,
n_x - 1) or continuous (x a vector).
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs

ALL = "all"
#: Observations on which a function is tried
N_TRIED = 4
_FUNCTION = "a function of the observations"


def resolve_view(name: str, given: Any, space: spaces.Space) -> Any:
    """
    Check a view against the observation space.

    :param name: of the argument, for the error
    :param given: keys of a Dict space, a string or a list; for a Box with one axis or a MultiDiscrete a slice or a list of
        indices; ``"all"`` for a space that is no Dict; a function; None for a view that sees nothing
    :param space: the observation space
    :return: the view, with slices and arrays as lists of integers
    :raises ValueError: if the space has no such part
    """
    if given is None or callable(given):
        return given
    if isinstance(space, spaces.Dict):
        keys = [given] if isinstance(given, str) else given
        if not isinstance(keys, list) or not keys or any(not isinstance(k, str) or k not in space.spaces for k in keys):
            raise ValueError(f"{name} must be one or several of the keys {sorted(space.spaces)} or {_FUNCTION}, got {given!r}")
        return given
    if isinstance(given, str) and given == ALL:
        return given
    size = len(space.nvec) if isinstance(space, spaces.MultiDiscrete) else (space.shape or (0,))[0]
    if len(space.shape or ()) != 1 or not isinstance(space, (spaces.Box, spaces.MultiDiscrete)):
        raise ValueError(f"{name} must be {ALL!r} or {_FUNCTION} with observation_space={space}, got {given!r}")
    try:
        indices = np.arange(size)[given].tolist() if isinstance(given, slice) else np.asarray(given).tolist()
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} must be a slice of integers, got {given!r}") from error
    fits = isinstance(indices, list) and all(type(index) is int and 0 <= index < size for index in indices)
    if isinstance(given, str) or not fits or not indices:
        raise ValueError(
            f"{name} must be {ALL!r}, a slice or a list of indices from 0 to {size - 1}, or {_FUNCTION}, got {given!r}"
        )
    return indices


def describe_view(given: Any) -> Any:
    """
    A view as data: a function is described by its name.

    :param given: of :func:`resolve_view`, or a dict of such
    """
    if isinstance(given, dict):
        return {name: describe_view(view) for name, view in given.items()}
    if not callable(given):
        return given
    named = given if hasattr(given, "__qualname__") else type(given)
    return {"function": f"{named.__module__}.{named.__qualname__}"}


class View:
    """
    x = g(s). Attributes: ``n_values``, the number of values of a discrete x, else None; ``n_features``, the size of a
    continuous x, else None.

    Entries of a Discrete or MultiDiscrete space are discrete, and several of them are one x with the product of their sizes.
    Everything else is continuous, preprocessed as for SB3's networks (categories one-hot, images in [0, 1]).

    :param name: of the argument, for errors
    :param given: of :func:`resolve_view`. A function g takes observations as the network does, [batch, ...], or a dict of
        such. It returns a tensor on their device: floats [batch, ...], or integers [batch] from 0 to ``n_values`` - 1. A
        module is used as it is: it is not trained, and exports do not hold it
    :param space: of one observation
    :param n_values: of a function that returns integers
    :param device: on which the function is tried
    :raises ValueError: if the function fails, or returns another shape or dtype, for observations drawn from the space
    """

    def __init__(
        self, name: str, given: Any, space: spaces.Space, n_values: int | None = None, device: th.device | str = "cpu"
    ) -> None:
        self.name, self.space = name, space
        self.function: Callable[[Any], th.Tensor] | None = given if callable(given) else None
        self.n_values: int | None = n_values
        self.n_features: int | None = None
        #: Key, indices (None: all) and space of each part
        self.parts: list[tuple[str | None, list[int] | None, spaces.Space]] = []
        if self.function is not None:
            self._try_function(device)
            return
        if n_values is not None:
            raise ValueError(f"prior_kwargs: n_values must be None unless {name} is a function, got {n_values} with {given!r}")
        if isinstance(space, spaces.Dict):
            keys = [given] if isinstance(given, str) else given or []
            self.parts = [(key, None, space.spaces[key]) for key in keys]
        elif given is not None:
            self.parts = [(None, None if given == ALL else given, space)]
        if all(isinstance(part, (spaces.Discrete, spaces.MultiDiscrete)) for _, _, part in self.parts):
            self.n_values = math.prod(size for part in self.parts for size in _sizes(*part[1:]))
        else:
            self.n_features = sum(
                get_flattened_obs_dim(part) if indices is None else len(indices) for _, indices, part in self.parts
            )

    def __call__(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations as the network takes them
        :return: x: discrete, int64 [batch]; continuous, float32 [batch, n_features]
        """
        if self.function is not None:
            return self._of_function(obs)
        first = next(iter(obs.values())) if isinstance(obs, dict) else obs
        # shape[0] and not len(), which would make the size of the batch a constant of an export
        if self.n_values is None:
            return th.cat([_features(_part(obs, key), indices, space) for key, indices, space in self.parts], dim=1)
        x = th.zeros(first.shape[0], dtype=th.int64, device=first.device)
        for key, indices, space in self.parts:
            values = _part(obs, key).reshape(first.shape[0], -1).long()
            values = values if indices is None else values[:, indices]
            for column, size in enumerate(_sizes(indices, space)):
                x = x * size + values[:, column]
        return x

    def _of_function(self, obs: PyTorchObs) -> th.Tensor:
        assert self.function is not None
        # SB3's replay buffer has an axis of length 1 for Discrete spaces
        if isinstance(obs, dict):
            obs = {key: _shaped(value, self.space[key]) for key, value in obs.items()}  # type: ignore[index]
            batch = next(iter(obs.values())).shape[0]
        else:
            obs = _shaped(obs, self.space)
            batch = obs.shape[0]
        x = self.function(obs)
        if not isinstance(x, th.Tensor) or x.dim() == 0 or x.shape[0] != batch:
            got = f"shape {tuple(x.shape)}" if isinstance(x, th.Tensor) else repr(x)
            raise ValueError(f"{self.name} must return a tensor [batch, ...] with batch {batch}, the function returned {got}")
        if self.n_values is None:
            x = x.detach().float().reshape(batch, -1)
            # The values are unknown while an export is traced
            if not th.compiler.is_compiling() and not x.isfinite().all():
                wrong = x[~x.isfinite()][0].item()
                raise ValueError(f"{self.name} must return finite numbers, the function returned {wrong}")
            return x
        x = x.detach().long()
        # The values are unknown while an export is traced
        if not th.compiler.is_compiling() and (x.min() < 0 or x.max() >= self.n_values):
            raise ValueError(
                f"{self.name} must return integers from 0 to {self.n_values - 1}, by n_values of prior_kwargs; the function "
                f"returned {x[(x < 0) | (x >= self.n_values)][0].item()}"
            )
        return x

    def _try_function(self, device: th.device | str) -> None:
        # A copy, because samples are drawn with the generator of the space
        space = copy.deepcopy(self.space)
        space.seed(0)
        samples: list[Any] = [space.sample() for _ in range(N_TRIED)]
        obs: Any
        if isinstance(space, spaces.Dict):
            obs = {k: th.as_tensor(np.stack([sample[k] for sample in samples]), device=device) for k in space.spaces}
        else:
            obs = th.as_tensor(np.stack(samples), device=device)
        with th.no_grad(), th.device(device):
            try:
                x = self.function(obs)  # type: ignore[misc]
            except Exception as error:
                shapes = {k: tuple(v.shape) for k, v in obs.items()} if isinstance(obs, dict) else tuple(obs.shape)
                raise ValueError(
                    f"{self.name} must be a function of torch tensors; with observations of shape {shapes} it raised "
                    f"{type(error).__name__}: {error}"
                ) from error
            is_float = isinstance(x, th.Tensor) and x.is_floating_point()
            if isinstance(x, th.Tensor) and is_float != (self.n_values is None):
                raise ValueError(
                    f"{self.name} must return floats, or integers [batch] with prior_kwargs={{'n_values': how many}}; the "
                    f"function returned {x.dtype} with n_values={self.n_values}"
                )
            if isinstance(x, th.Tensor) and not is_float and x.dim() != 1:
                raise ValueError(f"{self.name} must return integers [batch], the function returned shape {tuple(x.shape)}")
            x = self._of_function(obs)
        if self.n_values is None:
            self.n_features = x.shape[1]


def _part(obs: PyTorchObs, key: str | None) -> th.Tensor:
    return obs if key is None else obs[key]  # type: ignore[return-value, index]


def _shaped(obs: th.Tensor, space: spaces.Space) -> th.Tensor:
    return obs.reshape(obs.shape[0], *(space.shape or ()))


def _sizes(indices: list[int] | None, space: spaces.Space) -> list[int]:
    """The numbers of values of the entries of a Discrete or MultiDiscrete space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    sizes = space.nvec.tolist()  # type: ignore[attr-defined]
    return sizes if indices is None else [sizes[index] for index in indices]


def _features(obs: th.Tensor, indices: list[int] | None, space: spaces.Space) -> th.Tensor:
    """A continuous part, float32 [batch, n]."""
    if indices is not None:
        return obs[:, indices].float()
    features = preprocess_obs(_shaped(obs, space), space)
    return features.reshape(obs.shape[0], -1)  # type: ignore[union-attr]
