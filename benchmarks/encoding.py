"""How much does encoding many prompts together save, and how much a repeated request?

(i) Eight prompts of 300 tokens with one shared negative prompt: one `encode_many` with an empty
cache, against a straightforward loop, prompt by prompt and chunk by chunk, each chunk through each
encoder by itself. Both parse and tokenise. (ii) A request as the service handles it: read once,
then encoded, new or for the second time. Tiny encoders, one thread of Python; the ways are paired
in every round.

    python benchmarks/encoding.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import ROOT, surroundings, write_result

from lpw_sdxl.checkpoint.tokenizer_files import write_tokenizer
from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.chunking import chunk_pair
from lpw_sdxl.conditioning.clip import ClipTextEncoder
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from lpw_sdxl.prompt import PromptStyle, parse

PAD_TOKENS = ("<|endoftext|>", "!")
WORDS = ["amber", "brass", "cedar", "dawn", "ember", "glass", "harbour", "iris", "jade", "kite"]
NEGATIVE = "worst quality, (low quality:1.3), blurry, text, watermark"
PROMPTS = 8
TOKENS = 300


def tiny_encoders() -> list[ClipTextEncoder]:
    """Load the encoders of the golden files."""
    file = ROOT / "tests" / "golden" / "tiny_encoders.py"
    spec = importlib.util.spec_from_file_location("tiny_encoders", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoders = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (model, pad_token) in enumerate(zip(module.build(), PAD_TOKENS, strict=True)):
            write_tokenizer(Path(folder, str(number)), pad_token=pad_token)
            tokenizer = ClipTokenizer.from_directory(Path(folder, str(number)))
            encoders.append(ClipTextEncoder(tokenizer, model))
    return encoders


def new_prompts(number: int) -> list[str]:
    """Write prompts of 300 tokens that are new in each round; a part of each has a weight."""
    prompts = []
    for prompt in range(PROMPTS):
        words = [WORDS[(index * (prompt + 2) + number) % 10] for index in range(TOKENS - 8)]
        digits = " ".join(f"{number * PROMPTS + prompt:08}")  # a token each
        prompts.append(f"{digits} ({' '.join(words[:40])}:1.2) {' '.join(words[40:])}")
    return prompts


def encode_together(encoder: PromptEncoder, prompts: list[str]) -> list[Conditioning]:
    """Read all prompts and encode them in one call."""
    return encoder.encode_many([encoder.reader.read(prompt, NEGATIVE) for prompt in prompts])


@torch.inference_mode()
def one_by_one(encoders: list[ClipTextEncoder], prompts: list[str]) -> list[list[torch.Tensor]]:
    """Encode prompt by prompt, chunk by chunk, encoder by encoder."""
    results = []
    for text in prompts:
        parsed = parse(text), parse(NEGATIVE)
        pairs = [chunk_pair(*parsed, PromptStyle.LPW, one.tokenizer) for one in encoders]
        sides = []
        for side in range(2):
            joined = []
            for index in range(len(pairs[0][side].windows)):
                features = []
                for encoder, pair in zip(encoders, pairs, strict=True):
                    window = pair[side].windows[index]
                    output = encoder.model(
                        input_ids=torch.tensor([window.ids]), output_hidden_states=True
                    )
                    hidden = output.hidden_states[-2][0]
                    weights = torch.tensor(window.weights)[:, None]
                    features.append(hidden[-1] + (hidden - hidden[-1]) * weights)
                joined.append(torch.cat(features, dim=-1))
            sides.append(torch.cat(joined))
        results.append(sides)
    return results


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def check(encoders: list[ClipTextEncoder]) -> None:
    """Check that both ways return the same embeddings: only then is their time comparable."""
    prompts = new_prompts(0)
    together = encode_together(PromptEncoder(encoders), prompts)
    for one, (prompt, negative) in zip(together, one_by_one(encoders, prompts), strict=True):
        torch.testing.assert_close(one.prompt_embeds, prompt, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.negative_prompt_embeds, negative, rtol=1e-4, atol=1e-4)
        assert one.prompt_embeds.shape[0] == 4 * 77


def measure(encoders: list[ClipTextEncoder], rounds: int) -> dict[str, list[float]]:
    """Time all ways in turn; each round has prompts of its own."""
    times: dict[str, list[float]] = {
        "together": [],
        "chunk by chunk": [],
        "reading": [],
        "new request": [],
        "repeated request": [],
    }
    serving = PromptEncoder(encoders)
    for number in range(1, rounds + 3):
        prompts = new_prompts(number)
        cold = PromptEncoder(encoders)
        measured = {
            "together": seconds(partial(encode_together, cold, prompts)),
            "chunk by chunk": seconds(partial(one_by_one, encoders, prompts)),
        }
        read = partial(serving.reader.read, prompts[0], NEGATIVE)
        measured["reading"] = seconds(read)
        for name in ("new request", "repeated request"):
            measured[name] = seconds(partial(serving.encode_many, [read()]))
        if number > 2:  # the first two warm up
            for name, value in measured.items():
                times[name].append(value)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoders = tiny_encoders()
    check(encoders)
    times = measure(encoders, options.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = surroundings(torch.device("cpu")) | {
        "prompts": PROMPTS,
        "tokens_each": TOKENS,
        "rounds": options.rounds,
        "median_milliseconds": {name: round(1e3 * value, 3) for name, value in medians.items()},
        "times_faster_together": round(medians["chunk by chunk"] / medians["together"], 1),
        "times_faster_repeated": round(medians["new request"] / medians["repeated request"]),
    }
    write_result("encoding", result)


if __name__ == "__main__":
    main()
