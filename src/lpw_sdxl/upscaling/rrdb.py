"""ESRGAN's network: residual-in-residual dense blocks, then doublings.

From Wang et al., arXiv 1809.00219, section 3.1 and figures 3 and 4 (no batch normalisation, a
residual scaling of 0.2), and Wang et al., arXiv 2107.10833, section 3.4 (unshuffled pixels).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpw_sdxl.upscaling.design import (
    COLOURS,
    DENSE_BLOCKS,
    DENSE_CONVOLUTIONS,
    KERNEL,
    Design,
)

RESIDUAL_SCALE = 0.2
NEGATIVE_SLOPE = 0.2


class EsrganNetwork(nn.Module):
    """The network; its parameters have the names of `Design.shapes`.

    Args:
        design: its sizes.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        width = design.channels
        self._unshuffle = design.unshuffle
        self._doublings = design.doublings
        self.conv_first = _convolution(COLOURS * design.unshuffle**2, width)
        self.body = nn.Sequential(*(_Block(width, design.growth) for _ in range(design.blocks)))
        self.conv_body = _convolution(width, width)
        for number in range(1, design.doublings + 1):
            self.add_module(f"conv_up{number}", _convolution(width, width))
        self.conv_hr = _convolution(width, width)
        self.conv_last = _convolution(width, COLOURS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Enlarge pictures.

        Args:
            pixels: `[b, 3, h, w]`, 0 to 1; both sides are multiples of `unshuffle`.

        Returns:
            `[b, 3, scale * h, scale * w]`, about 0 to 1.
        """
        if self._unshuffle > 1:
            pixels = F.pixel_unshuffle(pixels, self._unshuffle)
        features = self.conv_first(pixels)  # [b, width, h, w]
        features = features + self.conv_body(self.body(features))
        for number in range(1, self._doublings + 1):
            convolution = self.get_submodule(f"conv_up{number}")
            features = _activate(convolution(_double(features)))
        features = _activate(self.conv_hr(features))
        return self.conv_last(features)


class _Block(nn.Module):
    """Dense blocks one after another, whose result is added to what came in."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, DENSE_BLOCKS + 1):
            self.add_module(f"rdb{number}", _DenseBlock(width, growth))

    def forward(self, features: Tensor) -> Tensor:
        changed = features
        for block in self.children():
            changed = block(changed)
        return torch.add(features, changed, alpha=RESIDUAL_SCALE)


class _DenseBlock(nn.Module):
    """Convolutions of which each is given what came in and what all before it made."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, DENSE_CONVOLUTIONS + 1):
            outputs = width if number == DENSE_CONVOLUTIONS else growth
            convolution = _convolution(width + (number - 1) * growth, outputs)
            self.add_module(f"conv{number}", convolution)

    def forward(self, features: Tensor) -> Tensor:
        *convolutions, last = self.children()
        dense = features
        for convolution in convolutions:
            dense = torch.cat((dense, _activate(convolution(dense))), dim=1)
        return torch.add(features, last(dense), alpha=RESIDUAL_SCALE)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2)


def _activate(features: Tensor) -> Tensor:
    return F.leaky_relu_(features, NEGATIVE_SLOPE)


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
