"""The tensors of a LoRA file that are left out, and which of them may be; pure, no torch.

A tensor that no module takes is one of three: harmless, because it is known to change nothing in
SDXL; foreign, because its name is none of SDXL's networks' and no LoRA's; or lost, because its name
is one of theirs and yet no module has it. A lost one would be missing from the picture.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.names import has_network_name, split_name

NO_SCALE = "alphas of modules whose formula has no scale"
LONE_ALPHAS = "alphas of modules that have no factors"
OTHER_FOREIGN = "others of none of SDXL's networks"
BY_IGNORE_UNKNOWN = "by --ignore-unknown"
OTHER_UNKNOWN = f"others without a place, {BY_IGNORE_UNKNOWN}"

_LISTED_AT_MOST = 50
_HARMLESS = {
    # Trained together with the LoRA and meant for its prompts (OneTrainer pull request 278); A1111
    # makes them usable while the LoRA is active, other tools ignore them.
    "embeddings bundled with it, which `embedding` imports from a file of their own": (
        r"bundle_emb\..*"
    ),
    # SDXL takes the first encoder's hidden states only (Podell et al., 2023, section 2.1).
    "the first text encoder's projection, which SDXL doesn't use": (
        r"(lora_te1[_.]|text_encoder\.|(text_encoders\.)?clip_l\.(transformer\.)?)"
        r"(text_model[_.])?text_projection\..*"
    ),
    # Empty or single numbers that sd-scripts' forks and ComfyUI look for in a checkpoint.
    "marks of what the base model predicts, which its own import decides": (
        r"v_pred|v_prediction|ztsnr|zsnr|edm_vpred\.sigma_(max|min)|edm_(mean|std)"
    ),
    "the training's state": (
        r"(global_step|step|epoch|iteration|logvar|scale_factor)"
        r"|(optimizer|lr_scheduler|scheduler|callbacks|loops)\..*"
    ),
    "networks beside SDXL's that only training uses": (
        r"(model_sampling|embedding_manager|discriminator)\..*"
    ),
}
"""Patterns of tensors that are left out, by the reason why that is harmless."""

_ANY_HARMLESS = re.compile("|".join(f"(?:{pattern})" for pattern in _HARMLESS.values()))
_FACTOR_MARK = re.compile(r"(^|[._])(lora|lycoris|lokr|hada|loha|dora)_")


@dataclass
class LeftOut:
    """The tensors of one file that are left out.

    Attributes:
        file: its name, for messages.
        ignore_unknown: whether lost tensors may be left out.
        counts: number of tensors by the reason, or by their name where there is no better one.
    """

    file: str
    ignore_unknown: bool
    counts: Counter[str] = field(default_factory=Counter)

    def add_foreign(self, name: str) -> None:
        """Leave out a foreign tensor; those of one group are counted together."""
        group, dot, _ = name.partition(".")
        self._add(f"{shorten(group)}{'.*' * bool(dot)}, of none of SDXL's networks", OTHER_FOREIGN)

    def add_lost(self, name: str) -> None:
        """Leave out a lost tensor, if that is asked for.

        Raises:
            AddonError: it is not asked for.
        """
        if not self.ignore_unknown:
            raise AddonError(
                f"{self.file}: tensor {shorten(name)} belongs to no module of SDXL's UNet or text "
                "encoders in any naming that we know; --ignore-unknown leaves out and lists such "
                "tensors."
            )
        self._add(f"{shorten(name)}, {BY_IGNORE_UNKNOWN}", OTHER_UNKNOWN)

    def _add(self, reason: str, others: str) -> None:
        is_listed = reason in self.counts or len(self.counts) < _LISTED_AT_MOST
        self.counts[reason if is_listed else others] += 1


def harmless_reason(name: str) -> str | None:
    """Return why a tensor of this name can be left out; None if it can't be by its name alone."""
    if not _ANY_HARMLESS.fullmatch(name):
        return None
    return next(why for why, pattern in _HARMLESS.items() if re.fullmatch(pattern, name))


def is_foreign(name: str) -> bool:
    """Return whether a name is none of SDXL's networks' and none of a LoRA's."""
    found = split_name(name)
    if found is not None and found.factor is not Factor.ALPHA:
        return False
    return not has_network_name(name) and not _FACTOR_MARK.search(name)
