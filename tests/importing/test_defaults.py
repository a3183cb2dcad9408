"""A model's own defaults on the command line, and what is suggested of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lpw_sdxl.importing.known_families import FAMILIES, find_family
from lpw_sdxl.model_defaults import ModelDefaults
from lpw_sdxl.request_limits import check_defaults
from stores import run_here, snapshot


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A store with a model that has defaults."""
    home = tmp_path_factory.mktemp("imported")
    done = run_here(
        home,
        *("checkpoint", str(tiny_checkpoint), "--dtype", "fp32"),
        *("--default", "guidance_scale=1.5", "--default", "scheduler=Euler a"),
    )
    assert done.status == 0, done.sentence
    return home


@pytest.fixture
def home(imported: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    return shutil.copytree(imported, tmp_path / "home")


def manifest_of(home: Path) -> Path:
    (path,) = home.glob("models/sdxl/*/manifest.json")
    return path


def defaults_of(home: Path) -> object:
    return json.loads(manifest_of(home).read_text())["defaults"]


def test_an_import_keeps_its_defaults(home: Path) -> None:
    assert defaults_of(home) == {"guidance_scale": 1.5, "scheduler": "Euler a"}
    shown = run_here(home, "set-defaults", "sdxl").output.splitlines()
    assert shown[:2] == ["guidance_scale=1.5", "'scheduler=Euler a'"]


def test_defaults_are_changed_in_the_manifest_alone(home: Path) -> None:
    before, manifest = snapshot(home), manifest_of(home)
    done = run_here(
        home, "set-defaults", "sdxl", "num_inference_steps=6", "guidance_scale=2", "--remove",
        "scheduler",
    )  # fmt: skip
    assert done.status == 0, done.sentence
    assert defaults_of(home) == {"guidance_scale": 2.0, "num_inference_steps": 6}
    after = snapshot(home)
    assert after.keys() == before.keys()
    changed = [name for name in after if after[name] != before[name]]
    assert changed == [str(manifest.relative_to(home))]
    assert manifest.stat().st_mode & 0o777 == 0o644
    assert run_here(home, "verify", "sdxl").status == 0
    assert [*home.glob("tmp/lpw-sdxl-import-*/")] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["guidance_scale=101"], "guidance_scale is 101; at most 100 would be right."),
        (["guidance_scal=2"], "did you mean guidance_scale?."),
        (["guidance_scale"], "FIELD=VALUE is right"),
        (["seed=1"], "seed belongs to one picture"),
        (["scheduler=DDIM", "schedule_type=linspace"], "leading or trailing would be right"),
        (["eta=0.5"], "with sampler_implementation 'k_diffusion' it would be right"),
        (["--remove", "clip_skip"], "has no default of clip_skip; it has guidance_scale, sched"),
    ],
)
def test_what_can_be_no_default_changes_nothing(
    home: Path, words: list[str], sentence: str
) -> None:
    before = snapshot(home)
    done = run_here(home, "set-defaults", "sdxl", *words)
    assert done.status == 1
    assert sentence in done.sentence
    assert done.sentence.count("\n") == 1
    assert snapshot(home) == before


def test_a_bad_default_is_refused_before_anything_is_imported(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    done = run_here(
        tmp_path / "home", "checkpoint", str(tiny_checkpoint), "--default", "num_inference_steps=0"
    )
    assert done.status == 1
    assert "num_inference_steps is 0; at least 1 would be right" in done.sentence
    assert [*tmp_path.glob("home/models/*/*")] == []


def test_the_same_file_with_other_defaults_names_the_command_that_sets_them(
    home: Path, tiny_checkpoint: Path
) -> None:
    words = ("checkpoint", str(tiny_checkpoint), "--dtype", "fp32")
    assert run_here(home, *words).status == 0
    assert run_here(home, *words, "--default", "guidance_scale=3").status == 1
    sentence = run_here(home, *words, "--default", "scheduler=Euler").sentence
    assert re.search(r"set-defaults sdxl:\w{12} scheduler=Euler` changes them", sentence)


def test_a_model_without_defaults_says_so(tmp_path: Path, tiny_checkpoint: Path) -> None:
    home = tmp_path / "home"
    assert run_here(home, "checkpoint", str(tiny_checkpoint), "--dtype", "fp32").status == 0
    manifest = manifest_of(home)
    written = json.loads(manifest.read_text())
    del written["defaults"]  # of a version before there were any
    manifest.write_text(json.dumps(written))
    assert "no defaults of its own" in run_here(home, "set-defaults", "sdxl").output
    assert run_here(home, "set-defaults", "sdxl", "clip_skip=1").status == 0
    assert defaults_of(home) == {"clip_skip": 1}


def test_a_family_is_suggested_and_its_line_can_be_run(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    home, file = tmp_path / "home", tmp_path / "dreamLightning_4step.safetensors"
    file.write_bytes(tiny_checkpoint.read_bytes())
    lines = run_here(home, "checkpoint", str(file), "--dtype", "fp32").output.splitlines()
    (line,) = [line for line in lines if "set-defaults" in line]
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line.partition("py ")[2])]
    assert run_here(home, *words).status == 0
    assert defaults_of(home) == {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "scheduler": "Euler",
        "schedule_type": "trailing",
    }
    assert "set-defaults" not in run_here(home, "checkpoint", str(file), "--dtype", "fp32").output


@pytest.mark.parametrize(
    ("texts", "family", "steps"),
    [
        (["SDXL 1.0", "sdxl", "", "sdxl_lightning_8step.safetensors"], "Lightning", 8),
        (["SDXL Lightning", "sdxl", "", "model.safetensors"], "Lightning", 4),
        (["Pony", "sdxl", "DreamTurbo Pony", "x.safetensors"], "Turbo", 4),
        (["", "sdxl", "", "Hyper-SDXL-8steps.safetensors"], "Hyper-SD", 8),
        (["SDXL Hyper", "sdxl", "", ""], "Hyper-SD", 8),
        (["", "sdxl", "", "sdxl_dmd2_4step_unet_fp16.safetensors"], "DMD2", 4),
        (["SDXL 1.0", "sdxl", "something LCM", ""], "LCM", 6),
        (["Pony", "sdxl", "Pony Diffusion V6 XL", "ponyDiffusionV6XL.safetensors"], "Pony", 25),
        (["", "sdxl", "", "NoobAI-XL-Vpred-v1.0.safetensors"], "NoobAI V-Pred", 30),
        (["NoobAI", "sdxl", "", ""], "NoobAI", 30),
        (["Illustrious", "sdxl", "", "waiNSFWIllustrious_v150.safetensors"], "Illustrious", 24),
    ],
)
def test_a_family_is_known_by_its_names(texts: list[str], family: str, steps: int) -> None:
    found = find_family(texts)
    assert found is not None
    assert (found.name, found.defaults["num_inference_steps"]) == (family, steps)


@pytest.mark.parametrize(
    "name", ["sd_xl_base_1.0.safetensors", "hyperrealism_v3.safetensors", "falcmix.safetensors"]
)
def test_no_family_is_seen_where_none_is(name: str) -> None:
    assert find_family(["SDXL 1.0", "sdxl", "", name]) is None
    assert find_family(["SDXL 1.0", "sdxl", "", name], "v_prediction") is not None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_settings_of_every_family_are_defaults_that_fit(family: object) -> None:
    check_defaults(ModelDefaults.read(dict(family.defaults)))  # type: ignore[attr-defined]
