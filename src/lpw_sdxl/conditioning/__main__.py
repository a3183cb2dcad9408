"""`python -m lpw_sdxl.prompt "text"`: a prompt as a style reads it, without any model.

Text, weights, tokens and chunks are those of the server's /inspect_prompt. With `--steps` they are
those of each text that the prompt becomes, and the schedule names its steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence

from lpw_sdxl.checkpoint.tokenizer_files import (
    END_TOKEN,
    START_TOKEN,
    build_vocabulary,
    read_merges,
)
from lpw_sdxl.conditioning.explain import ExplainedPrompt, PromptExplanation
from lpw_sdxl.conditioning.explain_schedule import (
    ExplainedPart,
    InspectedPrompt,
    PromptInspection,
    explain_schedules,
)
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.prompt_reader import PromptReader
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import Steps
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.prompt.syntax import Break, LoraTag, Span

_PAD_TOKENS = (END_TOKEN, "!")
"""The padding tokens of SDXL's two text encoders, in their order."""
MOST_STEPS = 2_000
"""Twice the steps that a request may have: some schedulers call the UNet twice a step."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the prompt that the arguments name, on standard output.

    Returns:
        0, or 1 if the prompt was refused, with one sentence on standard error.
    """
    options = _read(arguments)
    reader = PromptReader(dict.fromkeys(MentionForm, _build_tokenizers()), max_clip_skip=0)
    texts = _read_text(options.prompt), _read_text(options.negative_prompt)
    style = PromptStyle(options.style)
    try:
        if options.steps is None:
            explanation = reader.explain(*texts, style)
            values, lines = dataclasses.asdict(explanation), _describe(explanation)
        else:
            schedules = reader.parse_schedules(*texts, style, Steps(options.steps))
            inspection = explain_schedules(reader, schedules, style)
            values, lines = dataclasses.asdict(inspection), _describe_inspection(inspection)
    except InvalidPromptError as error:
        field = "prompt" if error.field == "prompt" else "negative prompt"
        sys.stderr.write(f"{field}: {error.message}\n")
        return 1
    _write(json.dumps(values, indent=2) if options.json else "\n".join(lines))
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lpw_sdxl.prompt",
        description="Show how a prompt is read: weights, tokens, chunks and warnings.",
    )
    parser.add_argument("prompt", help='text; "-" reads it from standard input')
    parser.add_argument("--negative-prompt", default="", help='text; "-" as above')
    parser.add_argument("--style", choices=list(map(str, PromptStyle)), default=PromptStyle.LPW)
    parser.add_argument(
        "--steps",
        type=_read_steps,
        metavar="N",
        help="show the texts by step, of an image of N UNet calls",
    )
    parser.add_argument(
        "--json", action="store_true", help="the shape of /inspect_prompt; with --steps, all of it"
    )
    options = parser.parse_args(arguments)
    if options.prompt == options.negative_prompt == "-":
        parser.error("only one text can be read from standard input")
    return options


def _read_steps(text: str) -> int:
    steps = int(text)
    if not 1 <= steps <= MOST_STEPS:
        raise argparse.ArgumentTypeError(f"{steps} is not within 1 to {MOST_STEPS}")
    return steps


def _read_text(text: str) -> str:
    if text != "-":
        return text
    # A byte that is not UTF-8 becomes a surrogate, which is refused by its position. The line end
    # that closes every file is no part of the prompt.
    return sys.stdin.buffer.read().decode(errors="surrogateescape").removesuffix("\n")


def _build_tokenizers() -> list[ClipTokenizer]:
    merges = read_merges()
    vocabulary = build_vocabulary(merges)
    return [
        ClipTokenizer.from_merges(vocabulary, merges, (START_TOKEN, END_TOKEN, pad_token))
        for pad_token in _PAD_TOKENS
    ]


def _write(text: str) -> None:
    """Write to standard output, with escapes for characters that its encoding lacks."""
    encoding = sys.stdout.encoding
    sys.stdout.write(text.encode(encoding, errors="backslashreplace").decode(encoding) + "\n")


def _describe(explanation: PromptExplanation) -> Iterator[str]:
    yield f"style {explanation.style}"
    for name in ("prompt", "negative_prompt"):
        yield ""
        yield from _describe_one(name, getattr(explanation, name))


def _describe_inspection(inspection: PromptInspection) -> Iterator[str]:
    yield f"style {inspection.style}, {inspection.schedule.prompt[-1].until_step} steps"
    for name in ("prompt", "negative_prompt"):
        yield ""
        yield f"{name}:"
        for stage in getattr(inspection.schedule, name):
            yield f"  until step {stage.until_step:<4} {_describe_parts(stage.parts)}"
        yield from _describe_whole(name, getattr(inspection, name))


def _describe_whole(name: str, prompt: InspectedPrompt) -> Iterator[str]:
    """Describe what no single text has, and then each text."""
    of_texts = [text.explanation for text in prompt.texts]
    for tag in prompt.lora_tags:
        if not any(tag in one.lora_tags for one in of_texts):
            yield f"  {_place(tag.start, tag.end)} {_describe_node(tag)}"
    for warning in prompt.warnings:
        if not any(warning in one.warnings for one in of_texts):
            yield f"  warning: {warning}"
    for text in prompt.texts:
        yield ""
        yield from _describe_one(f"{name}, {_quote(text.text)}", text.explanation)


def _describe_parts(parts: Sequence[ExplainedPart]) -> str:
    if len(parts) == 1 and parts[0].weight == 1.0:
        return _quote(parts[0].text)
    return " AND ".join(f"{part.weight:.4g} {_quote(part.text)}" for part in parts)


def _describe_one(name: str, prompt: ExplainedPrompt) -> Iterator[str]:
    counts = " and ".join(map(str, prompt.token_counts))
    yield f"{name}: {counts} tokens for the two text encoders, {len(prompt.windows)} chunk(s)"
    nodes: list[Span | Break | LoraTag] = [*prompt.spans, *prompt.breaks, *prompt.lora_tags]
    for node in sorted(nodes, key=lambda node: node.start):
        yield f"  {_place(node.start, node.end)} {_describe_node(node)}"
    for index, window in enumerate(prompt.windows, 1):
        pooled = ", gives the pooled vector" if window.is_pooled else ""
        yield f"  chunk {index}: {window.token_count} tokens in {window.length} positions{pooled}"
        if window.text:
            yield f"  {_place(window.start, window.end)} {'':8}  {_quote(window.text)}"
    for warning in prompt.warnings:
        yield f"  warning: {warning}"


def _describe_node(node: Span | Break | LoraTag) -> str:
    match node:
        case Span(text, weight):
            return f"{weight:8.4g}  {_quote(text)}"
        case LoraTag(name, weight, text_encoder_weight):
            differs = text_encoder_weight != weight
            addition = f", text encoders {text_encoder_weight:.4g}" if differs else ""
            return f"{weight:8.4g}  LoRA {_quote(name)}{addition}"
        case Break():
            return f"{'':8}  BREAK"


def _place(start: int, end: int) -> str:
    return f"{start:6}-{end:<6}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
