"""The parts of an SDXL model, loaded from a model directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers.utils import logging as transformers_logging

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.diffusion.acceleration import NO_ACCELERATION, Acceleration, choose_acceleration
from lpw_sdxl.diffusion.float8 import count_quantised_bytes
from lpw_sdxl.diffusion.fused_vae import scale_down_stream
from lpw_sdxl.errors import ModelError
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Pipeline:
    """UNet, VAE and prompt encoder of one model.

    Attributes:
        unet, vae: Diffusers' modules.
        scheduler_config: the model's own; every job's scheduler is built from it.
        manifest: what the model is and where it came from.
        device: where everything runs; an Offloader moves the parts there.
        dtype: of UNet and text encoders.
        acceleration: what replaces torch's own functions in UNet and VAE once they are used.
    """

    unet: Any
    vae: Any
    prompt_encoder: PromptEncoder
    scheduler_config: Mapping[str, Any]
    manifest: Manifest
    device: torch.device
    dtype: torch.dtype
    acceleration: Acceleration = NO_ACCELERATION

    @classmethod
    def load(
        cls,
        model_directory: Path,
        device: torch.device,
        settings: Settings,
    ) -> Pipeline:
        """Load every part in the dtype it is saved in (a cast while loading costs 20 times that).

        Args:
            model_directory: made by the import.
            device: where everything will run; all is loaded into the CPU's memory.
            settings: the bound on cached prompts, and whether a half-precision model's VAE runs in
                that precision first, in float16 with its features scaled down; else it runs in
                float32, because SDXL's own overflows in float16.

        Raises:
            ModelError: if the directory has no readable manifest, or a network lacks a tensor.
        """
        manifest = read_manifest(model_directory)
        dtype = getattr(torch, manifest.dtype)
        vae_dtype = dtype if settings.half_decode else torch.float32
        unet = _load(UNet2DConditionModel, model_directory / "unet", dtype)
        vae = _load(AutoencoderKL, model_directory / "vae", vae_dtype)
        if vae_dtype == torch.float16:
            scale_down_stream(vae)
        with _no_progress_bars():
            prompt_encoder = PromptEncoder.from_model_directory(
                model_directory,
                "cpu",
                dtype,
                cache_bytes=settings.conditioning_cache_bytes,
            )
        config_file = model_directory / "scheduler" / "scheduler_config.json"
        return cls(
            unet=unet.eval().requires_grad_(False),
            vae=vae.eval().requires_grad_(False),
            prompt_encoder=prompt_encoder,
            scheduler_config=json.loads(config_file.read_text(encoding="utf-8")),
            manifest=manifest,
            device=device,
            dtype=dtype,
        )

    def accelerated(self, settings: Settings) -> Pipeline:
        """Return the same parts with what the settings want in the place of torch's own functions.

        Raises:
            SettingsError: fp8 is wanted, and the device does not have it.
        """
        chosen = choose_acceleration(self.unet, self.vae, self.device, settings)
        return replace(self, acceleration=chosen)

    @property
    def quantised_bytes(self) -> int:
        """Count the bytes of the UNet's weights in fp8, which are kept beside its own."""
        return count_quantised_bytes(self.unet) if self.acceleration.quantises else 0

    @property
    def weight_bytes(self) -> int:
        """Count the bytes of all weights."""
        parameters = [*self.unet.parameters(), *self.vae.parameters()]
        own = sum(one.nbytes for one in parameters) + self.prompt_encoder.weight_bytes
        return own + self.quantised_bytes


def _load(model_class: Any, directory: Path, dtype: torch.dtype) -> Any:
    """Load one network; refuse missing tensors, which Diffusers fills with random numbers."""
    model, loaded = model_class.from_pretrained(
        directory,
        torch_dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{directory.name}/ of the model directory lacks tensors ({len(missing)}, such as"
            f" {missing[0]}); import the checkpoint again"
        )
    return model


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep Transformers' progress bars out of the log while weights load."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
