"""Texts of Forge and of other programs that write A1111's layout."""

from __future__ import annotations

from tests.parameters.case import FORGE, USUAL_PAIRS, Case, drawn

CASES = [
    Case(
        "Forge",
        "a cat\nNegative prompt: bad\nSteps: 20, Sampler: DPM++ 2M SDE, Schedule type: SGM Uniform,"
        " CFG scale: 7, Seed: 1234, Size: 832x1216, Model: moonlightXL_v20, Clip skip: 2,"
        " RNG: CPU, Version: f2.0.1v1.10.1-previous-669-gdfdcbab6, Module 1: sdxl_vae",
        drawn(
            "a cat", "bad",
            scheduler="DPM++ 2M SDE", schedule_type="SGM Uniform", noise_source="cpu",
            timestep_rounding="nearest",
        ),
        ["VAE"],
        ["Module 1: sdxl_vae"],
    ),
    Case(
        "the first Forge, made from A1111 1.8",
        "a cat\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1234, Size: 832x1216,"
        " Version: f0.0.17v1.8.0rc-latest-276-g29be1da7",
        {**drawn("a cat", scheduler="DPM++ 2M", schedule_type="Uniform"), **FORGE},
    ),
    Case(
        "Forge without a schedule type",
        "a cat\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1234, Size: 832x1216,"
        " Version: neo-2.24",
        {**drawn("a cat", scheduler="DPM++ 2M"), **FORGE},
    ),
    Case(
        "Forge's own schedule type",
        "a cat\nSteps: 20, Sampler: Euler, Schedule type: Turbo, CFG scale: 7, Seed: 1234,"
        " Size: 832x1216, Distilled CFG Scale: 3.5, Version: f2.0.1v1.10.1",
        {**drawn("a cat", scheduler="Euler"), **FORGE},
        ["Schedule type", "Distilled CFG Scale"],
    ),
    Case(
        "reForge",
        f"a cat\n{USUAL_PAIRS}, Schedule type: Align Your Steps GITS, Version: f1.0.0v2-v1.10.1RC",
        {**drawn("a cat", schedule_type="Align Your Steps GITS"), **FORGE},
    ),
    Case(
        "SD.Next",
        "a cat\nNegative prompt: bad\nSteps: 20, Size: 832x1216, Sampler: DPM++ 2M, Seed: 1234,"
        " CFG scale: 7, CFG rescale: 0.7, App: SD.Next, Version: 8b73cb6, Parser: native,"
        " Pipeline: StableDiffusionXLPipeline, Operations: txt2img, Sampler sigma: karras,"
        " LoRA networks: ink",
        drawn(
            "a cat", "bad",
            sampler_implementation=None, noise_source=None, prompt_style="a1111",
            scheduler="DPM++ 2M Karras", guidance_rescale=0.7,
        ),
        ["Parser", "Additional networks", "App"],
    ),
    Case(
        "a node of ComfyUI",
        "a cat\nNegative prompt: bad\nSteps: 20, Sampler: dpmpp_2m_sde_karras, CFG scale: 7.0,"
        ' Seed: 1234, Size: 832x1216, Clip skip: 2, Hashes: {"model": "0a1b2c3d4e",'
        ' "lora:detail": "AABBCCDDEE"}, Version: ComfyUI',
        drawn(
            "a cat", "bad",
            scheduler="DPM++ 2M SDE", schedule_type="Karras", noise_source="cpu",
            timestep_rounding="nearest", prompt_style="comfy",
        ),
        ["Version"],
    ),
    Case(
        "Fooocus",
        f"a cat\n{USUAL_PAIRS}, Version: Fooocus v2.5.5",
        drawn("a cat"),
        ["Version"],
    ),
    Case(
        "Draw Things",
        "a cat\nSteps: 20, Sampler: DPM++ 2M Karras, Guidance Scale: 7.0, Seed: 1234,"
        " Size: 832x1216, Model: other.ckpt, Strength: 1.0, Seed Mode: Scale Alike",
        drawn("a cat", scheduler="DPM++ 2M", schedule_type="Karras"),
        ["Model", "Strength", "Seed Mode"],
    ),
    Case(
        "a LoRA of another file by the same name",
        f'<lora:detail:1>\n{USUAL_PAIRS}, Hashes: {{"lora:detail": "1122334455"}}',
        drawn("<lora:detail:1>"),
        ["LoRA"],
        ["detail"],
    ),
    Case(
        "a LoRA by another name",
        f'<lora:fineDetails:1>\n{USUAL_PAIRS}, Lora hashes: "fineDetails: AABBCCDDEE"',
        drawn(""),
        ["LoRA"],
        ["fineDetails"],
    ),
]  # fmt: skip
