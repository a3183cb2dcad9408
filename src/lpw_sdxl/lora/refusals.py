"""Recognition of files that are no LoRA for SDXL, for a refusal that names what they are.

The tables map a pattern to the name of what it recognises. A pattern is searched in all tensor
names at once, one a line, because that is fast; the first row that matches names the file. Names
and shapes decide; the metadata counts only if they can't. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.errors import UnsupportedCheckpointError
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import UNSERVED_FORMS, Factor
from lpw_sdxl.lora.left_out import harmless_reason, is_foreign
from lpw_sdxl.lora.metadata import architecture
from lpw_sdxl.lora.names import split_name
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader

_NEEDED = "a LoRA for SDXL is needed"
_SERVED = "LoRA, LoCon, DoRA, LoHa, LoKr and full differences can be imported"

_TRANSFORMER = "a LoRA for Flux, Stable Diffusion 3 or another transformer"
_OTHER_NETWORKS = {
    r"^lllite_": "a ControlNet-LLLite",
    r"^lora_controlnet|^control_model\.": "a ControlNet's LoRA",
    r"\bcontrolnet_cond_embedding\b|\binput_hint_block\b": "a ControlNet's LoRA",
    r"^(ip_adapter|image_proj)\.|^\d+\.(processor\.)?to_\w+_lora\.": "an IP-Adapter's LoRA",
    r"\bmotion_modules[._]|_motion_modules_": "an AnimateDiff motion LoRA",
    r"^(lora_|lycoris_)?vae[._]|^first_stage_model\.": "a LoRA for a VAE",
    r"^lora_prior_": "a LoRA for Stable Cascade",
    r"distilled_guidance_layer": "a LoRA for Chroma",
    r"joint_blocks[._]|^lora_te3_": "a LoRA for Stable Diffusion 3",
    r"blocks[._]\d+[._]img_(mlp|mod)[._]": "a LoRA for Flux, Qwen-Image or HunyuanVideo",
    r"(double_blocks|single_blocks|single_transformer_blocks)[._]": "a LoRA for Flux",
    r"(noise_refiner|context_refiner)[._]": "a LoRA for Lumina or Z-Image",
    r"(adaln_single|caption_projection)[._]": "a LoRA for PixArt",
    r"blocks[._]\d+[._](self_attn|cross_attn)[._]": "a LoRA for Wan or another video model",
    r"^(lora_|lycoris_)?transformer[._]": _TRANSFORMER,
    r"^diffusion_model\.(transformer_)?(blocks|layers)\.": _TRANSFORMER,
}
"""By tensor names: LoRAs for other networks."""

_SD_1_OR_2 = "a LoRA for Stable Diffusion 1.x or 2.x"
_SD_1_OR_2_MODULES = {
    # Four levels, the finest of which has attention; SDXL has three, and none in the finest.
    r"down_blocks[._](0[._]attentions|3)[._]|up_blocks[._]3[._]": _SD_1_OR_2,
    r"input_blocks[._]([12][._]1|9|1[01])[._]|output_blocks[._](9|1[01])[._]": _SD_1_OR_2,
    # The only text encoder of 1.x and 2.x; SDXL's are te1 and te2.
    r"^(lora|lycoris)_te[._]": _SD_1_OR_2,
}
"""By module names, if no shape has identified the model."""

_TEXT_WIDTHS = {
    768: "a LoRA for Stable Diffusion 1.x",
    1024: "a LoRA for Stable Diffusion 2.x",
    1280: "a LoRA for the SDXL refiner",
}
"""By the width of the text embeddings that the UNet attends to."""

_OTHER_MODELS = {
    r"stable-diffusion-v1|sd_v1|sd_?1\.?[45]": "a LoRA for Stable Diffusion 1.x",
    r"stable-diffusion-v2|sd_v2|sd_?2\.?[01]": "a LoRA for Stable Diffusion 2.x",
    r"stable-diffusion-3|sd3": "a LoRA for Stable Diffusion 3",
    r"flux": "a LoRA for Flux",
    r"pixart|auraflow|hunyuan|lumina|qwen|wan2|cascade|chroma|anima\b": "a LoRA for another model",
}
"""By the metadata, which is copied from file to file: it counts only for a file without UNet."""

_SDXL_LOOKALIKES = {
    r"kolors": "a LoRA for Kolors",
    r"playground": "a LoRA for Playground",
    r"ssd-?1b|segmind|vega\b": "a LoRA for a pruned SDXL (SSD-1B or Segmind Vega)",
    r"refiner": "a LoRA for the SDXL refiner",
}
"""By the metadata: models whose UNets have SDXL's names and shapes, or some of them."""

_HYPERNETWORK = r"^(320|640|768|1024|1280)\.[01]?\.?linear"


def refuse_by_tensors(header: CheckpointHeader, targets: TargetModules) -> None:
    """Refuse a file whose tensors show that it is something else than a LoRA for these modules.

    Raises:
        UnsupportedCheckpointError: it is something else; the message names it.
    """
    if not any(map(split_name, header.tensors)):
        _refuse_other_file(header, "\n".join(header.tensors))
    judged = [name for name in header.tensors if harmless_reason(name) is None]
    names = "\n".join(judged)
    _refuse_by(_OTHER_NETWORKS, header, names)
    _refuse_kind(header, "\n".join(name for name in judged if not is_foreign(name)))
    _refuse_text_width(header, targets)
    _refuse_by(_SD_1_OR_2_MODULES, header, names)


def refuse_by_metadata(header: CheckpointHeader, *, has_unet: bool) -> None:
    """Refuse a file that fits, but whose metadata names another base model.

    Args:
        header: of the file.
        has_unet: some of its modules are the UNet's. SD 1.x's text encoder is SDXL's first one, so
            only the metadata can distinguish files without UNet modules.

    Raises:
        UnsupportedCheckpointError: it was trained on another model.
    """
    rows = _SDXL_LOOKALIKES if has_unet else _SDXL_LOOKALIKES | _OTHER_MODELS
    _refuse_by(rows, header, architecture(header).lower())


def _refuse_by(rows: Mapping[str, str], header: CheckpointHeader, text: str) -> None:
    for pattern, title in rows.items():
        if re.search(pattern, text, re.MULTILINE):
            raise _wrong_model(header, title)


def _refuse_kind(header: CheckpointHeader, names: str) -> None:
    for pattern, title in UNSERVED_FORMS.items():
        match = re.search(pattern, names, re.MULTILINE)
        if match:
            name = names[names.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            raise UnsupportedCheckpointError(
                f"{header.name}: tensor {shorten(name)} belongs to {title}; {_SERVED}."
            )


def _refuse_other_file(header: CheckpointHeader, names: str) -> NoReturn:
    """Refuse a file without any known factor."""
    kind = kind_of(header.tensors, header.metadata)
    title, advice = kind.title, _OTHER_COMMANDS.get(kind, _NEEDED)
    if kind in (CheckpointKind.LORA, CheckpointKind.UNKNOWN):
        _refuse_kind(header, names)
        is_hypernetwork = re.search(_HYPERNETWORK, names, re.MULTILINE)
        title = "a hypernetwork" if is_hypernetwork else "no LoRA that we know"
    raise UnsupportedCheckpointError(f"{header.name} is {title}; {advice}.")


_OTHER_COMMANDS = {
    CheckpointKind.SDXL: "import it with `checkpoint`",
    CheckpointKind.SDXL_INPAINTING: "import it with `checkpoint`",
    CheckpointKind.EMBEDDING: "import it with `embedding`",
}


def _refuse_text_width(header: CheckpointHeader, targets: TargetModules) -> None:
    """Refuse another base model by its text width, the input size of attn2's keys and values."""
    right = {
        target.weight[1]
        for path, target in targets[Component.UNET].items()
        if path.endswith("attn2.to_k")
    }
    for name, tensor in header.tensors.items():
        found = split_name(name)
        if found is None or len(tensor.shape) < 2:
            continue
        takes_text = found.module.endswith(("attn2_to_k", "attn2.to_k", "attn2_to_v", "attn2.to_v"))
        is_input = found.factor in (Factor.DOWN, Factor.HADA_W1_B, Factor.DIFF)
        if takes_text and is_input and tensor.shape[1] not in right:
            if tensor.shape[1] in _TEXT_WIDTHS:
                raise _wrong_model(header, _TEXT_WIDTHS[tensor.shape[1]])
            return


def _wrong_model(header: CheckpointHeader, title: str) -> UnsupportedCheckpointError:
    stated = architecture(header)
    note = f" (its metadata says {stated})" if stated else ""
    return UnsupportedCheckpointError(f"{header.name} is {title}{note}; {_NEEDED}.")
