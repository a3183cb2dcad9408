"""LoRAs on the first convolution of an inpainting model, which takes more than latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora.conftest import CPU, CanonicalFile
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import Network
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.lora.targets import signature
from lpw_sdxl.weights.component import Component
from tests.forge.checkpoint import SyntheticSize
from tests.forge.inpainting import widen_unet

from .making import header_of, targets

INPAINTING = SyntheticSize.TINY_INPAINTING
FIRST = "lora_unet_input_blocks_0_0"
LORA = {
    f"{FIRST}.lora_down.weight": (4, 4, 3, 3),
    f"{FIRST}.lora_up.weight": (32, 4, 1, 1),
}


def test_what_fits_a_model_fits_its_inpainting_model() -> None:
    assert signature(targets(INPAINTING)) == signature(targets(SyntheticSize.TINY))
    plans = [examine(header_of(LORA), targets(size)) for size in (SyntheticSize.TINY, INPAINTING)]
    assert plans[0].factors == plans[1].factors
    assert plans[0].factors


def test_a_lora_of_all_inputs_is_refused() -> None:
    wide = LORA | {f"{FIRST}.lora_down.weight": (4, 9, 3, 3)}
    with pytest.raises(AddonError, match="would fit"):
        examine(header_of(wide), targets(INPAINTING))


@pytest.mark.parametrize("form", ["LoRA", "full difference"])
def test_it_changes_the_inputs_of_the_latents_alone(
    pipeline: Pipeline, tmp_path: Path, form: str
) -> None:
    wide = widen_unet(pipeline.unet)
    path = tmp_path / "a.safetensors"
    drawn = torch.Generator().manual_seed(0)
    down, up = (torch.randn(shape, generator=drawn) for shape in LORA.values())
    change = (up.flatten(1) @ down.flatten(1)).view(32, 4, 3, 3)
    factors = {"lora_down": down, "lora_up": up, "alpha": torch.tensor(4.0)}
    if form == "full difference":
        factors = {"diff": change, "diff_b": torch.ones(32)}
    save_file({f"unet/conv_in/{name}": one for name, one in factors.items()}, path)
    library = LoraLibrary({"a": CanonicalFile("a", path)}, max_bytes=2**30)
    merged = Network(Component.UNET, wide).merge((("a", 0.5),), library, CPU)
    before = wide.conv_in.weight
    assert merged["conv_in"].weight.shape == before.shape
    assert torch.equal(merged["conv_in"].weight[:, 4:], before[:, 4:])
    torch.testing.assert_close(merged["conv_in"].weight[:, :4], before[:, :4] + 0.5 * change)
    adapters = Adapters({Component.UNET: wide}, library, CPU, 2**30)
    latents = torch.randn(1, 9, 8, 8, generator=drawn)
    plain = wide.conv_in(latents)
    adapters.use(Component.UNET, (("a", 0.5),))
    assert not torch.allclose(wide.conv_in(latents), plain)
    adapters.reset()
    assert torch.equal(wide.conv_in(latents), plain)
