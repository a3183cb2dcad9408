"""The prompts, their style, and the LoRAs and embeddings that they name."""

from __future__ import annotations

from collections.abc import Mapping

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.hashes import embedding_names, read_hashes
from lpw_sdxl.parameters.lora_tags import MOST_NEAR, TagCleaner
from lpw_sdxl.parameters.offered import Offered, nearest_name
from lpw_sdxl.parameters.program import Program, Writer
from lpw_sdxl.prompt import LoraTag, PromptStyle
from lpw_sdxl.prompt.grammar import GRAMMARS
from lpw_sdxl.prompt.lora_tag import find_tags, has_open_tag, read_tag

_EMPHASIS: Mapping[str, PromptStyle] = {
    "original": PromptStyle.A1111_ORIGINAL,
    "no norm": PromptStyle.A1111,
}


def put_prompts(draft: Draft, writer: Writer, offered: Offered | None) -> None:
    """Put style and prompts, without the tags of LoRAs that can't be used."""
    style = _choose_style(draft, writer)
    if style is not PromptStyle.LPW:
        draft.fields["prompt_style"] = style
    prompt, negative_prompt = draft.written.prompt, draft.written.negative_prompt
    if GRAMMARS[style].has_lora_tags:
        cleaner = TagCleaner(draft, offered)
        prompt = cleaner.clean(prompt, style)
        negative_prompt = cleaner.clean(negative_prompt, style, is_negative=True)
    else:
        prompt = _put_loras_aside(draft, prompt)
    draft.fields["prompt"] = prompt
    if negative_prompt:
        draft.fields["negative_prompt"] = negative_prompt


def note_embeddings(draft: Draft, offered: Offered | None) -> None:
    """Note the embeddings that the server has not got."""
    if offered is None:
        return
    names = embedding_names(draft.written)
    unknown = [name for name in names if offered.find_embedding(name) is None]
    for number, name in enumerate(unknown):
        near = nearest_name(name, offered.embeddings) if number < MOST_NEAR else None
        hint = f"near is {near!r}" if near else "/info lists those that are"
        draft.note("Embedding", name, f"No embedding of this name is here, it is a word; {hint}.")


def _choose_style(draft: Draft, writer: Writer) -> PromptStyle:
    """Choose how the prompts are read.

    A1111 and Forge name their emphasis only where it is not `Original`, their default.
    """
    if writer.program is Program.OWN:
        pair = draft.pair("prompt style")
        if pair is not None:
            draft.put(pair, prompt_style=pair.value)
        return PromptStyle(draft.fields.get("prompt_style", PromptStyle.LPW))
    if writer.program is Program.COMFY_UI:
        return PromptStyle.COMFY
    if writer.program is Program.SD_NEXT:
        return PromptStyle.A1111
    pair = draft.pair("emphasis")
    style = PromptStyle.A1111_ORIGINAL if pair is None else _EMPHASIS.get(pair.value.casefold())
    if style is None and pair is not None:
        draft.note(*pair, "Weights act as with 'No norm' here; prompt_style has the other ways.")
    return style or PromptStyle.A1111


def _put_loras_aside(draft: Draft, prompt: str) -> str:
    """Put the tags that a text of our own adds to a prompt of a style without tags into `loras`.

    They are joined to its end, or to its beginning where its end would change them
    (`imaging.record`); "Lora hashes" has as many.

    Returns:
        The prompt without them.
    """
    pair, tags = draft.pair("lora hashes"), [*find_tags(prompt)]
    count = 0 if pair is None else len(read_hashes(pair.value))
    if pair is None or not 0 < count <= len(tags):
        return prompt
    for own, is_last in ((tags[-count:], True), (tags[:count], False)):
        joined = " ".join(tag[0] for tag in own)
        rest = prompt[: own[0].start() - 1] if is_last else prompt[own[-1].end() + 1 :]
        rest = "" if prompt == joined else rest
        parts = (rest, joined) if is_last else (joined, rest)
        read = [read_tag(tag[0], *tag.span()) for tag in own]
        loras = [_reference(tag) for tag in read if isinstance(tag, LoraTag)]
        # Behind such an end a tag would not be read as one.
        ends_badly = has_open_tag(rest) or "#" in rest.rpartition("\n")[2]
        is_joined = prompt == " ".join(filter(None, parts)) and len(loras) == count
        if is_joined and is_last is not ends_badly and draft.put(pair, loras=loras):
            return rest
    return prompt


def _reference(tag: LoraTag) -> dict[str, str | float]:
    weights = {"weight": tag.weight, "text_encoder_weight": tag.text_encoder_weight}
    return {"name": tag.name, **weights}
