"""Upscalers that are not served, by the names of their tensors; no torch."""

from __future__ import annotations

from collections.abc import Iterable

_OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("an ESRGAN+ network", (".conv1x1.",)),
    ("an MM-RealSR network", ("am_list.", "de_net.")),
    ("an HAT network", ("conv_block.cab.", "overlap_attn.")),
    ("a DRCT network", (".swin1.",)),
    ("an ATD network", (".attn_win.", ".wqkv.")),
    ("a CRAFT network", (".hf_blocks.",)),
    ("a GRL network", (".window_attn.",)),
    ("an RGT network", (".rpe_biases",)),
    ("a DAT network", ("before_RG.",)),
    ("a Swin2SR network", (".cpb_mlp.",)),
    ("a SwinIR network", (".residual_group.",)),
    ("an OmniSR network", ("residual_layer.0.residual_layer.",)),
    ("a SPAN network", (".c1_r.", "conv_1.sk.")),
    ("a PLKSR network", (".lk.",)),
    ("a MoSR network", ("gblocks.",)),
    ("an SAFMN network", (".safm.",)),
    ("a Real-CUGAN network", ("unet1.conv1.",)),
    ("a DITN network", ("UFONE.",)),
    ("an SCUNet network", ("m_head.",)),
    ("an AuraSR network", ("mid_attn.layers.",)),
    ("a Swift-SRGAN network", ("initial.cnn.",)),
    ("a GFPGAN network", ("stylegan_decoder.",)),
    ("a CodeFormer network", ("fuse_convs_dict.",)),
    ("a RestoreFormer network", ("quantize.embedding.",)),
    ("an RCAN network", (".conv_du.",)),
    ("an EDSR network", ("head.0.weight", "sub_mean.")),
)
"""Each with parts of names that no network before it has; narrow ones first."""


def other_kind_of(names: Iterable[str]) -> str:
    """Return which upscaler that is not served has tensors of these names; empty for none."""
    listed = [*names]
    for title, parts in _OTHERS:
        if any(part in name for name in listed for part in parts):
            return title
    return ""
