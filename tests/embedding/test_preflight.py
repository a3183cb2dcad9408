"""Which files are embeddings of SDXL's, from their headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpw_sdxl.embedding.preflight import examine
from lpw_sdxl.errors import AddonError, CheckpointError
from lpw_sdxl.weights.header import read_header

from .conftest import header_of


@pytest.mark.parametrize(
    "names",
    [
        ("clip_l", "clip_g"),
        ("text_encoders_0", "text_encoders_1"),
        ("text_encoder", "text_encoder_2"),
    ],
)
def test_both_tensors_are_found_under_every_naming(names: tuple[str, str]):
    first, second = names
    plan = examine(header_of({second: (8, 1280), first: (8, 768)}))
    assert (plan.vectors, plan.widths, plan.fit) == (8, (768, 1280), "768+1280")
    assert [info.name for info in plan.tensors] == [first, second]


def test_one_vector_may_have_one_dimension():
    plan = examine(header_of({"clip_l": (768,), "clip_g": (1280,)}))
    assert (plan.vectors, plan.widths) == (1, (768, 1280))


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"emb_params": (4, 768)}, "model.safetensors is a Stable Diffusion 1.x embedding; an SDX"),
        ({"emb_params": (4, 1024)}, "is a Stable Diffusion 2.x embedding; an SDXL embedding, with"),
        ({"<cat-toy>": (1, 768)}, "is a Stable Diffusion 1.x embedding;"),
        ({"emb_params": (4, 1280)}, "is an embedding for SDXL's second text encoder alone;"),
        ({"clip_l": (4, 768)}, "clip_l is there, and clip_g is missing"),
        ({"clip_g": (4, 1280)}, "clip_g is there, and clip_l is missing"),
        ({"clip_l": (4, 768), "clip_g": (3, 1280)}, "has 4 vectors in clip_l and 3 in clip_g"),
        ({"clip_l": (76, 768), "clip_g": (76, 1280)}, "has 76 vectors; 1 to 75 would be right"),
        ({"clip_l": (0, 768), "clip_g": (0, 1280)}, r"clip_l has the shape \[0, 768\]"),
        ({"clip_l": (1, 1, 768), "clip_g": (1, 1280)}, r"clip_l has the shape \[1, 1, 768\]"),
        ({"clip_l": (), "clip_g": (1, 1280)}, r"clip_l has the shape \[\]"),
        (
            {"clip_l": (4, 768), "clip_g": (4, 1280), "t5": (4, 4096)},
            "holds the tensor 't5' besides clip_l and clip_g",
        ),
        ({"lora_unet_x.lora_up.weight": (4, 4)}, "is a LoRA; an SDXL embedding"),
        ({"cond_stage_model.transformer.x": (1,)}, "is a Stable Diffusion 1.x checkpoint; an"),
        ({"a": (1,), "b": (1,)}, "is no embedding that we know; an SDXL embedding, with the tens"),
        ({}, "is no embedding that we know"),
    ],
)
def test_other_files_are_refused_by_name(shapes, sentence: str):
    with pytest.raises(AddonError, match=sentence):
        examine(header_of(shapes))


def test_whole_numbers_are_refused():
    with pytest.raises(AddonError, match="clip_l has the dtype I64; numbers with a fraction"):
        examine(header_of({"clip_l": (1, 768), "clip_g": (1, 1280)}, dtype="I64"))


@pytest.mark.parametrize(
    ("content", "name"), [(b"PK\x03\x04", "pickle|zip|archive"), (b"\x80\x02}q", "pickle")]
)
def test_a_pickle_is_refused_by_name(tmp_path: Path, content: bytes, name: str):
    path = tmp_path / "bad.pt"
    path.write_bytes(content + bytes(100))
    with pytest.raises(CheckpointError, match=rf"(?i)({name}).*a \.safetensors file is needed"):
        read_header(path)
