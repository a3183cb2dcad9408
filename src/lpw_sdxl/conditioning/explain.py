"""What the server makes of a prompt, in words and numbers; needs a tokenizer and no encoder."""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.conditioning.chunking import TokenChunks, Window, chunk_pair
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from lpw_sdxl.prompt import Break, LoraTag, Prompt, PromptStyle, Span


@dataclass(frozen=True, slots=True)
class ExplainedWindow:
    """One chunk.

    Attributes:
        token_count: tokens of the prompt's text.
        length: positions that the encoder reads, BOS, EOS and padding included.
        text: what the tokens say, as the encoder reads it; without padding.
        is_pooled: whether the pooled vector is taken from it.
    """

    token_count: int
    length: int
    text: str
    is_pooled: bool


@dataclass(frozen=True, slots=True)
class ExplainedPrompt:
    """One prompt: what its text was parsed into, and its chunks.

    Attributes:
        spans: weighted text, with positions in characters.
        breaks: where BREAK stands.
        lora_tags: in the order of the text.
        token_count: tokens of the text, in all windows.
        windows: at least one.
        warnings: a sentence for each kind of thing that was probably not meant.
    """

    spans: tuple[Span, ...]
    breaks: tuple[Break, ...]
    lora_tags: tuple[LoraTag, ...]
    token_count: int
    windows: tuple[ExplainedWindow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptExplanation:
    """A prompt and its negative prompt in one style."""

    style: PromptStyle
    prompt: ExplainedPrompt
    negative_prompt: ExplainedPrompt


def explain(
    prompt: Prompt, negative_prompt: Prompt, style: PromptStyle, tokenizer: ClipTokenizer
) -> PromptExplanation:
    """Say how a pair of prompts is weighted and chunked."""
    chunks = chunk_pair(prompt, negative_prompt, style, tokenizer)
    return PromptExplanation(
        style,
        _explain_one(prompt, chunks.prompt, tokenizer),
        _explain_one(negative_prompt, chunks.negative_prompt, tokenizer),
    )


def _explain_one(prompt: Prompt, chunks: TokenChunks, tokenizer: ClipTokenizer) -> ExplainedPrompt:
    return ExplainedPrompt(
        spans=prompt.spans,
        breaks=prompt.breaks,
        lora_tags=prompt.lora_tags,
        token_count=chunks.token_count,
        windows=tuple(
            ExplainedWindow(
                token_count=window.text_count,
                length=len(window.ids),
                text=_window_text(window, tokenizer),
                is_pooled=index == chunks.pooled_window,
            )
            for index, window in enumerate(chunks.windows)
        ),
        warnings=tuple(str(warning) for warning in prompt.warnings),
    )


def _window_text(window: Window, tokenizer: ClipTokenizer) -> str:
    return tokenizer.text(list(window.ids[1 : 1 + window.text_count]))
