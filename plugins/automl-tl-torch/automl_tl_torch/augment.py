"""Applying the core's augmentation parameters to a batch, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from automl_tl.augment import ViewParameters

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


def apply(pixels: Tensor, parameters: ViewParameters) -> Tensor:
    """Augment a batch as ``automl_tl.augment.ViewParameters`` says; see ``transform``."""
    affine = torch.from_numpy(parameters.affine).to(pixels.device)
    return transform(pixels, affine, torch.from_numpy(parameters.colour).to(pixels.device))


def transform(pixels: Tensor, affine: Tensor, colour: Tensor) -> Tensor:
    """Augment a batch by parameters that are on its device, without waiting for it.

    The affine map first, sampled bilinearly and reflected at the border, then brightness, contrast
    around the mean luma and saturation, then one clip.

    Args:
        pixels: uint8 or float ``(n, height, width, 3)`` in ``[0, 255]``.
        affine: ``ViewParameters.affine``, one row an image.
        colour: ``ViewParameters.colour``, one row an image.

    Returns:
        float32 ``(n, height, width, 3)`` in ``[0, 255]``, on the pixels' device.
    """
    images = pixels.permute(0, 3, 1, 2).to(torch.float32)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    brightness, contrast, saturation = colour[:, :, None, None, None].unbind(1)
    images = images * brightness
    mean = _luma(images).mean(dim=(2, 3), keepdim=True)
    images = (images - mean) * contrast + mean
    luma = _luma(images)
    images = ((images - luma) * saturation + luma).clamp_(0, 255)
    return images.permute(0, 2, 3, 1).contiguous()


def _luma(images: Tensor) -> Tensor:
    # Weights in a tensor would have to be copied to the device, which waits for it.
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return red * _RED + green * _GREEN + blue * _BLUE
