"""Refuse models and images that do not belong together, before a layer fails on them."""

from typing import Any

import torch
from torch import Tensor, nn

from igq.errors import InvalidArgumentError, UnsupportedModelError


def check_images(model: nn.Module, images: Tensor) -> None:
    """Refuse images that the model cannot take, and a model that is not in their type.

    Raises:
        InvalidArgumentError: the images are no batch of finite floats, or of other channels or
            another size than a timm model takes.
        UnsupportedModelError: parameters are on several devices, or not in the images' type.

    >>> check_images(nn.Linear(1, 1), torch.zeros(3, 8, 8, dtype=torch.uint8))
    Traceback (most recent call last):
    igq.errors.InvalidArgumentError: `images` must be floats, but are uint8; give images / 255, \
normalised as in the model's training.
    """
    if not isinstance(images, Tensor):
        raise InvalidArgumentError(
            f"`images` must be a tensor, but got {type(images).__name__}; give torch.as_tensor."
        )
    if not images.is_floating_point():
        raise InvalidArgumentError(
            f"`images` must be floats, but are {_name(images.dtype)}; give images / 255, "
            "normalised as in the model's training."
        )
    if images.ndim != 4:
        raise InvalidArgumentError(
            "`images` must have four axes (images, channels, height, width), but have shape "
            f"{list(images.shape)}."
        )
    if not images.isfinite().all():
        raise InvalidArgumentError("`images` must be finite, but hold NaN or infinity.")
    _check_shape(model, images)
    check_parameters(model, images)


def _check_shape(model: nn.Module, images: Tensor) -> None:
    """Compare channels and size with those that a timm model tells of."""
    embedding: Any = getattr(model, "patch_embed", None)
    channels = getattr(getattr(embedding, "proj", None), "in_channels", None)
    if channels is not None and images.shape[1] != channels:
        raise InvalidArgumentError(
            f"`images` must have the {channels} channels that the model takes, but have shape "
            f"{list(images.shape)}."
        )
    size = getattr(embedding, "img_size", None)
    strict = getattr(embedding, "strict_img_size", False)
    if strict and size is not None and tuple(images.shape[2:]) != tuple(size):
        raise InvalidArgumentError(
            f"`images` must have the model's size, {size[0]} x {size[1]}, but have shape "
            f"{list(images.shape)}."
        )


def check_parameters(model: nn.Module, images: Tensor) -> None:
    """Refuse a model whose parameters are on several devices, or not in the type of the images.

    Raises:
        UnsupportedModelError: the message names the parameter.

    >>> check_parameters(nn.Linear(1, 1).half(), torch.ones(1, 1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.UnsupportedModelError: the model must be in float32 as the images are, but weight...
    """
    check_devices(model)
    name, first = next(model.named_parameters(), ("", images))
    if first.dtype != images.dtype:
        wanted, found = _name(images.dtype), _name(first.dtype)
        raise UnsupportedModelError(
            f"the model must be in {wanted} as the images are, but {name} is in {found}; give "
            f"model.to(images.dtype)."
        )


def check_devices(model: nn.Module) -> None:
    """Refuse a model whose parameters are on several devices.

    Raises:
        UnsupportedModelError: the message names two parameters.
    """
    named = list(model.named_parameters())
    for name, parameter in named:
        if parameter.device != named[0][1].device:
            raise UnsupportedModelError(
                f"the model must be on one device, but {named[0][0]} is on "
                f"{named[0][1].device} and {name} on {parameter.device}; give "
                f"model.to({str(named[0][1].device)!r})."
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
