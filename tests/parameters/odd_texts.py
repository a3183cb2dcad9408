"""Texts that lack something or hold values that no request may have; and those that are refused."""

from __future__ import annotations

from tests.parameters.case import USUAL_PAIRS, Case, drawn

STYLE = {"prompt_style": "a1111-original"}

CASES = [
    Case("a prompt alone", "a cat", {"prompt": "a cat", **STYLE}, ["missing"],
         ["steps, sampler, cfg scale, seed, size"]),
    Case(
        "prompts alone",
        "a cat\nNegative prompt: bad",
        {"prompt": "a cat", "negative_prompt": "bad", **STYLE},
        ["missing"],
    ),
    Case(
        "a prompt that looks like pairs",
        "cat: black, dog: white, house: red",
        {"prompt": "cat: black, dog: white, house: red", **STYLE},
        ["missing"],
    ),
    Case(
        "a few pairs",
        "a cat\nSteps: 20, Seed: 1234",
        drawn("a cat", scheduler=None, guidance_scale=None, width=None, height=None),
        ["missing"],
        ["sampler, cfg scale, size"],
    ),
    Case(
        "no steps",
        "a cat\nSampler: Euler a, CFG scale: 7, Seed: 1234, Size: 832x1216",
        drawn("a cat", num_inference_steps=None),
        ["missing"],
        ["steps"],
    ),
    Case(
        "values that are none",
        "a cat\nSteps: many, Sampler: , CFG scale: high, Seed: x, Size: big, Clip skip: two,"
        " ENSD: y, Variation seed: z, Variation seed strength: 0.5",
        drawn(
            "a cat", num_inference_steps=None, guidance_scale=None, seed=None, width=None,
            height=None, scheduler=None, variation_strength=0.5,
        ),
        ["ENSD", "Variation seed", "Steps", "CFG scale", "Seed", "Size", "Clip skip", "missing"],
    ),
    Case(
        "values beyond all limits",
        "a cat\nSteps: 500, Sampler: Euler a, CFG scale: 1000, Seed: 36893488147419103232,"
        " Size: 4096x1001",
        drawn(
            "a cat", num_inference_steps=150, guidance_scale=None, seed=None, width=2048,
            height=496,
        ),
        ["Steps", "CFG scale", "Seed", "Size"],
    ),
    Case(
        "a size that is not a multiple of 8",
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 837x1217",
        drawn("a cat"),
        ["Size"],
    ),
    Case(
        "a small size",
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 32x32",
        drawn("a cat", width=None, height=None),
        ["Size"],
    ),
    Case(
        "a drawn seed",
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: -1, Size: 832x1216",
        drawn("a cat", seed=None),
    ),
    Case(
        "no steps at all",
        "a cat\nSteps: 0, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 832x1216",
        drawn("a cat", num_inference_steps=None),
        ["Steps"],
    ),
    Case("NULs", f"a\0 cat\n{USUAL_PAIRS}\0\0", drawn("a cat")),
    Case("a quote without an end", f'a cat\n{USUAL_PAIRS}, Model: "x, Clip skip: 3',
         drawn("a cat", clip_skip=1), ["Model"]),
    Case("a list without an end", f"a cat\n{USUAL_PAIRS}, Civitai resources: [[[[, Clip skip: 3",
         drawn("a cat", clip_skip=1)),
    Case(
        "a key twice",
        f"a cat\nSeed: 5, {USUAL_PAIRS}",
        drawn("a cat"),
    ),
]  # fmt: skip

REFUSED = {
    "empty": ("", "parameters is empty"),
    "blank": (" \n\t\0", "parameters is empty"),
    "ComfyUI's graph": ('{"3": {"class_type": "KSampler", "inputs": {}}}', "JSON of ComfyUI"),
    "ComfyUI's workflow": ('{"last_node_id": 9, "nodes": []}', "JSON of ComfyUI"),
    "InvokeAI": ('{"app_version": "invokeai 4", "seed": 1}', "JSON of InvokeAI"),
    "NovelAI": ('{"prompt": "a cat", "uc": "bad", "steps": 28}', "JSON of NovelAI"),
    "SwarmUI": ('{"sui_image_params": {"prompt": "a"}}', "JSON of SwarmUI"),
    "Fooocus": ('{"fooocus_v2_expansion": "a"}', "JSON of Fooocus"),
    "other JSON": ('{"a": 1}', "JSON of another program"),
    "a prompt beyond all": ("a" * 40_000, "prompt has 40000 characters"),
}
