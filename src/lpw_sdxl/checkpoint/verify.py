"""The written model directory, read again: what Diffusers loads from it is what the source holds.

Three looks, each at what lies on the disk and not at what the conversion believed it wrote: the
files' headers against the modules' own parameters; every loaded tensor against the source, bit for
bit; one denoising step and one decoding, which must give finite numbers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from lpw_sdxl.checkpoint.architecture import INPAINTING_CHANNELS
from lpw_sdxl.checkpoint.convert import Conversion, read_planned
from lpw_sdxl.checkpoint.plan import TensorPlan
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TORCH_DTYPES, TensorReader, tensor_bytes

Pipeline = Any
"""Diffusers' StableDiffusionXLPipeline."""

SMOKE_PIXELS = 64
"""8 x 8 latents."""


def verify_directory(directory: Path, conversion: Conversion, progress: Progress) -> None:
    """Check a model directory that was just written.

    Raises:
        CheckpointError: a parameter is missing, left over, of another shape, dtype or value than
            the source gives, or the model's first step is not finite.
    """
    _verify_configs(directory, conversion)
    verify_headers(directory, conversion.dtype)
    with _quiet(diffusers_logging), _quiet(transformers_logging):
        pipeline = _load(directory, conversion.dtype)
        _verify_values(pipeline, conversion, progress)
        progress("generate", 0, 1)
        _verify_generation(pipeline, conversion.dtype)
        progress("generate", 1, 1)


def verify_headers(directory: Path, dtype: CheckpointDtype) -> None:
    """Check the weights' names, shapes and dtypes against the modules that will load them.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape or dtype.
    """
    configs = {
        component: json.loads((directory / component.config_file).read_bytes())
        for component in Component
    }
    for component, parameters in parameter_shapes(configs).items():
        file_name = component.weights_file
        tensors = read_header(directory / file_name).tensors
        for key in sorted(parameters.keys() ^ tensors.keys()):
            state = "is missing from" if key in parameters else "is left over in"
            raise CheckpointError(f"The conversion failed: {key} {state} {file_name}.")
        for key, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (parameters[key], dtype.code):
                raise CheckpointError(
                    f"The conversion failed: {key} in {file_name} is {tensor.dtype} "
                    f"{list(tensor.shape)}; {dtype.code} {list(parameters[key])} would be right."
                )


def _verify_configs(directory: Path, conversion: Conversion) -> None:
    for name, config in conversion.configs.items():
        try:
            found = json.loads((directory / name).read_bytes())
        except (OSError, ValueError):
            found = None
        if found != config:
            raise CheckpointError(f"The conversion failed: {name} is not as it was written.")


def _load(directory: Path, dtype: CheckpointDtype) -> Pipeline:
    """Load the directory as any user of Diffusers would."""
    # Not at the top: this import alone prints advice, which the caller has silenced.
    from diffusers import StableDiffusionXLPipeline  # noqa: PLC0415

    try:
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            directory, dtype=TORCH_DTYPES[dtype.code], local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # Diffusers, Transformers and their parsers raise anything
        raise CheckpointError(
            f"The conversion failed: Diffusers can't load what was written ({error})."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _verify_values(pipeline: Pipeline, conversion: Conversion, progress: Progress) -> None:
    """Compare every loaded tensor with what the source gives."""
    total, done = conversion.weight_bytes, 0
    with TensorReader() as reader:
        for component in Component:
            loaded = dict(getattr(pipeline, component.value).state_dict())
            plans = [plan for plan in conversion.plan.tensors if plan.component is component]
            _verify_names(component, loaded, plans)
            for plan in plans:
                expected = read_planned(reader, plan, conversion.dtype)
                if not _same_bits(loaded[plan.target_key], expected):
                    raise CheckpointError(
                        f"The conversion failed: Diffusers loads other values for "
                        f"{plan.target_key} of {component.value} than {plan.source.path.name} "
                        f"holds in {plan.source.name}."
                    )
                done += tensor_bytes(expected).nbytes
                progress("verify", done, total)


def _verify_names(
    component: Component, loaded: Mapping[str, torch.Tensor], plans: Sequence[TensorPlan]
) -> None:
    for key in sorted(loaded.keys() ^ {plan.target_key for plan in plans}):
        raise CheckpointError(
            f"The conversion failed: {component.value} has a parameter {key} as Diffusers loads "
            "it, or as the checkpoint gives it, and not in both."
        )
    for key, tensor in loaded.items():
        if tensor.is_meta:
            raise CheckpointError(f"The conversion failed: {component.value} lacks {key}.")


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors agree to the last bit; NaN and the two zeros have theirs."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    whole_numbers = {2: torch.int16, 4: torch.int32}[one.element_size()]
    return torch.equal(one.view(whole_numbers), other.view(whole_numbers))


def _verify_generation(pipeline: Pipeline, dtype: CheckpointDtype) -> None:
    """Take one step of one row of 8 x 8 latents, and decode it as the service does.

    The VAE decodes in float32, because SDXL's overflows in float16.
    """
    is_inpainting = pipeline.unet.config.in_channels == INPAINTING_CHANNELS
    draw, picture = _inpainting(pipeline) if is_inpainting else (pipeline, {})
    with torch.inference_mode():
        latents = draw(
            prompt="a",
            num_inference_steps=1,
            guidance_scale=1.0,
            width=SMOKE_PIXELS,
            height=SMOKE_PIXELS,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **picture,
        ).images
        if not torch.isfinite(latents).all():
            raise CheckpointError(
                f"The model's first step gave NaN or infinity in {dtype.flag}; import it with "
                "--dtype bf16 or --dtype fp32, or get another copy."
            )
        vae = pipeline.vae.to(torch.float32)
        pixels = vae.decode(latents.float() / vae.config.scaling_factor).sample
        if not torch.isfinite(pixels).all():
            raise CheckpointError(
                "The model's VAE decoded its first step to NaN or infinity; --vae FILE replaces it."
            )


def _inpainting(pipeline: Pipeline) -> tuple[Any, dict[str, Any]]:
    """Return the same parts as Diffusers' pipeline for masks, and a grey picture to repaint all."""
    from diffusers import StableDiffusionXLInpaintPipeline  # noqa: PLC0415 - as above

    draw = StableDiffusionXLInpaintPipeline(**pipeline.components)
    draw.set_progress_bar_config(disable=True)
    size = (SMOKE_PIXELS, SMOKE_PIXELS)
    picture = {"image": torch.zeros(1, 3, *size), "mask_image": torch.ones(1, 1, *size)}
    return draw, picture | {"strength": 1.0}


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Keep Diffusers' or Transformers' progress bars and advice out of the import's output."""
    level, had_bar = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if had_bar:
            library.enable_progress_bar()
