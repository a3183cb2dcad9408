"""The compact network of Real-ESRGAN: convolutions at the picture's own size, and no more.

Its last convolution gives the pixels of the result as channels, which are added to the picture
enlarged without interpolation.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lpw_sdxl.upscaling.design import COLOURS, KERNEL, Design


class CompactNetwork(nn.Module):
    """The network; its parameters have the names of `Design.shapes`.

    Args:
        design: its sizes.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self._scale = design.scale
        layers: list[nn.Module] = []
        inputs = COLOURS
        for _ in range(design.blocks + 1):
            layers.append(nn.Conv2d(inputs, design.channels, KERNEL, padding=KERNEL // 2))
            layers.append(nn.PReLU(design.channels))
            inputs = design.channels
        outputs = COLOURS * design.scale**2
        layers.append(nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2))
        self.body = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Enlarge pictures.

        Args:
            pixels: `[b, 3, h, w]`, 0 to 1.

        Returns:
            `[b, 3, scale * h, scale * w]`, about 0 to 1.
        """
        details = F.pixel_shuffle(self.body(pixels), self._scale)
        details += F.interpolate(pixels, scale_factor=float(self._scale), mode="nearest")
        return details
