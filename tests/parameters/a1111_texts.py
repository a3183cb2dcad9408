"""Texts as A1111 itself writes them, of several of its versions."""

from __future__ import annotations

from tests.parameters.case import MODEL, USUAL_PAIRS, Case, drawn

V110 = "Version: v1.10.1"
HEAD = "a cat, (best quality:1.2)\nNegative prompt: bad, worst quality\n"
PROMPTS = ("a cat, (best quality:1.2)", "bad, worst quality")


def line(*pairs: str) -> str:
    return HEAD + ", ".join((USUAL_PAIRS, *pairs, V110))


CASES = [
    Case(
        "plain",
        f"{HEAD}Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1234,"
        f" Size: 832x1216, {MODEL}, {V110}",
        drawn(*PROMPTS, scheduler="DPM++ 2M", schedule_type="Karras"),
    ),
    Case(
        "Automatic",
        f"{HEAD}Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 7, Seed: 1234,"
        f" Size: 832x1216, {V110}",
        drawn(*PROMPTS, scheduler="DPM++ 2M"),
    ),
    Case(
        "no negative prompt",
        f"a cat\n{USUAL_PAIRS}, {V110}",
        drawn("a cat"),
    ),
    Case("no prompt", f"\nNegative prompt: bad\n{USUAL_PAIRS}", drawn("", "bad")),
    Case("no prompts", USUAL_PAIRS, drawn("")),
    Case(
        "prompts of several lines",
        f"a cat,\n\nBREAK\na dog\nNegative prompt: bad,\nworst\n{USUAL_PAIRS}",
        drawn("a cat,\n\nBREAK\na dog", "bad,\nworst"),
    ),
    Case(
        "old name with Karras",
        f"{HEAD}Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234, Size: 832x1216,"
        " Version: v1.6.0",
        drawn(*PROMPTS, scheduler="DPM++ 2M", schedule_type="Karras"),
    ),
    Case(
        "old name without Karras",
        f"{HEAD}Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1234, Size: 832x1216,"
        " Version: v1.8.0",
        drawn(*PROMPTS, scheduler="DPM++ 2M", schedule_type="Uniform"),
    ),
    Case(
        "new name without a schedule type",
        f"{HEAD}Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1234, Size: 832x1216, {V110}",
        drawn(*PROMPTS, scheduler="DPM++ 2M"),
    ),
    Case(
        "old exponential",
        "a cat\nSteps: 20, Sampler: DPM++ 2M SDE Heun Exponential, CFG scale: 7, Seed: 1234,"
        " Size: 832x1216",
        drawn("a cat", scheduler="DPM++ 2M SDE Heun", schedule_type="Exponential"),
    ),
    Case(
        "old override of the schedule",
        f"a cat\n{USUAL_PAIRS}, Schedule type: karras, Schedule rho: 5, Version: v1.7.0",
        drawn("a cat", schedule_type="Karras"),
        ["Bounds of a schedule"],
    ),
    Case(
        "Restart was always Karras",
        "a cat\nSteps: 20, Sampler: Restart, CFG scale: 7, Seed: 1234, Size: 832x1216",
        drawn("a cat", scheduler="Restart"),
    ),
    Case(
        "DDIM takes no schedule type",
        "a cat\nSteps: 20, Sampler: DDIM, Schedule type: Karras, CFG scale: 7, Seed: 1234,"
        f" Size: 832x1216, Eta DDIM: 0.5, {V110}",
        drawn("a cat", scheduler="DDIM", eta=0.5),
    ),
    Case(
        "a sampler that is not served",
        "a cat\nSteps: 20, Sampler: DPM adaptive, Schedule type: Karras, CFG scale: 7, Seed: 1234,"
        f" Size: 832x1216, {V110}",
        drawn("a cat", scheduler=None, schedule_type="Karras"),
        ["Sampler"],
    ),
    Case("RNG CPU", line("RNG: CPU"), drawn(*PROMPTS, noise_source="cpu")),
    Case("RNG NV", line("RNG: NV"), drawn(*PROMPTS)),
    Case("RNG of a Mac", line("RNG: MPS"), drawn(*PROMPTS), ["RNG"]),
    Case("no norm", line("Emphasis: No norm"), drawn(*PROMPTS, prompt_style="a1111")),
    Case("original", line("Emphasis: Original"), drawn(*PROMPTS)),
    Case(
        "ignored weights",
        line("Emphasis: Ignore"),
        drawn(*PROMPTS, prompt_style="a1111"),
        ["Emphasis"],
    ),
    Case("clip skip 2", line("Clip skip: 2"), drawn(*PROMPTS)),
    Case("clip skip 4", line("Clip skip: 4"), drawn(*PROMPTS, clip_skip=2)),
    Case("clip skip beyond all", line("Clip skip: 99"), drawn(*PROMPTS), ["Clip skip"]),
    Case("ENSD", line("ENSD: 31337"), drawn(*PROMPTS, eta_noise_seed_delta=31337)),
    Case("eta", line("Eta: 0.67"), drawn(*PROMPTS, eta=0.67)),
    Case("too much eta", line("Eta: 2"), drawn(*PROMPTS), ["Eta"]),
    Case(
        "a variation",
        line("Variation seed: 77, Variation seed strength: 0.25"),
        drawn(*PROMPTS, variation_seed=77, variation_strength=0.25),
    ),
    Case("a variation of nothing", line("Variation seed: 77"), drawn(*PROMPTS)),
    Case(
        "seed resize",
        line("Seed resize from: 512x512"),
        drawn(*PROMPTS),
        ["Seed resize from"],
    ),
    Case("seed resize off", line("Seed resize from: -1x-1"), drawn(*PROMPTS)),
    Case("CFG rescale", line("CFG rescale: 0.7"), drawn(*PROMPTS, guidance_rescale=0.7)),
    Case(
        "guidance left out",
        line("Skip Early CFG: 0.1", "NGMS: 2", "Pad conds: True"),
        drawn(*PROMPTS),
        ["Skip Early CFG", "NGMS", "Pad conds"],
    ),
    Case(
        "a second pass",
        line(
            "Denoising strength: 0.4", "Hires upscale: 2", "Hires steps: 10",
            "Hires upscaler: 4x-UltraSharp", 'Hires prompt: "a, b: c"',
        ),
        drawn(
            *PROMPTS,
            hires={
                "scale": 2.0,
                "steps": 10,
                "strength": 0.4,
                "upscaler": "lanczos",
                "prompt": "a, b: c",
            },
        ),
        ["Hires upscaler"],
    ),
    Case(
        "a second pass of its own",
        line(
            "Denoising strength: 0.6", "Hires resize: 1200x0", "Hires CFG Scale: 3",
            "Hires upscaler: Latent (nearest-exact)", "Hires sampler: DPM++ 2M SDE Karras",
            'Hires negative prompt: "x, y"', "Hires steps: 0",
            "Hires checkpoint: Use same checkpoint",
        ),
        drawn(
            *PROMPTS,
            hires={
                "width": 1200,
                "strength": 0.6,
                "upscaler": "latent_nearest_exact",
                "negative_prompt": "x, y",
                "guidance_scale": 3.0,
                "scheduler": "DPM++ 2M SDE",
                "schedule_type": "Karras",
            },
        ),
    ),
    Case(
        "a second pass that can't be made so",
        line(
            "Denoising strength: 1.6", "Hires upscale: 20", "Hires upscaler: Latent",
            "Hires sampler: DPM fast", "Hires checkpoint: other", "Hires Module 1: x",
        ),
        drawn(*PROMPTS, hires={}),
        [
            "Hires upscale",
            "Hires sampler",
            "Hires checkpoint",
            "Hires Module 1",
            "Denoising strength",
        ],
    ),
    Case(
        "from a picture",
        line("Denoising strength: 0.55"),
        drawn(*PROMPTS),
        ["Denoising strength"],
        ["0.55"],
    ),
    Case(
        "from a picture and a mask",
        line(
            "Denoising strength: 0.75", "Mask blur: 4", "Inpaint area: Only masked",
            "Masked area padding: 32",
        ),
        drawn(*PROMPTS),
        ["Denoising strength"],
        ["0.75, Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32"],
    ),
    Case(
        "ADetailer with quotes",
        line(
            "ADetailer model: face_yolov8n.pt",
            'ADetailer prompt: "a \\"cat\\", Steps: 5, Seed: 2"',
            "ADetailer confidence: 0.3", "ADetailer denoising strength: 0.4",
        ),
        drawn(*PROMPTS),
        ["ADetailer"],
        ['ADetailer model: face_yolov8n.pt, ADetailer prompt: a "cat", Steps: 5, Seed: 2,'
         " ADetailer confidence: 0.3, ADetailer denoising strength: 0.4"],
    ),
    Case(
        "ControlNet",
        line('ControlNet 0: "Module: canny, Model: control [d14c016b], Weight: 1, (0, 1)"'),
        drawn(*PROMPTS),
        ["ControlNet"],
    ),
    Case(
        "options that change the picture",
        line(
            "Tiling: True", "Face restoration: CodeFormer", "Script: X/Y/Z plot",
            "VAE hash: 1a2b3c", "VAE: other.safetensors",
            "Refiner: refiner [7440042bbd]", "Refiner switch at: 0.8",
            "Token merging ratio: 0.3", "Sigma churn: 0.5", "Discard penultimate sigma: True",
        ),
        drawn(*PROMPTS),
        ["Tiling", "Face restoration", "Script", "Token merging ratio",
         "Discard penultimate sigma", "VAE", "Refiner", "Noise in a sampler"],
    ),
    Case("options that are off", line("Tiling: False", "Token merging ratio: 0"), drawn(*PROMPTS)),
    Case(
        "without effect",
        line("User: me", "Batch size: 4", "Batch pos: 2"),
        drawn(*PROMPTS),
    ),
    Case(
        "unknown keys",
        line("Foo bar: 3", 'Other/thing: "x, y"'),
        drawn(*PROMPTS),
        ["Foo bar", "Other/thing"],
        ["3", "x, y"],
    ),
    Case("another model", line("Model hash: 1111111111, Model: other"), drawn(*PROMPTS), ["Model"]),
    Case("the model by its name", line("Model: moonlightXL_v20"), drawn(*PROMPTS)),
    Case(
        "LoRAs that are here",
        f"<lora:detail:0.8> a cat <lora:ink style:1>\n{USUAL_PAIRS},"
        ' Lora hashes: "detail: 0123456789ab, ink style: abcdef012345"',
        drawn("<lora:detail:0.8> a cat <lora:ink style:1>"),
    ),
    Case(
        "LoRAs that are not here",
        f"<lora:detial:0.8>a cat <lora:zzz:1>\n{USUAL_PAIRS}",
        drawn("a cat "),
        ["LoRA", "LoRA"],
        ["detial", "zzz"],
    ),
    Case(
        "tags that no request may have",
        f"a <lora:detail:1:lbw=ALL>cat <hypernet:x:1>\nNegative prompt: b <lora:detail:1>\n"
        f"{USUAL_PAIRS}",
        drawn("a cat ", "b "),
        ["LoRA", "LoRA", "LoRA"],
        ["<lora:detail:1:lbw=ALL>", "<hypernet:x:1>", "detail"],
    ),
    Case(
        "embeddings",
        f"a\nNegative prompt: badhands, badfeet\n{USUAL_PAIRS},"
        ' TI hashes: "badhands: 00112233aabb, badfeet: 0011223344aa"',
        drawn("a", "badhands, badfeet"),
        ["Embedding"],
        ["badfeet"],
    ),
]  # fmt: skip
