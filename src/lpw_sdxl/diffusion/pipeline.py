"""The parts of an SDXL model, loaded from a model directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.diffusion.acceleration import NO_ACCELERATION, Acceleration, choose_acceleration
from lpw_sdxl.diffusion.float8 import count_quantised_bytes
from lpw_sdxl.diffusion.fused_vae import scale_down_stream
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.manifest import Manifest, read_manifest
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.network import load_network


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
        unet = _load(UNet2DConditionModel, model_directory, Component.UNET, dtype)
        vae = _load(AutoencoderKL, model_directory, Component.VAE, vae_dtype)
        if vae_dtype == torch.float16:
            scale_down_stream(vae)
        prompt_encoder = PromptEncoder.from_model_directory(
            model_directory, "cpu", dtype, cache_bytes=settings.conditioning_cache_bytes
        )
        config_file = model_directory / "scheduler" / "scheduler_config.json"
        return cls(
            unet=unet,
            vae=vae,
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


def _load(model_class: Any, directory: Path, component: Component, dtype: torch.dtype) -> Any:
    """Load one of Diffusers' networks."""
    config = model_class.load_config(directory / component.value, local_files_only=True)
    file = directory / component.weights_file
    return load_network(lambda: model_class.from_config(config), file, dtype)
