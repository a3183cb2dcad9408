"""The text is read back by a reader of the published layout, written for these tests."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from lpw_sdxl import __version__
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging import EmbeddingUse, ImageRecord, PictureUse, parameters_text
from lpw_sdxl.lora.request import LoraStrength, LoraUse, collect
from lpw_sdxl.prompt import Break, LoraTag, Prompt, PromptStyle, parse
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SigmaScheduleType
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, LoraReference
from lpw_sdxl.store.origin import Origin

# A pair of the last line: a key, and a JSON string or all up to the next comma.
PAIR = re.compile(r'(?P<key>\w[\w /-]+): (?P<value>"(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)')


@dataclass(frozen=True)
class Parameters:
    """The fields that another program reads from the text."""

    prompt: str
    negative_prompt: str
    pairs: dict[str, str]


def read(text: str) -> Parameters:
    """Read the layout; every character of the last line must belong to a pair."""
    words, _, last = text.rpartition("\n")
    prompt, _, negative = words.partition("\nNegative prompt: ")
    matches = list(PAIR.finditer(last))
    assert "".join(match.group() for match in matches) == last
    values = {match["key"]: match["value"] for match in matches}
    assert len(values) == len(matches)
    pairs = {
        key: json.loads(value) if value.startswith('"') else value for key, value in values.items()
    }
    return Parameters(prompt, negative, pairs)


@pytest.mark.parametrize(
    ("fields", "decided", "pairs"),
    [
        ({}, {}, {"RNG": "CPU"}),
        ({"noise_source": "nv"}, {}, {"RNG": "NV"}),
        ({"eta": 0.5}, {}, {"Eta": "0.5"}),
        ({"eta": 0.5}, {"scheduler": SamplerName.DDIM}, {"Eta DDIM": "0.5"}),
        ({"eta_noise_seed_delta": 31337}, {}, {"ENSD": "31337"}),
        (
            {"variation_strength": 0.25},
            {"variation_seed": 9},
            {"Variation seed": "9", "Variation seed strength": "0.25"},
        ),
        ({"timestep_rounding": "nearest"}, {}, {"Timestep rounding": "nearest"}),
        ({"timestep_rounding": "interpolate"}, {}, {}),
    ],
)
def test_k_diffusions_noise_is_written_in_a1111s_words(
    fields: dict[str, object], decided: dict[str, object], pairs: dict[str, str]
) -> None:
    plain = {"sampler_implementation": "k_diffusion"}
    made = {"scheduler": SamplerName.DPMPP_2M, "schedule_type": SigmaScheduleType.KARRAS}
    written = read(parameters_text(replace(record(**plain, **fields), **made | decided))).pairs
    assert written["Sampler implementation"] == "k_diffusion"
    assert written["Schedule type"] == "Karras"
    assert written.items() >= pairs.items()
    expected = {"RNG", *pairs}
    noted = {"RNG", "Eta", "Eta DDIM", "ENSD", "Variation seed", "Variation seed strength"}
    assert (noted | {"Timestep rounding"}) & written.keys() == expected


def test_diffusers_schedulers_write_no_word_of_k_diffusion() -> None:
    assert not {"RNG", "Sampler implementation"} & read(parameters_text(record())).pairs.keys()


def record(**fields: object) -> ImageRecord:
    return ImageRecord(
        request=GenerationRequest.model_validate({"prompt": "a (cat:1.2)", **fields}),
        seed=2**64 - 1,
        size=ImageSize(height=16, width=24),
        scheduler=SchedulerName.DPMPP_2M_KARRAS,
        model_name="sdxl",
        model_sha256="0123456789abcdef" * 4,
    )


def test_every_field_is_read_back() -> None:
    made = record(
        prompt="a (cat:1.2), [dog]\nBREAK a h\u00e9ron, \u732b",
        negative_prompt="blurry, text: none\nbad",
        num_inference_steps=12,
        guidance_scale=7.5,
        guidance_rescale=0.7,
        clip_skip=1,
        prompt_style="a1111",
    )
    assert read(parameters_text(made)) == Parameters(
        prompt="a (cat:1.2), [dog]\nBREAK a h\u00e9ron, \u732b",
        negative_prompt="blurry, text: none\nbad",
        pairs={
            "Steps": "12",
            "Sampler": "DPM++ 2M Karras",
            "CFG scale": "7.5",
            "Seed": str(2**64 - 1),
            "Size": "24x16",
            "Model hash": "0123456789",
            "Model": "sdxl",
            "CFG rescale": "0.7",
            "Clip skip": "3",
            "Prompt style": "a1111",
            "Version": f"LPW-SDXL {__version__}",
        },
    )


# What A1111 1.10 reads as a schedule: names, labels and aliases of its own, in any case.
THEIRS = [
    "automatic", "uniform", "karras", "exponential", "polyexponential", "sgm uniform",
    "sgm_uniform", "sgmuniform", "kl optimal", "kl_optimal", "align your steps",
    "align_your_steps", "simple", "normal", "ddim", "beta", "turbo",
]  # fmt: skip


@pytest.mark.parametrize("schedule_type", list(ScheduleType))
def test_a_schedule_type_is_written_by_a_name_that_a1111_does_not_read_as_another(
    schedule_type: ScheduleType,
) -> None:
    made = replace(record(schedule_type="sgm_uniform"), schedule_type=schedule_type)
    text = read(parameters_text(made))
    assert text.pairs["Schedule type"] == schedule_type  # what was used, by our own name
    assert list(text.pairs)[1:3] == ["Sampler", "Schedule type"]
    assert text.pairs["Schedule type"].casefold() not in THEIRS


MASKED = [
    ({}, {"Denoising strength": "0.75"}),
    ({"strength": 0.5, "mask_blur": 4.0}, {"Denoising strength": "0.5", "Mask blur": "4"}),
    ({"mask_blur": 2.5}, {"Denoising strength": "0.75", "Mask blur": "2.5"}),
    ({"masked_content": "fill"}, {"Denoising strength": "0.75", "Masked content": "fill"}),
    (
        {"masked_content": "latent_noise", "strength": 1.0},
        {"Denoising strength": "1", "Masked content": "latent noise"},
    ),
    (
        {"masked_content": "latent_nothing", "invert_mask": True},
        {
            "Denoising strength": "0.75",
            "Masked content": "latent nothing",
            "Mask mode": "Inpaint not masked",
        },
    ),
    (
        {"only_masked": True, "only_masked_padding": 0},
        {
            "Denoising strength": "0.75",
            "Inpaint area": "Only masked",
            "Masked area padding": "0",
        },
    ),
    (
        {"only_masked": True},
        {
            "Denoising strength": "0.75",
            "Inpaint area": "Only masked",
            "Masked area padding": "32",
        },
    ),
]


def picture_pairs(use: PictureUse | None, **fields: object) -> dict[str, str]:
    """Read back what a picture adds to the text."""
    made = record(**fields)
    plain = read(parameters_text(made)).pairs
    pairs = read(parameters_text(replace(made, picture=use))).pairs
    assert pairs.items() >= plain.items()
    return {key: value for key, value in pairs.items() if key not in plain}


@pytest.mark.parametrize(("fields", "pairs"), MASKED)
def test_a_masked_picture_is_written_in_a1111s_words(
    fields: dict[str, object], pairs: dict[str, str]
) -> None:
    assert picture_pairs(PictureUse.MASKED, **fields) == pairs


def test_of_a_whole_picture_only_the_strength_is_written() -> None:
    assert picture_pairs(PictureUse.WHOLE, strength=0.333) == {"Denoising strength": "0.333"}
    assert picture_pairs(None, strength=0.333) == {}


def test_what_was_not_requested_is_not_in_the_text() -> None:
    text = parameters_text(record())
    assert "Negative prompt" not in text
    assert list(read(text).pairs) == [
        "Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Prompt style",
        "Version",
    ]  # fmt: skip


PROMPTS = {
    "the prompt's own": ("a <lora:b:.5>, <lyco:a:1:-2>", [], "a <lora:b:.5>, <lyco:a:1:-2>"),
    "with blanks": ("a <lora: b :.5> cat", [], "a <lora:b:0.5> cat"),
    "switched off, with blanks": ("a <lora:b: 0 > cat", [], "a <lora:b:0.0> cat"),
    "the body's": ("a cat", ["b", "a"], "a cat <lora:a:1.0> <lora:b:1.0>"),
    "the body's alone": ("", ["a"], "<lora:a:1.0>"),
    "both": ("<lora:b:2:1>cat", ["a"], "<lora:a:1.0>cat <lora:b:2.0:1.0>"),
    "both the same": ("a <lora:a:0.5> cat", ["a"], "a <lora:a:1.5> cat"),
    "named twice": ("a <lora:a:0.5>, <lora:a:1>cat", [], "a <lora:a:0.0>, <lora:a:1.5>cat"),
    "another spelling": ("<lora:A> cat", [], "<lora:a:1.0> cat"),
    "switched off": ("<lora:a:0><lora:b:1>", [], "<lora:a:0><lora:b:1>"),
    "switched off here and not there": ("<lora:a:0> cat", ["a"], "<lora:a:1.0> cat"),
    "cancelled": ("<lora:a:1> cat <lora:a:-1>", [], "<lora:a:0.0> cat <lora:a:0.0>"),
    "in brackets": ("(cat<lora:a>:1.2)[dog", ["b"], "(cat<lora:a:1.0>:1.2)[dog <lora:b:1.0>"),
    "numbers of floats": ("<lora:a:1e-1:0_2> cat", [], "<lora:a:1e-1:0_2> cat"),
    "named": ("<lora:a:te=0.5:unet=2> cat", [], "<lora:a:te=0.5:unet=2> cat"),
    "named, with blanks": ("<lora:a:te= .5> cat", [], "<lora:a:0.5> cat"),
    "in upper case": ("<LoRA:a:unet=2> cat", [], "<lora:a:1.0:2.0> cat"),
    "without an end": ("cat <lora:b", ["a"], "<lora:a:1.0> cat <lora:b"),
}  # fmt: skip


def resolve(name: str, field: str) -> SimpleNamespace:
    name = name.lower()
    manifest = SimpleNamespace(name=name, origin=Origin("", "", 1, name * 64))
    return SimpleNamespace(manifest=manifest, key=name)


def lora_record(prompt: str, body: list[str], style: str = "lpw") -> ImageRecord:
    references = [LoraReference(name=name) for name in body]
    made = record(prompt=prompt, prompt_style=style, loras=references)
    tags = parse(prompt, style=PromptStyle(style)).lora_tags
    return replace(made, loras=collect(references, tags, resolve, 64))


def read_as_there(prompt: str) -> dict[str, tuple[float, float]]:
    """Read tags as AUTOMATIC1111 does: the last of a name is the one that counts.

    Returns:
        Weights of the text encoders and of the UNet, by name; without those that do nothing.
    """
    loras = {}
    for inside in re.findall("<(?:lora|lyco):([^>]+)>", prompt):
        name, *numbers = (part for part in inside.split(":") if "=" not in part)
        named = dict(part.split("=", 1) for part in inside.split(":") if "=" in part)
        text_encoder = float(named.get("te", numbers[0] if numbers else 1.0))
        unet = float(named.get("unet", numbers[1] if len(numbers) > 1 else text_encoder))
        loras[name] = (text_encoder, unet)
    return {name: weights for name, weights in loras.items() if any(weights)}


@pytest.mark.parametrize(("prompt", "body", "written"), PROMPTS.values(), ids=PROMPTS.keys())
def test_the_prompt_is_written_with_the_loras_that_were_used(
    prompt: str, body: list[str], written: str
) -> None:
    made = lora_record(prompt, body)
    text = read(parameters_text(made)).prompt
    assert text == written
    assert collect([], parse(text).lora_tags, resolve, 64) == made.loras
    assert read_as_there(text) == {
        lora.name: (lora.strength.text_encoder, lora.strength.unet) for lora in made.loras
    }


def test_a_bodys_loras_are_tags_in_a_style_that_has_none() -> None:
    made = lora_record("a (cat) <lora:b:1>", ["a"], style="plain")
    assert read(parameters_text(made)).prompt == "a (cat) <lora:b:1> <lora:a:1.0>"


PIECES = [
    "(", ")", "[", "]", ":1.3)", "\\", "a", " ", ",", " BREAK ", "<", ">", "<lora:", "<lora:a:1>",
    "<lora:b:-.5:2>", "<lyco:A>", "<lora:c:0>", "<lora: a :te=.1>",
    "<LORA:b:unet=1e-1>", "<lo", "ra:",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.lists(st.sampled_from("abc"), max_size=3),
    st.sampled_from(["lpw", "a1111", "comfy"]),
)
# Without the tag, the text around it is one.
@example("<lora:a:1><lo<lora:a:1>ra:b>", [], "lpw")
@example("<lora:", ["a"], "lpw")  # an appended tag's > would end it
def test_any_prompt_is_read_back_as_the_same_set_and_the_same_words(
    prompt: str, body: list[str], style: str
) -> None:
    if parse(prompt, style=PromptStyle(style)).refused_tags:
        reject()  # no image is made of it
    try:
        made = lora_record(prompt, body, style)
    except InvalidRequestError as refusal:
        if "add up to" not in str(refusal):
            raise
        reject()  # no image is made of it
    text = read(parameters_text(made)).prompt
    before, after = (parse(one, style=PromptStyle(style)) for one in (prompt, text))
    assert collect([], after.lora_tags, resolve, 64) == made.loras
    assert words(before) == words(after)


def words(prompt: Prompt) -> list[tuple[str, float]]:
    """Every character but blanks, with its weight; a break is one of weight 0."""
    texts = (
        ("|", 0.0) if isinstance(node, Break) else (node.text, node.weight)
        for node in prompt.nodes
        if not isinstance(node, LoraTag)
    )
    return [(one, weight) for text, weight in texts for one in text if not one.isspace()]


def test_hashes_identify_the_files_that_were_used() -> None:
    made = replace(
        record(),
        loras=(
            LoraUse("a", "0123456789abcdef" * 4, LoraStrength(1.0, 1.0), "a"),
            LoraUse("b-c", "fedcba9876543210" * 4, LoraStrength(0.5, 1.0), "b"),
        ),
        embeddings=(
            EmbeddingUse("bad, hands", "0011223344556677" * 4),
            EmbeddingUse("x", "a" * 64),
        ),
    )
    text = parameters_text(made)
    assert ', Lora hashes: "a: 0123456789, b-c: fedcba9876", ' in text
    assert ', TI hashes: "bad, hands: 001122334455, x: aaaaaaaaaaaa", ' in text
    assert read(text).pairs["Version"] == f"LPW-SDXL {__version__}"


NAMES = {
    "comma": "portraits, second edition",
    "colon": "studio: night",
    "line": "two\nlines",
    "quotes": 'the "real" one',
    "backslash": "c:\\models\\x",
    "all": '"a, b": \\\n\u732b"',
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_value_with_the_layouts_own_marks_is_quoted(name: str) -> None:
    pairs = read(parameters_text(replace(record(), model_name=name))).pairs
    assert pairs["Model"] == name
    assert pairs["Version"] == f"LPW-SDXL {__version__}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_value_is_read_back(name: str) -> None:
    assert read(parameters_text(replace(record(), model_name=name))).pairs["Model"] == name


@pytest.mark.parametrize("scheduler", SchedulerName)
def test_a_scheduler_is_one_name(scheduler: SchedulerName) -> None:
    pairs = read(parameters_text(replace(record(), scheduler=scheduler))).pairs
    assert pairs["Sampler"] == scheduler
    assert "Schedule type" not in pairs


def test_a_prompt_that_changes_by_step_is_kept_as_it_was_written() -> None:
    prompt = "# <lora:old:1>\na [red:blue:0.4] [cat|dog] AND (snow:1.2) :0.5"
    assert read(parameters_text(record(prompt=prompt, prompt_style="a1111"))).prompt == prompt


def test_a_lora_is_not_appended_to_a_comment() -> None:
    made = replace(
        record(prompt="a cat # mine", prompt_style="a1111"),
        loras=(LoraUse("a", "01" * 32, LoraStrength(1.0, 1.0), "a"),),
    )
    written = read(parameters_text(made)).prompt
    assert written.endswith(" a cat # mine")
    assert written.startswith("<lora:")
