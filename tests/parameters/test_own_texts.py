"""Our own texts come back exactly: text to request to text is a fixed point."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidRequestError, RequestError
from lpw_sdxl.imaging import EmbeddingUse, ImageRecord, PictureUse, parameters_text
from lpw_sdxl.lora.request import collect
from lpw_sdxl.parameters import read_text, to_request
from lpw_sdxl.prompt import PromptStyle, Steps, parse_schedule
from lpw_sdxl.sampler_names import split_label
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling_options import (
    NoiseSource,
    SamplerImplementation,
    SigmaScheduleType,
    TimestepRounding,
)
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, LoraReference
from lpw_sdxl.second_pass import SecondPass, Upscaler, enlarge, fits_second
from lpw_sdxl.store.origin import Origin
from tests.parameters.case import LIMITS, OFFERED

NATIVE = ImageSize(1024, 768)
NAMES = ("a", "b", "c")
EMBEDDINGS = (EmbeddingUse("badhands", "ff" * 32),)


def resolve(name: str, field: str) -> Any:
    name = name.lower()
    if name not in NAMES:
        raise InvalidRequestError(f"no LoRA is named {name}", field=field)
    manifest = SimpleNamespace(name=name, origin=Origin("", "", 1, name.encode().hex() * 32))
    return SimpleNamespace(manifest=manifest, key=name)


SERVED = replace(OFFERED, loras={name: name.encode().hex() * 32 for name in NAMES})


def recorded(request: GenerationRequest) -> ImageRecord:
    """Decide what the engine decides, of a request that names its scheduler."""
    scheduler, schedule_type = request.scheduler, request.schedule_type
    assert scheduler is not None
    if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
        label = split_label(scheduler)
        assert label is not None
        recipe = SAMPLERS[label.sampler]
        scheduler = label.sampler
        schedule_type = schedule_type or label.schedule_type or recipe.automatic
        schedule_type = None if recipe.walks_timesteps else schedule_type
    schedule = parse_schedule(request.prompt, Steps(1), style=request.prompt_style)
    second = ""
    if request.hires is not None:
        second = request.hires.prompt or request.prompt
    tags = parse_schedule(second, Steps(1), style=request.prompt_style).lora_tags
    return ImageRecord(
        request,
        7 if request.seed is None else request.seed,
        ImageSize(request.height or NATIVE.height, request.width or NATIVE.width),
        scheduler,
        OFFERED.model_name,
        OFFERED.model_sha256,
        collect(request.loras, schedule.lora_tags, resolve, 64),
        EMBEDDINGS if "badhands" in request.prompt else (),
        schedule_type,
        variation_seed=request.variation_seed if request.variation_strength else None,
        second_loras=() if request.hires is None else collect(request.loras, tags, resolve, 64),
    )


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "a cat", "\n", "\r\n", " ", ",", "(b:1.2)", "[a:b:0.5]", "#", "<lora:a:0.5>", ":",
                "<lora:b:1:0.5>", "<lora: c :1>", "Negative prompt: ", "Steps: 20, ", '"', "\\",
                "Version: v1.6.0", "badhands", "Template: x", "{", "AND", "BREAK", "<lora:", ">",
            ]
        ),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
    ),
    max_size=8,
).map("".join)  # fmt: skip
SIDES = st.none() | st.integers(8, 256).map(lambda cells: 8 * cells)
SHARES = st.floats(0, 1)


@st.composite
def second_passes(draw: st.DrawFn, scheduler: Any, schedule_type: Any) -> dict[str, Any]:
    sides = st.integers(8, 256).map(lambda cells: 8 * cells)
    size: dict[str, Any] = draw(
        st.one_of(
            st.fixed_dictionaries({"scale": st.none() | st.floats(1, 8)}),
            st.fixed_dictionaries({"width": sides, "height": sides}),
            st.fixed_dictionaries({"width": sides}),
            st.fixed_dictionaries({"height": sides}),
        )
    )
    return size | {
        "steps": draw(st.none() | st.integers(0, 150)),
        "strength": draw(SHARES),
        "upscaler": draw(st.sampled_from(Upscaler)),
        "prompt": draw(st.none() | TEXTS),
        "negative_prompt": draw(st.none() | TEXTS),
        "guidance_scale": draw(st.none() | st.floats(0, 100)),
        "scheduler": draw(st.none() | st.just(scheduler).map(str)),
        "schedule_type": draw(st.none() | st.just(schedule_type).map(str)),
    }


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    is_k_diffusion = draw(st.booleans())
    fields: dict[str, Any] = {
        "prompt": draw(TEXTS),
        "negative_prompt": draw(TEXTS),
        "width": draw(SIDES),
        "height": draw(SIDES),
        "num_inference_steps": draw(st.integers(1, 150)),
        "guidance_scale": draw(st.floats(0, 100)),
        "guidance_rescale": draw(SHARES),
        "seed": draw(st.none() | st.integers(0, 2**64 - 1)),
        "prompt_style": draw(st.sampled_from(PromptStyle)),
        "clip_skip": draw(st.none() | st.integers(0, 30)),
        "loras": [
            LoraReference(name=name, weight=draw(st.floats(-2, 2)))
            for name in draw(st.lists(st.sampled_from(NAMES), max_size=2))
        ],
    }
    start, stop = draw(SHARES), draw(SHARES)
    if float(f"{start:g}") < float(f"{stop:g}"):
        fields["guidance_interval"] = [start, stop]
    if is_k_diffusion:
        sampler = draw(st.sampled_from(SamplerName))
        recipe = SAMPLERS[sampler]
        fields |= {
            "sampler_implementation": "k_diffusion",
            "scheduler": sampler,
            "noise_source": draw(st.none() | st.sampled_from(NoiseSource)),
            "timestep_rounding": draw(st.none() | st.sampled_from(TimestepRounding)),
            "eta": None if recipe.eta is None else draw(st.none() | SHARES),
            "eta_noise_seed_delta": draw(st.integers(-(2**63), 2**63 - 1)),
        }
        if not recipe.walks_timesteps:
            fields["schedule_type"] = draw(st.none() | st.sampled_from(SigmaScheduleType))
        strength = draw(SHARES)
        if float(f"{strength:g}"):
            fields["variation_strength"] = strength
            fields["variation_seed"] = draw(st.integers(0, 2**64 - 1))
    else:
        fields["scheduler"] = draw(st.sampled_from(SchedulerName))
        fields["schedule_type"] = draw(st.none() | st.sampled_from(ScheduleType))
    if draw(st.booleans()):
        kind = SigmaScheduleType.KARRAS if is_k_diffusion else ScheduleType.TRAILING
        fields["hires"] = draw(second_passes(fields["scheduler"], kind))
    return GenerationRequest.model_validate(fields)


def has_refused_tag(request: GenerationRequest) -> bool:
    texts = [request.prompt, request.negative_prompt]
    if request.hires is not None:
        texts += [request.hires.negative_prompt or "", request.hires.prompt or ""]
    parsed = [parse_schedule(text, Steps(1), style=request.prompt_style) for text in texts]
    # The layout has no escapes: a prompt with the mark is read as two, whose second has no tags.
    has_tags = "<" in texts[0] or bool(request.loras)
    is_two = "\nNegative prompt: " in texts[0] and has_tags
    has_negative = any(one.lora_tags for one in parsed[1:3])
    return any(one.refused_tags for one in parsed) or has_negative or is_two


def fits(request: GenerationRequest, second: SecondPass) -> bool:
    size = ImageSize(request.height or NATIVE.height, request.width or NATIVE.width)
    return fits_second(enlarge(size, second), LIMITS.max_size)


@given(requests())
def test_text_to_request_to_text_is_a_fixed_point(request: GenerationRequest) -> None:
    try:
        assume(not has_refused_tag(request))
        assume(request.hires is None or fits(request, request.hires))
        written = parameters_text(recorded(request))
        # Where all line ends are Windows', they are taken as a page's.
        assume("\r\n" not in written or written.count("\n") > written.count("\r\n"))
    except RequestError:  # of a weight, or a sum of weights: no image is made
        assume(False)
        return
    translation = to_request(read_text(written), SERVED, LIMITS)
    assert translation.not_honoured == ()
    assert parameters_text(recorded(translation.request)) == written


def test_a_picture_is_named_and_all_else_comes_back() -> None:
    request = GenerationRequest(prompt="a cat", scheduler=SchedulerName.EULER, strength=0.5)
    record = replace(recorded(request), picture=PictureUse.WHOLE)
    translation = to_request(read_text(parameters_text(record)), OFFERED, LIMITS)
    (note,) = translation.not_honoured
    assert (note.name, note.value) == ("Denoising strength", "0.5")
    assert parameters_text(recorded(translation.request)) == parameters_text(
        recorded(GenerationRequest(prompt="a cat", scheduler=SchedulerName.EULER))
    )


def test_a_text_of_ours_that_lost_its_line_ends_is_read() -> None:
    request = GenerationRequest(
        prompt="a cat", negative_prompt="bad", scheduler=SchedulerName.DPMPP_2M_KARRAS, seed=5
    )
    written = parameters_text(recorded(request))
    lost = to_request(read_text(written.replace("\n", " ")), OFFERED, LIMITS)
    assert lost == to_request(read_text(written), OFFERED, LIMITS)
    windows = to_request(read_text(written.replace("\n", "\r\n") + "\r\n"), OFFERED, LIMITS)
    assert windows == lost
