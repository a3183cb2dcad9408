"""Stability's names for tensors that other tools have saved under other names; pure, no torch.

Tables of beginnings, each with the tool or the cause. A name that no row knows stays as it is and
is judged by `plan.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from lpw_sdxl.checkpoint.keys import network_of, sources_of
from lpw_sdxl.checkpoint.kinds import (
    FIRST_ENCODER,
    SECOND_ENCODER,
    SECOND_ENCODER_TRANSFORMERS,
    UNET,
    VAE,
)
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo

_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Wrappers that PyTorch puts around a whole model: Lightning, DataParallel, torch.compile.
        (r"^(?:state_dict\.|module\.)+", ""),
        (r"_orig_mod\.", ""),
        # A model saved with its wrapper's name in front of Stability's own names.
        (
            r"^model\.(?=(?:model\.diffusion_model|first_stage_model|conditioner|denoiser|model_ema)\."
            r"|edm_vpred\.|(?:v_pred|ztsnr|edm_mean|edm_std)$)",
            "",
        ),
        # A UNet without its wrapper's name.
        (r"^diffusion_model\.", UNET),
        # ComfyUI's and Forge's inner names, as Forge wrote them in 2024 (its pull request 2636).
        (r"^text_encoders\.clip_l\.", "conditioner.embedders.0."),
        (r"^text_encoders\.clip_g\.transformer\.", SECOND_ENCODER_TRANSFORMERS),
        (r"^text_encoders\.clip_g\.", SECOND_ENCODER),
        (r"^vae\.", VAE),
        # Transformers' CLIP since 5.6 has no `text_model` of its own, so its tensors lose it.
        (
            r"^conditioner\.embedders\.0\.transformer\."
            r"(?=embeddings\.|encoder\.|final_layer_norm\.)",
            FIRST_ENCODER,
        ),
        # The second encoder, or a part of it, in Transformers' layout behind OpenCLIP's name.
        (
            r"^conditioner\.embedders\.1\.model\.(?:transformer\.)?"
            r"(?=text_model\.|text_projection\.weight$)",
            SECOND_ENCODER_TRANSFORMERS,
        ),
        # The VAE's attention as Diffusers names it in a file that has Stability's names otherwise.
        (r"(\.mid\.attn_1)\.to_([qkv])\.", r"\1.\2."),
        (r"(\.mid\.attn_1)\.to_out\.0\.", r"\1.proj_out."),
        # Diffusers of early 2023 named the attention of its VAE so.
        (r"(\.mid_block\.attentions\.0)\.query\.", r"\1.to_q."),
        (r"(\.mid_block\.attentions\.0)\.key\.", r"\1.to_k."),
        (r"(\.mid_block\.attentions\.0)\.value\.", r"\1.to_v."),
        (r"(\.mid_block\.attentions\.0)\.proj_attn\.", r"\1.to_out.0."),
    )
)


def standardise(header: CheckpointHeader) -> CheckpointHeader:
    """Return the header with Stability's names where they are recognised.

    Raises:
        CheckpointError: two tensors would have the same name.
    """
    header = _renamed(header, _standard_name)
    if any(name.startswith(f"{VAE}decoder.mid_block.") for name in header.tensors):
        header = _renamed(header, _from_diffusers_vae)
    return header


def standardise_vae(header: CheckpointHeader) -> CheckpointHeader:
    """Return the header of a VAE alone with Stability's names, whichever layout it has.

    Raises:
        CheckpointError: two tensors would have the same name.
    """
    return standardise(
        _renamed(header, lambda name: name if name.startswith(VAE) else f"{VAE}{name}")
    )


def _standard_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _from_diffusers_vae(name: str) -> str:
    if not name.startswith(VAE):
        return name
    return sources_of(Component.VAE, name.removeprefix(VAE))[0].key


def _renamed(header: CheckpointHeader, rename: Callable[[str], str]) -> CheckpointHeader:
    tensors: dict[str, TensorInfo] = {}
    standards = {name: rename(name) for name in header.tensors}
    uses = Counter(standards.values())
    for name, info in header.tensors.items():
        standard = standards[name]
        if uses[standard] > 1 and network_of(standard) is None:
            standard = name  # no part of SDXL: which of them is meant doesn't matter
        if standard in tensors:
            raise CheckpointError(
                f"{header.name} holds {tensors[standard].name} and {info.name}, which are the "
                "same tensor under two names; one of them is needed."
            )
        tensors[standard] = info
    return replace(header, tensors=MappingProxyType(tensors))
