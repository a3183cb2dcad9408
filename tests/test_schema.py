from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.request_reading import parse_batch, parse_info, parse_inspection, parse_request
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SigmaScheduleType
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, LoraReference
from lpw_sdxl.settings import Settings

LIMITS = RequestLimits(
    max_prompt_characters=100,
    max_steps=50,
    max_size=ImageSize(512, 1024),
    max_batch_items=3,
    max_loras=2,
    max_image_bytes=1000,
)

REFUSED = {
    "not JSON": ("{", None, "not valid JSON"),
    "not an object": ("[1]", None, "object"),
    "missing prompt": ("{}", "prompt", "missing"),
    "prompt of the wrong type": ({"prompt": 5}, "prompt", "string"),
    "null prompt": ({"prompt": None}, "prompt", "string"),
    "unknown field": ({"prompt": "a", "widht": 64}, "widht", "did you mean width?"),
    "unknown field unlike any": ({"prompt": "a", "zzz": 1}, "zzz", "negative_prompt"),
    "NaN": ('{"prompt": "a", "guidance_scale": NaN}', "guidance_scale", "finite"),
    "infinity": ('{"prompt": "a", "guidance_scale": 1e999}', "guidance_scale", "finite"),
    "width of 1023": ({"prompt": "a", "width": 1023}, "width", "multiple of 8"),
    "height of 56": ({"prompt": "a", "height": 56}, "height", "at least 64"),
    "width over the server's": ({"prompt": "a", "width": 1032}, "width", "at most 1024"),
    "height over the server's": ({"prompt": "a", "height": 520}, "height", "at most 512"),
    "0 steps": ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps", "1"),
    "51 steps": ({"prompt": "a", "num_inference_steps": 51}, "num_inference_steps", "at most 50"),
    "half a step": ({"prompt": "a", "num_inference_steps": 1.5}, "num_inference_steps", "integer"),
    "steps as text": ({"prompt": "a", "num_inference_steps": "9"}, "num_inference_steps", "integ"),
    "steps as true": ({"prompt": "a", "num_inference_steps": True}, "num_inference_steps", "integ"),
    "negative guidance": ({"prompt": "a", "guidance_scale": -1}, "guidance_scale", "0"),
    "interval of one": (
        {"prompt": "a", "guidance_interval": [1]},
        "guidance_interval",
        "guidance_interval has 1 items; at least 2 would be right",
    ),
    "interval of three": (
        {"prompt": "a", "guidance_interval": [0, 0.5, 1]},
        "guidance_interval",
        "guidance_interval has 3 items; at most 2 would be right",
    ),
    "interval as a text": (
        {"prompt": "a", "guidance_interval": "secret"},
        "guidance_interval",
        "guidance_interval is a string; a list would be right",
    ),
    "interval of texts": (
        {"prompt": "a", "guidance_interval": ["0", 1]},
        "guidance_interval.0",
        "guidance_interval.0 is a string; a number would be right",
    ),
    "interval beyond all steps": (
        {"prompt": "a", "guidance_interval": [0, 2]},
        "guidance_interval.1",
        "guidance_interval.1 is 2; at most 1 would be right",
    ),
    "interval backwards": (
        {"prompt": "a", "guidance_interval": [0.8, 0.2]},
        "guidance_interval",
        "guidance_interval: the second share is not larger than the first",
    ),
    "interval of nothing": (
        {"prompt": "a", "guidance_interval": [0.5, 0.5]},
        "guidance_interval",
        "guidance_interval: the second share is not larger than the first",
    ),
    "rescale of 2": ({"prompt": "a", "guidance_rescale": 2}, "guidance_rescale", "1"),
    "seed below -1": ({"prompt": "a", "seed": -2}, "seed", "at least -1"),
    "seed of -1 as a text": ({"prompt": "a", "seed": "-1"}, "seed", "integer"),
    "seed of -1.5": ('{"prompt": "a", "seed": -1.5}', "seed", "integer"),
    "seed of 65 bits": ({"prompt": "a", "seed": 2**64}, "seed", "18446744073709551615"),
    "unknown scheduler": ({"prompt": "a", "scheduler": "Eulr"}, "scheduler", "'Euler a'"),
    "misspelled scheduler": (
        {"prompt": "a", "scheduler": "DPM 2M++ Kerras"},
        "scheduler",
        "did you mean 'DPM++ 2M Karras'?",
    ),
    "scheduler unlike any": ({"prompt": "a", "scheduler": "z" * 99}, "scheduler", "known are"),
    "scheduler as number": ({"prompt": "a", "scheduler": 5}, "scheduler", "'DDIM'"),
    "empty scheduler": ({"prompt": "a", "scheduler": ""}, "scheduler", "known are 'Euler'"),
    "unknown schedule type": (
        {"prompt": "a", "schedule_type": "trailling"},
        "schedule_type",
        "not a schedule type; did you mean 'trailing'? known are 'leading', 'trailing', 'linspace'",
    ),
    "schedule type of A1111": (
        {"prompt": "a", "schedule_type": "Karras"},
        "schedule_type",
        "with sampler_implementation 'k_diffusion' it would be right",
    ),
    "schedule type as number": ({"prompt": "a", "schedule_type": 1}, "schedule_type", "'linspace'"),
    "empty schedule type": ({"prompt": "a", "schedule_type": ""}, "schedule_type", "known are"),
    "unknown style": ({"prompt": "a", "prompt_style": "x"}, "prompt_style", "lpw"),
    "unknown format": ({"prompt": "a", "image_format": "gif"}, "image_format", "'webp'"),
    "deadline of 0": ({"prompt": "a", "deadline_s": 0}, "deadline_s", "greater than 0"),
    "long prompt": ({"prompt": "secret " * 20}, "prompt", "at most 100"),
    "long negative": ({"prompt": "a", "negative_prompt": "s" * 101}, "negative_prompt", "100"),
    "LoRA without a name": (
        {"prompt": "a", "loras": [{"name": ""}]},
        "loras.0.name",
        "has 0 characters; at least 1",
    ),
    "LoRA name": ({"prompt": "a", "loras": [{"name": "x" * 101}]}, "loras.0.name", "at most 100"),
    "LoRA field": (
        {"prompt": "a", "loras": [{"name": "x", "strength": 1}]},
        "loras.0.strength",
        "not a field of a LoRA; known are name, weight, text_encoder_weight",
    ),
    "null for a list": ({"prompt": "a", "loras": None}, "loras", "loras is null; a list would be"),
    "a number of 4,300 digits": (
        f'{{"prompt": "a", "width": {"9" * 4300}}}',
        "width",
        "width is a number of 4300 characters",
    ),
    "misspelt and missing": ({"promt": "a"}, "promt", "did you mean prompt?"),
    "an unprintable field": ({"prompt": "a", "a\n": 1}, "a\n", '"a\\n" is not a field'),
    "LoRA weight": (
        {"prompt": "a", "loras": [{"name": "x", "weight": 11}]},
        "loras.0.weight",
        "10",
    ),
    "LoRA weight of the encoders": (
        {"prompt": "a", "loras": [{"name": "x"}, {"name": "y", "text_encoder_weight": -10.1}]},
        "loras.1.text_encoder_weight",
        "-10",
    ),
    "LoRA weight that is none": (
        '{"prompt": "a", "loras": [{"name": "x", "text_encoder_weight": NaN}]}',
        "loras.0.text_encoder_weight",
        "finite",
    ),
    "too many LoRAs": ({"prompt": "a", "loras": [{"name": "x"}] * 17}, "loras", "16"),
    "lone surrogate": ('{"prompt": "\\ud800"}', None, "JSON"),
}


@pytest.mark.parametrize(("body", "field", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_request_is_refused_by_field(body: object, field: str | None, says: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(InvalidRequestError) as refusal:
        parse_request(text, LIMITS)
    assert refusal.value.field == field
    assert says in refusal.value.message
    assert "secret" not in refusal.value.message


def test_the_defaults_are_the_documented_ones() -> None:
    request = parse_request('{"prompt": "a"}', LIMITS)
    assert request.model_dump(exclude={"prompt"}, mode="json") == {
        "negative_prompt": "",
        "width": None,
        "height": None,
        "num_inference_steps": 30,
        "guidance_scale": 5.0,
        "guidance_rescale": 0.0,
        "guidance_interval": None,
        "seed": None,
        "scheduler": None,
        "schedule_type": None,
        "sampler_implementation": "diffusers",
        "hires": None,
        "eta": None,
        "noise_source": None,
        "timestep_rounding": None,
        "eta_noise_seed_delta": 0,
        "variation_seed": None,
        "variation_strength": 0.0,
        "prompt_style": "lpw",
        "clip_skip": None,
        "loras": [],
        "image_format": "png",
        "image": None,
        "strength": 0.75,
        "resize_mode": "stretch",
        "mask_image": None,
        "invert_mask": False,
        "mask_blur": 0.0,
        "masked_content": "original",
        "only_masked": False,
        "only_masked_padding": 32,
        "paste_back": True,
        "deadline_s": None,
        "request_id": None,
    }


@pytest.mark.parametrize("interval", [None, [0, 1], [0.2, 0.8]])
def test_an_interval_is_a_list_of_two_shares_or_null(interval: list[float] | None) -> None:
    request = parse_request(json.dumps({"prompt": "a", "guidance_interval": interval}), LIMITS)
    assert request.guidance_interval == interval


def test_an_inspection_takes_no_more_steps_than_an_image() -> None:
    for steps in (1, 50):
        body = json.dumps({"prompt": "a", "num_inference_steps": steps, "scheduler": "Heun"})
        asked = parse_inspection(body, LIMITS)
        assert (asked.num_inference_steps, asked.scheduler) == (steps, SchedulerName.HEUN)
    with pytest.raises(InvalidRequestError, match="is 51; at most 50 is accepted here") as refusal:
        parse_inspection('{"prompt": "a", "num_inference_steps": 51}', LIMITS)
    assert refusal.value.field == "num_inference_steps"


def test_an_inspection_without_steps_is_taken_by_every_server() -> None:
    parse_inspection('{"prompt": "a"}', replace(LIMITS, max_steps=1))


def test_a_lora_has_weight_1_for_all_parts_unless_told() -> None:
    loras = [{"name": "a"}, {"name": "b", "weight": 0, "text_encoder_weight": -10}]
    request = parse_request(json.dumps({"prompt": "a", "loras": loras}), LIMITS)
    assert request.loras == [
        LoraReference(name="a", weight=1.0, text_encoder_weight=None),
        LoraReference(name="b", weight=0.0, text_encoder_weight=-10.0),
    ]


def test_limits_are_those_of_the_settings() -> None:
    assert RequestLimits.from_settings(Settings(max_loras=7)).max_loras == 7


def test_a_whole_number_is_a_guidance_scale() -> None:
    assert parse_request('{"prompt": "a", "guidance_scale": 7}', LIMITS).guidance_scale == 7.0


SPELLINGS = {
    "Euler": ["euler", "EULER", "k_euler", "EulerDiscreteScheduler"],
    "Euler a": ["euler_a", "k_euler_a", "euler_ancestral", "EulerAncestralDiscreteScheduler"],
    "DPM++ 2M": ["dpmpp_2m", "dpm++ 2m", "k_dpmpp_2m", "DPMSolverMultistepScheduler"],
    "DPM++ 2M Karras": ["dpmpp_2m_karras", "DPM++ 2M karras", "k_dpmpp_2m_ka"],
    "DPM++ 2M SDE": ["dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "DPM++ 2M SDE GPU"],
    "DPM++ 2M SDE Karras": ["dpmpp_2m_sde_karras", "dpmpp_2m_sde_gpu_karras", "k_dpmpp_2m_sde_ka"],
    "DPM++ 3M SDE": ["dpmpp_3m_sde", "dpmpp_3m_sde_gpu"],
    "DPM++ 3M SDE Karras": ["dpmpp_3m_sde_gpu_karras", "k_dpmpp_3m_sde_ka"],
    "DPM++ SDE": ["dpmpp_sde", "dpmpp_sde_gpu", "DPMSolverSDEScheduler"],
    "DPM++ SDE Karras": ["dpmpp_sde_gpu_karras", "k_dpmpp_sde_ka"],
    "DDIM": ["ddim", "DDIMScheduler"],
    "UniPC": ["uni_pc", "unipc", "UniPCMultistepScheduler"],
    "Heun": ["heun", "k_heun", "HeunDiscreteScheduler"],
    "LMS": ["lms", "k_lms", "LMSDiscreteScheduler"],
    "LMS Karras": ["lms karras", "k_lms_ka"],
    "LCM": ["lcm", "LCMScheduler"],
    "TCD": ["tcd", "TCDScheduler"],
}


def test_the_spellings_below_are_of_every_scheduler() -> None:
    assert list(SPELLINGS) == list(SchedulerName)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [(spelling, name) for name, all_ in SPELLINGS.items() for spelling in (name, *all_)],
)
def test_a_scheduler_is_known_by_the_names_that_people_use(spelling: str, name: str) -> None:
    request = parse_request(json.dumps({"prompt": "a", "scheduler": spelling}), LIMITS)
    assert request.scheduler is SchedulerName(name)
    assert GenerationRequest(prompt="a", scheduler=spelling).scheduler is SchedulerName(name)
    assert GenerationRequest(prompt="a", scheduler=SchedulerName(name)) == request


# ComfyUI's (SAMPLER_NAMES of its comfy/samplers.py) and A1111's, but for those above.
OTHER_SAMPLERS = [
    "euler_cfg_pp", "euler_ancestral_cfg_pp", "heunpp2", "exp_heun_2_x0", "exp_heun_2_x0_sde",
    "dpm_fast", "dpm_adaptive",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde_heun_gpu",
    "ddpm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp",
    "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation",
    "gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece",
    "uni_pc_bh2", "DPM fast", "DDIM CFG++",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHER_SAMPLERS)
def test_a_sampler_that_is_not_served_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="known are 'Euler', 'Euler a'"):
        parse_request(json.dumps({"prompt": "a", "scheduler": name}), LIMITS)


@pytest.mark.parametrize(
    "name",
    [
        "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde_heun",
        "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart", "PLMS",
    ],
)  # fmt: skip
def test_a_sampler_of_the_other_family_is_refused_with_that_family(name: str) -> None:
    fields = {"prompt": "a", "scheduler": name}
    with pytest.raises(InvalidRequestError, match="with sampler_implementation 'k_diffusion'"):
        parse_request(json.dumps(fields), LIMITS)
    fields["sampler_implementation"] = "k_diffusion"
    assert isinstance(parse_request(json.dumps(fields), LIMITS).scheduler, SamplerName)


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        ("euler", None, (SamplerName.EULER, None)),
        ("dpmpp_2m", "karras", (SamplerName.DPMPP_2M, SigmaScheduleType.KARRAS)),
        ("DPM++ 2M Karras", None, (SchedulerName.DPMPP_2M_KARRAS, None)),
        ("k_dpmpp_2m_ka", None, (SchedulerName.DPMPP_2M_KARRAS, None)),
        (None, "sgm_uniform", (None, SigmaScheduleType.SGM_UNIFORM)),
    ],
)
def test_with_k_diffusion_names_are_a1111s(name: Any, type_: Any, expected: Any) -> None:
    fields = {"scheduler": name, "schedule_type": type_, "sampler_implementation": "k_diffusion"}
    request = parse_request(json.dumps({"prompt": "a"} | fields), LIMITS)
    assert (request.scheduler, request.schedule_type) == expected
    assert (type(request.scheduler), type(request.schedule_type)) == tuple(map(type, expected))
    assert GenerationRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        ({"scheduler": "TCD"}, "scheduler", "sampler_implementation 'diffusers'"),
        ({"scheduler": "DPM fast"}, "scheduler", "is not served"),
        ({"scheduler": "Euler Karras"}, "scheduler", "with schedule_type 'Karras'"),
        ({"schedule_type": "trailing"}, "schedule_type", "sampler_implementation 'diffusers'"),
        ({"schedule_type": "Karas"}, "schedule_type", "did you mean 'Karras'?"),
        ({"eta": 1.1}, "eta", "at most 1"),
        ({"noise_source": "gpu"}, "noise_source", "'cpu' or 'nv'"),
        ({"timestep_rounding": "floor"}, "timestep_rounding", "'interpolate' or 'nearest'"),
        ({"variation_seed": 3}, "variation_seed", "where variation_strength is 0"),
    ],
)
def test_a_bad_choice_of_k_diffusion_is_refused(fields: Any, field: str, part: str) -> None:
    body = {"prompt": "a", "sampler_implementation": "k_diffusion"} | fields
    with pytest.raises(InvalidRequestError, match=re.escape(part)) as refusal:
        check_limits(parse_request(json.dumps(body), LIMITS), LIMITS)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"eta": 0.5},
        {"noise_source": "cpu"},
        {"timestep_rounding": "nearest"},
        {"eta_noise_seed_delta": 31337},
        {"variation_strength": 0.1},
    ],
)
def test_what_is_about_k_diffusion_is_refused_without_it(fields: Any) -> None:
    text = json.dumps({"prompt": "a"} | fields)
    with pytest.raises(
        InvalidRequestError, match="is about the samplers of k-diffusion"
    ) as refusal:
        check_limits(parse_request(text, LIMITS), LIMITS)
    assert refusal.value.field in fields


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dpmpp_2m_sde_heun_gpu", "DPM++ 2M SDE"),
        ("dpmpp_2m_cfg_pp", "DPM++ 2M"),
        ("uni_pc_bh2", "UniPC"),
        ("heunpp2", "Heun"),
    ],
)
def test_a_sampler_that_is_not_served_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(f"did you mean '{nearest}'?")):
        parse_request(json.dumps({"prompt": "a", "scheduler": name}), LIMITS)


@pytest.mark.parametrize("seed", [-1, None])
def test_minus_1_is_no_seed_as_null_is(seed: int | None) -> None:
    request = parse_request(json.dumps({"prompt": "a", "seed": seed}), LIMITS)
    assert request.seed is None
    assert GenerationRequest(prompt="a", seed=seed) == request


TYPE_SPELLINGS = {
    "leading": ["Leading", "LEADING"],
    "trailing": ["Trailing", "sgm_uniform", "SGM Uniform", "SGMUniform", "sgm-uniform"],
    "linspace": ["Linspace", "lin space"],
}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [(spelling, name) for name, all_ in TYPE_SPELLINGS.items() for spelling in (name, *all_)],
)
def test_a_schedule_type_is_known_by_the_names_that_people_use(spelling: str, name: str) -> None:
    request = parse_request(json.dumps({"prompt": "a", "schedule_type": spelling}), LIMITS)
    assert request.schedule_type is ScheduleType(name)
    assert GenerationRequest(prompt="a", schedule_type=spelling) == request
    assert GenerationRequest(prompt="a", schedule_type=ScheduleType(name)) == request


def test_the_json_schema_lists_the_schedulers() -> None:
    schema = GenerationRequest.model_json_schema()
    assert schema["$defs"]["SchedulerName"]["enum"] == list(SchedulerName)
    assert schema["$defs"]["ScheduleType"]["enum"] == list(ScheduleType) == list(TYPE_SPELLINGS)


@pytest.mark.parametrize("body", ['{"requests": []}', "{}", '{"requests": [1, 2, 3, 4]}'])
def test_a_batch_is_a_list_of_a_few_items(body: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_batch(body, LIMITS)
    assert refusal.value.field == "requests"


def test_a_bad_item_does_not_spoil_a_batch() -> None:
    good, *bad = parse_batch('{"requests": [{"prompt": "a"}, {"prompt": 5}, null]}', LIMITS).items
    assert isinstance(good, GenerationRequest)
    assert [type(item) for item in bad] == [InvalidRequestError, InvalidRequestError]


def test_an_inspection_keeps_the_limit_of_characters() -> None:
    with pytest.raises(InvalidRequestError, match="at most 100"):
        parse_inspection(json.dumps({"prompt": "s" * 101}), LIMITS)


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_info_takes_nothing(body: bytes) -> None:
    parse_info(body)


@pytest.mark.parametrize("body", [b"[]", b'{"verbose": true}', b"null"])
def test_info_refuses_anything_else(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_info(body)
