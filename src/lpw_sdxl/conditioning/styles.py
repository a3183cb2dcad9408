"""Each prompt style's way from a parsed prompt to conditioning, in one table; no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from lpw_sdxl.conditioning.cutting import (
    Border,
    Splitting,
    after_75,
    after_comma,
    before_word,
    by_span,
    by_word,
)
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.windows import (
    Fit,
    PooledChoice,
    first_window,
    fit_alone_padded_after_eos,
    fit_alone_padded_after_text,
    fit_pair,
    last_of_text,
    last_window,
)
from lpw_sdxl.prompt import PromptStyle


class EmphasisName(Enum):
    """The effect of weights on hidden states; `emphasis.EMPHASES` holds the formulas."""

    NONE = auto()
    FROM_WINDOW_END = auto()
    MULTIPLY = auto()
    MULTIPLY_AND_RESTORE_MEAN = auto()
    FROM_EMPTY_PROMPT = auto()


class PooledChoices(NamedTuple):
    """The choice for each prompt of a pair."""

    prompt: PooledChoice
    negative_prompt: PooledChoice


_BOTH_FIRST = PooledChoices(first_window, first_window)


@dataclass(frozen=True, slots=True)
class StyleRules:
    """One style; its grammar is declared in `prompt`.

    Attributes:
        split: how a span is split into pieces that are tokenised one by one.
        border: finds the end of a chunk that is too small for the text.
        mentions: how a text names an embedding.
        keeps_empty_chunks: whether a leading or doubled BREAK makes a chunk without text.
        fit: how chunks become windows, and their padding.
        pooled: which windows the pooled vectors are taken from.
        emphasis: how weights act.
        has_zeros_for_empty_negative: whether an empty negative prompt is zeros, hidden states and
            pooled vector, or is encoded as any other.
        skips_layers_for_negative: whether clip_skip counts for the negative prompt.
    """

    split: Splitting = by_span
    border: Border = after_75
    mentions: MentionForm = MentionForm.BARE_OR_PREFIXED
    keeps_empty_chunks: bool = True
    fit: Fit = fit_alone_padded_after_text
    pooled: PooledChoices = _BOTH_FIRST
    emphasis: EmphasisName = EmphasisName.NONE
    has_zeros_for_empty_negative: bool = False
    skips_layers_for_negative: bool = True


# Facts of each: lpw_stable_diffusion_xl.py of huggingface/diffusers at commit 58eb52c; the
# documented behaviour of AUTOMATIC1111 and ComfyUI; StableDiffusionXLPipeline.encode_prompt of
# diffusers 0.42.1, where clip_skip counts for the prompt alone.
STYLES: Mapping[PromptStyle, StyleRules] = {
    PromptStyle.LPW: StyleRules(
        keeps_empty_chunks=False,
        fit=fit_pair,
        # A long negative prompt must not replace the prompt's pooled vector by that of the empty
        # string, as in the community pipeline; the negative prompt's is the same as there.
        pooled=PooledChoices(last_of_text, last_window),
        emphasis=EmphasisName.FROM_WINDOW_END,
    ),
    PromptStyle.A1111: StyleRules(
        border=after_comma,
        fit=fit_alone_padded_after_eos,
        emphasis=EmphasisName.MULTIPLY,
        has_zeros_for_empty_negative=True,
    ),
    PromptStyle.A1111_ORIGINAL: StyleRules(
        border=after_comma,
        fit=fit_alone_padded_after_eos,
        emphasis=EmphasisName.MULTIPLY_AND_RESTORE_MEAN,
        has_zeros_for_empty_negative=True,
    ),
    PromptStyle.COMFY: StyleRules(
        split=by_word,
        border=before_word,
        mentions=MentionForm.PREFIXED,
        emphasis=EmphasisName.FROM_EMPTY_PROMPT,
    ),
    PromptStyle.PLAIN: StyleRules(skips_layers_for_negative=False),
}
