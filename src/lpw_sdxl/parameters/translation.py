"""A text's parts to a request, and to what of the text the request does not honour.

Only what a text says is put into the request, and what its program leaves unsaid because it is a
default there: `program.py`, `sampling_fields.py`. All else has the request's own defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from lpw_sdxl.errors import InvalidRequestError, RequestError
from lpw_sdxl.model_defaults import NO_DEFAULTS, ModelDefaults
from lpw_sdxl.parameters.draft import Draft, NotHonoured
from lpw_sdxl.parameters.hires import put_second_pass
from lpw_sdxl.parameters.known_keys import (
    LOST,
    OFF,
    PICTURE_KEYS,
    READ,
    WITHOUT_EFFECT,
    find_group,
)
from lpw_sdxl.parameters.model_fields import note_model, note_resources
from lpw_sdxl.parameters.numbers import read_interval, read_size, read_whole
from lpw_sdxl.parameters.offered import Offered
from lpw_sdxl.parameters.picture_fields import note_picture, put_size
from lpw_sdxl.parameters.program import Program, Writer, find_writer
from lpw_sdxl.parameters.prompt_fields import note_embeddings, put_prompts
from lpw_sdxl.parameters.sampling_fields import put_sampling
from lpw_sdxl.parameters.written import Pair, WrittenParameters, plain_key
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.schema import GenerationRequest

MOST_STEPS = 999  # of the schema
SDXL_CLIP_SKIP = 2  # in A1111's count: the layer that SDXL's is; 1 is read as the same there
# Fields that every text is expected to say.
_NO_SILENCE = frozenset(
    {
        "num_inference_steps",
        "scheduler",
        "guidance_scale",
        "width",
        "height",
        "image_format",
    }
)
_EXPECTED = ("steps", "sampler", "cfg scale", "seed", "size")


@dataclass(frozen=True)
class Translation:
    """A request that makes a picture again, as nearly as this server can.

    Attributes:
        request: accepted by the schema and, if they were given, the server's limits.
        not_honoured: all that it leaves out of the text.
        has_settings: whether the text has more than prompts.
    """

    request: GenerationRequest
    not_honoured: tuple[NotHonoured, ...] = ()
    has_settings: bool = True

    @property
    def fields(self) -> dict[str, Any]:
        """Return the prompt and the fields that differ from their defaults, as JSON has them."""
        return self.request.model_dump(mode="json", exclude_defaults=True)

    def fields_beside(self, defaults: ModelDefaults) -> dict[str, Any]:
        """Return also those whose model's default is another than the text's value."""
        own = defaults.values.keys() & self.request.model_fields_set
        return self.fields | self.request.model_dump(mode="json", include=set(own))

    def stated_beside(self, defaults: ModelDefaults) -> Translation:
        """Return it with all said that the text says by its silence, where the model differs.

        A text without `Clip skip` was drawn without; one without `Steps` says nothing of them.
        """
        if not self.has_settings:
            return self
        set_fields = self.request.model_fields_set
        unsaid = _NO_SILENCE if "scheduler" in set_fields else _NO_SILENCE | {"schedule_type"}
        silent = defaults.values.keys() - set_fields - unsaid
        said = {name: getattr(self.request, name) for name in silent}
        return replace(self, request=self.request.model_copy(update=said))

    def with_refusal(self, error: RequestError) -> Translation:
        """Return it with a reason for which this server would still refuse the request."""
        reason = f"The request is refused as it is: {error.message.rstrip('.')}."
        note = NotHonoured.of(error.field or "request", "", reason)
        return replace(self, not_honoured=(*self.not_honoured, note))


def to_request(
    written: WrittenParameters,
    offered: Offered | None = None,
    limits: RequestLimits | None = None,
    field: str = "parameters",
) -> Translation:
    """Translate a text's parts.

    Args:
        written: the parts.
        offered: the server's names; None where there is no server: names are not looked up.
        limits: of the server; None for those of the schema alone.
        field: of the request that brought the text, for refusals.

    Raises:
        InvalidRequestError: a prompt is longer than the server accepts.
    """
    if limits is not None:
        limits = replace(limits, defaults=NO_DEFAULTS)  # a text's silence has a meaning of its own
    draft = Draft(written, limits)
    writer = find_writer(written)
    put_prompts(draft, writer, offered)
    if written.pairs:
        put_sampling(draft, writer)
        _put_steps(draft)
        _put_guidance(draft)
        _put_seed(draft)
        put_size(draft)
        _put_clip_skip(draft, writer)
    second_pass = put_second_pass(draft, offered)
    note_picture(draft, second_pass)
    note_model(draft, offered)
    note_resources(draft)
    note_embeddings(draft, offered)
    _note_others(draft, second_pass)
    _note_missing(draft)
    _note_program(draft, writer)
    request = _validate(draft, field)
    return Translation(request, tuple(draft.not_honoured), has_settings=bool(written.pairs))


def _put_steps(draft: Draft) -> None:
    pair = draft.pair("steps")
    steps = None if pair is None else read_whole(pair.value)
    if pair is None or steps is None:
        if pair is not None:
            draft.note(*pair, "It is no whole number; the default is taken.")
        return
    most = MOST_STEPS if draft.limits is None else min(MOST_STEPS, draft.limits.max_steps)
    if steps > most:
        draft.note(*pair, f"At most {most} steps are accepted here; so many are taken.")
    draft.put(pair, num_inference_steps=min(steps, most))


def _put_guidance(draft: Draft) -> None:
    for key, name in (("cfg scale", "guidance_scale"), ("cfg rescale", "guidance_rescale")):
        pair = draft.pair(key)
        if pair is not None:
            draft.put_number(pair, name, "the default")
    pair = draft.pair("cfg interval")
    if pair is None:
        return
    interval = read_interval(pair.value)
    if interval is None:
        draft.note(*pair, "It is no interval, such as 0.2-0.8; all steps are guided.")
    else:
        draft.put(pair, guidance_interval=interval)


def _put_seed(draft: Draft) -> None:
    pair = draft.pair("seed")
    if pair is not None:
        seed = read_whole(pair.value)
        if seed is None:
            draft.note(*pair, "It is no whole number; a seed is drawn.")
        else:
            draft.put(pair, seed=seed)
    pair = draft.pair("seed resize from")
    if pair is not None and (size := read_size(pair.value)) is not None and all(size):
        draft.note(*pair, "The noise of another size is not put into this one's here.")


def _put_clip_skip(draft: Draft, writer: Writer) -> None:
    """Put the layers left out: A1111 counts them from the last, ours from SDXL's own."""
    pair = draft.pair("clip skip")
    if pair is None:
        return
    count = read_whole(pair.value)
    if count is None:
        draft.note(*pair, "It is no whole number; SDXL's own layer is taken.")
    elif count > SDXL_CLIP_SKIP or (writer.program is Program.OWN and count == SDXL_CLIP_SKIP):
        draft.put(pair, clip_skip=count - SDXL_CLIP_SKIP)


def _note_others(draft: Draft, done: frozenset[str]) -> None:
    """Note the pairs that nothing else has read, those of one feature together."""
    groups: dict[str, list[Pair]] = {}
    for pair in draft.written.by_key.values():
        key = plain_key(pair.key)
        if key in done or key in READ or key in WITHOUT_EFFECT or key in PICTURE_KEYS:
            continue
        group = find_group(key)
        if group is not None:
            groups.setdefault(group.name, []).append(pair)
        elif key not in LOST:
            draft.note(*pair, "This key is not known here; what it did is not done.")
        elif pair.value.casefold() not in OFF:
            draft.note(*pair, LOST[key])
    for name, pairs in groups.items():
        group = find_group(plain_key(pairs[0].key))
        assert group is not None
        if any(pair.value.casefold() not in OFF for pair in pairs):
            written = ", ".join(f"{pair.key}: {pair.value}" for pair in pairs)
            draft.note(name, written, group.reason)


def _note_missing(draft: Draft) -> None:
    """Note which of the usual keys a text lacks: the defaults differ from the writer's."""
    missing = [key for key in _EXPECTED if draft.pair(key) is None]
    if missing:
        draft.note(
            "missing",
            ", ".join(missing),
            "The text does not have it; this server's own defaults are taken, which are others"
            " than those of the program that wrote it.",
        )


def _note_program(draft: Draft, writer: Writer) -> None:
    """Note a program whose pictures can only be made again nearly."""
    version, app = draft.written.value("version"), draft.written.value("app")
    match writer.program:
        case Program.SD_NEXT:
            reason = (
                "It draws with Diffusers' schedulers, and noise on its own device; its pictures"
                " will be near at best."
            )
            draft.note("App", app, reason)
        case Program.COMFY_UI:
            reason = (
                "It scales the first noise otherwise, and its graph is not in the text; its"
                " pictures will be near at best."
            )
            draft.note("Version", version, reason)
        case Program.OTHER:
            draft.note("Version", version, "The text is read as AUTOMATIC1111's.")


def _validate(draft: Draft, field: str) -> GenerationRequest:
    try:
        request = GenerationRequest.model_validate(draft.fields)
    except ValidationError as error:
        refusal = explain_refusal(error, GenerationRequest)
        raise InvalidRequestError(f"{field}: {refusal.message}", field=field) from None
    if draft.limits is not None:
        most = draft.limits.max_steps
        if "num_inference_steps" not in draft.fields and request.num_inference_steps > most:
            request = request.model_copy(update={"num_inference_steps": most})
        try:
            check_limits(request, draft.limits)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{field}: {error.message}", field=field) from None
    return request
