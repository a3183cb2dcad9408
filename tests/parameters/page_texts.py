"""Texts as pages, forums and chats show them: without line ends, or with others."""

from __future__ import annotations

from tests.parameters.case import USUAL_PAIRS, Case, drawn

ONE = "a cat, (best quality:1.2) Negative prompt: bad, worst quality"
PROMPTS = ("a cat, (best quality:1.2)", "bad, worst quality")
RESOURCES = (
    'Civitai resources: [{"type":"checkpoint","modelVersionId":1,"modelName":"Moon",'
    '"modelVersionName":"v2"},{"type":"lora","weight":0.8,"modelVersionId":128078,'
    '"modelName":"Ink, wet","modelVersionName":"v1"}]'
)

CASES = [
    Case("one line", f"{ONE} {USUAL_PAIRS}", drawn(*PROMPTS)),
    Case("one line with other passes", f"{ONE} {USUAL_PAIRS}, Hires steps: 10", drawn(*PROMPTS),
         ["Hires"]),
    Case("one line without a negative prompt", f"a cat {USUAL_PAIRS}", drawn("a cat")),
    Case(
        "one line with an empty negative prompt",
        f"a cat Negative prompt: {USUAL_PAIRS}",
        drawn("a cat"),
    ),
    Case("Windows", f"a cat\r\nNegative prompt: bad\r\n{USUAL_PAIRS}\r\n", drawn("a cat", "bad")),
    Case("old Macs", f"a cat\rNegative prompt: bad\r{USUAL_PAIRS}", drawn("a cat", "bad")),
    Case(
        "small letters",
        "a cat\nnegative prompt: bad\nsteps: 20, sampler: euler a, cfg scale: 7, seed: 1234,"
        " size: 832x1216",
        drawn("a cat", "bad"),
    ),
    Case(
        "underscores",
        "a cat\nsteps: 20, sampler: k_euler_a, cfg_scale: 7, seed: 1234, size: 832x1216,"
        " clip_skip: 3",
        drawn("a cat", clip_skip=1),
    ),
    Case(
        "small letters in one line",
        "a cat negative prompt: bad steps: 20, sampler: euler a, cfg scale: 7, seed: 1234,"
        " size: 832x1216",
        drawn("a cat", "bad"),
    ),
    Case(
        "a pair a line",
        "a cat\nNegative prompt: bad\nSteps: 20\nSampler: Euler a\nCFG scale: 7\nSeed: 1234\n"
        "Size: 832x1216\n",
        drawn("a cat", "bad"),
    ),
    Case(
        "a pair a line in another order",
        "a cat\nNegative prompt: bad\nSampler: Euler a\nSeed: 1234\nSteps: 20\nCFG scale: 7\n"
        "Size: 832x1216",
        drawn("a cat", "bad"),
    ),
    Case(
        "another order",
        "a cat\nSampler: Euler a, Seed: 1234, Steps: 20, CFG scale: 7, Size: 832x1216",
        drawn("a cat"),
    ),
    Case(
        "wrapped lines",
        "a cat\nSteps: 20, Sampler:\nEuler a, CFG\nscale: 7, Variation\nseed: 5, Seed: 1234,\nSize:"
        " 832x1216, Variation seed strength: 0.5",
        drawn("a cat", variation_seed=5, variation_strength=0.5),
    ),
    Case(
        "stars",
        "**Prompt:** a cat\n**Negative prompt:** bad\n**Steps:** 20, **Sampler:** Euler a, **CFG"
        " scale:** 7, **Seed:** 1234, **Size:** 832x1216",
        drawn("a cat", "bad"),
    ),
    Case(
        "a heading",
        f"parameters\n\na cat\nNegative prompt: bad\n{USUAL_PAIRS}",
        drawn("a cat", "bad"),
    ),
    Case(
        "Civitai",
        f"a cat\nNegative prompt: bad\n{USUAL_PAIRS}, Clip skip: 2, Created Date:"
        f" 2025-11-28T09:18:43.5269343Z, {RESOURCES}, Civitai metadata: {{}}",
        drawn("a cat", "bad"),
        ["Civitai resources", "Civitai resources"],
        ["checkpoint Moon v2", "lora Ink, wet v1, weight 0.8"],
    ),
    Case(
        "Civitai in one line",
        "fog, BLACK, a vintage car Negative prompt: Steps: 23, Sampler: Undefined, CFG scale: 3.5,"
        " Seed: 1760020955, Size: 832x1216, Clip skip: 2, Created Date: 2025-11-28, " + RESOURCES,
        drawn(
            "fog, BLACK, a vintage car",
            num_inference_steps=23, guidance_scale=3.5, seed=1760020955, scheduler=None,
        ),
        ["Sampler", "Civitai resources", "Civitai resources"],
    ),
    Case(
        "Civitai's own names of files",
        f"a cat\n{USUAL_PAIRS},\n  Clip skip: 2, Version: v1.6.0,\n  Civitai resources:"
        ' [{"modelName":"Lazy (and more!)",\n  "versionName":"v2","weight":1.0,'
        '"air":"urn:air:sdxl:embedding:civitai:1302719@1833157"}]',
        drawn("a cat"),
        ["Civitai resources"],
        ["embedding Lazy (and more!) v2, weight 1.0"],
    ),
    Case(
        "a second pass as it was once written",
        f"a cat\n{USUAL_PAIRS}, Denoising strength: 0.7, First pass size: 0x0",
        drawn("a cat"),
        ["Hires"],
    ),
    Case(
        "templates behind the pairs",
        f"a cat\nNegative prompt: bad\n{USUAL_PAIRS}, Version: v1.6.0\nTemplate: a {{cat|dog}},\n"
        "Steps are steep\nNegative Template: {bad|worst}",
        drawn("a cat", "bad"),
    ),
    Case(
        "a template in one line",
        f"a cat {USUAL_PAIRS}, Version: v1.6.0 Template: a {{cat|dog}}",
        drawn("a cat"),
    ),
    Case(
        "pairs in the prompt, too",
        f"Steps: 9, Sampler: Heun, CFG scale: 1, a cat\nNegative prompt: bad\n{USUAL_PAIRS}",
        drawn("Steps: 9, Sampler: Heun, CFG scale: 1, a cat", "bad"),
    ),
    Case(
        "a prompt with colons",
        f"style: anime, cat: 3, (a:1.2), model: none\n{USUAL_PAIRS}",
        drawn("style: anime, cat: 3, (a:1.2), model: none"),
    ),
]  # fmt: skip
