"""Entries that an earlier version made: their manifests are read, and written as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lpw_sdxl.addon.manifest import read_addon_manifest
from lpw_sdxl.store.manifest import read_manifest, write_manifest
from lpw_sdxl.store.origin import AuthorNotes, Origin

MODEL = """{
  "base_model": "SDXL 1.0", "created": "2026-11-30T01:01:05+00:00", "dtype": "float32",
  "ema": false, "files": {"model_index.json": {"sha256": "56", "size": 577}}, "format_version": 2,
  "ignored": {"CLIP's position numbers": 1, "markers of what the UNet predicts": 2},
  "importer_version": "0.1.0", "name": "sdxl", "native_size": {"height": 128, "width": 128},
  "prediction_type": "v_prediction", "source": "demo", "source_file": "lpw-sdxl-demo.safetensors",
  "source_sha256": "83a67898dab351367eadcf4060c31c8f025c67b33b1ad7b4f95d82e129b85489",
  "source_size": 19286774, "title": "LPW-SDXL demo", "trained_words": [], "vae": "",
  "zero_terminal_snr": true
}"""
LORA = """{
  "base_model": "sdxl/lora", "created": "2026-11-30T01:01:09.922634+00:00",
  "details": {"alphas": [8.0], "ignored": {}, "kinds": ["LoRA", "LoCon"], "modules": {"unet": 177},
    "naming": "kohya", "ranks": [8], "vectors": 0},
  "files": {"lora.safetensors": {"sha256": "20", "size": 1033420}}, "fits": "4c",
  "fits_name": "sdxl:83a67898dab3", "format_version": 1, "importer_version": "0.1.0",
  "kind": "lora", "name": "demo-frame", "source": "civitai:1", "source_file": "frame.safetensors",
  "source_sha256": "6c11fd6d856eb83e8b53d702ab3ef8d27a9fd36722e92ebe7909ab069e244698",
  "source_size": 1035370, "title": "Frame", "trained_words": ["frame"]
}"""


@pytest.mark.parametrize(("text", "read"), [(MODEL, read_manifest), (LORA, read_addon_manifest)])
def test_a_manifest_of_0_1_0_is_read_and_written_again_as_it_was(
    tmp_path: Path, text: str, read
) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(text, encoding="utf-8")
    manifest = read(tmp_path)
    stated = json.loads(text)
    assert manifest.tag.endswith(f":{stated['source_sha256'][:12]}")
    write_manifest(tmp_path, manifest)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert stated == _common(written, stated)


def _common(written: dict[str, object], stated: dict[str, object]) -> dict[str, object]:
    """What was written under the names stated, at every level; a later version has more."""
    return {
        name: _common(written[name], value) if isinstance(value, dict) else written[name]
        for name, value in stated.items()
    }


def test_its_origin_is_one_value(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(LORA, encoding="utf-8")
    assert read_addon_manifest(tmp_path).origin == Origin(
        "civitai:1",
        "frame.safetensors",
        1035370,
        "6c11fd6d856eb83e8b53d702ab3ef8d27a9fd36722e92ebe7909ab069e244698",
        AuthorNotes("Frame", "sdxl/lora", ("frame",)),
    )
