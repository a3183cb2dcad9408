"""An upscaler that is ready to work: its network on a device, in a dtype that holds its numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lpw_sdxl.errors import GenerationError
from lpw_sdxl.upscaling.compact import CompactNetwork
from lpw_sdxl.upscaling.design import Family
from lpw_sdxl.upscaling.preflight import read_design
from lpw_sdxl.upscaling.rrdb import EsrganNetwork

WHITE = 255


class UpscalerNetwork:
    """A network on a device.

    Args:
        tensors: its weights, by the names that the store gives them; they are kept, not changed.
        name: of the upscaler, for the log and for an error.
        device: to work on.
        dtype: to work in, as far as it holds its numbers: float16 on a GPU (one level of 255 from
            float32, where bfloat16 is up to 7 away), float32 on a CPU.

    Raises:
        AddonError: they are the tensors of no network that is served.

    Attributes:
        design: its sizes.
        name: of the upscaler.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        self.design = read_design(shapes, name)
        self.name = name
        self._tensors = tensors
        self._module = self._build(device, dtype)
        self._exact_module = self._module if dtype == torch.float32 else None

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype that it works in, where that holds its numbers."""
        return next(self._module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Return where it is."""
        return next(self._module.parameters()).device

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of its weights on the device."""
        modules = {self._module, *filter(None, (self._exact_module,))}
        return sum(parameter.nbytes for module in modules for parameter in module.parameters())

    def enlarge(self, pixels: npt.NDArray[np.uint8]) -> Tensor | None:
        """Enlarge a picture in one call.

        Args:
            pixels: `[h, w, 3]`; both sides are multiples of `design.unshuffle`.

        Returns:
            `[3, scale * h, scale * w]`, float32 on the CPU, 0 to 1 but for overshoots; None where
            its dtype can't hold what it computes.

        Raises:
            GenerationError: it works in float32, and that can't either.
        """
        if self.dtype == torch.float32:
            return self.enlarge_exactly(pixels)
        return self._call(self._module, pixels)

    def enlarge_exactly(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Enlarge a picture in float32, with the numbers of the file; else as `enlarge`.

        Raises:
            GenerationError: what it computes is not finite.
        """
        if self._exact_module is None:
            self._exact_module = self._build(self.device, torch.float32)
        enlarged = self._call(self._exact_module, pixels)
        if enlarged is None:
            raise GenerationError(
                f"The upscaler {self.name} gave numbers that are not finite; another upscaler "
                "would be right."
            )
        return enlarged

    def _build(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        is_esrgan = self.design.family is Family.ESRGAN
        with torch.device("meta"):
            module = EsrganNetwork(self.design) if is_esrgan else CompactNetwork(self.design)
        copies = {key: tensor.to(device, dtype, copy=True) for key, tensor in self._tensors.items()}
        module.load_state_dict(copies, assign=True)
        return module.requires_grad_(requires_grad=False).eval()

    @staticmethod
    @torch.inference_mode()
    def _call(module: nn.Module, pixels: npt.NDArray[np.uint8]) -> Tensor | None:
        """Return the result, or None where it is not finite."""
        weights = next(module.parameters())
        picture = torch.from_numpy(np.ascontiguousarray(pixels)).to(weights.device)
        picture = picture.permute(2, 0, 1)[None].to(weights.dtype) / WHITE  # [1, 3, h, w]
        enlarged = module(picture)[0]
        if not bool(torch.isfinite(enlarged).all()):
            return None
        return enlarged.to("cpu", torch.float32)
