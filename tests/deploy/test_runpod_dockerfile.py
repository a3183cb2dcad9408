"""The Dockerfile for RunPod, held against the code; tests/container builds it."""

from __future__ import annotations

import json
import re
import tomllib

import grimp

from conftest import ROOT
from lpw_sdxl.doors.runpod.translation import translate
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize

RUNPOD = ROOT / "deploy" / "runpod"
DOCKERFILE = (RUNPOD / "Dockerfile").read_text(encoding="utf-8")
LIMITS = RequestLimits(1000, 150, ImageSize(2048, 2048), 64, 10, 100)


def test_the_import_has_every_part_of_the_package_that_it_needs_and_no_other() -> None:
    stage = DOCKERFILE.partition("AS model")[2].partition("\nFROM ")[0]
    copied = set(re.findall(r"^COPY src/lpw_sdxl/(\w+) ", stage, re.MULTILINE))
    graph = grimp.build_graph("lpw_sdxl", cache_dir=None)
    needed: set[str] = set()
    waiting = {"lpw_sdxl.__main__"}
    while waiting:
        module = waiting.pop()
        needed.add(module)
        waiting |= graph.find_modules_directly_imported_by(module) - needed
    folders = {
        module.split(".")[1]
        for module in needed
        if module != "lpw_sdxl" and (ROOT / "src/lpw_sdxl" / module.split(".")[1]).is_dir()
    }
    assert copied == folders


def test_no_step_writes_a_key_into_a_layer() -> None:
    assert not re.search(r"^(ARG|ENV).*(TOKEN|KEY|SECRET)", DOCKERFILE, re.MULTILINE)
    assert "--mount=type=secret,id=CIVITAI_TOKEN" in DOCKERFILE


def test_all_that_is_copied_is_in_the_build_context() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert any(source.startswith(one) for one in allowed), source
            assert [*ROOT.glob(source)], source


def test_the_package_of_runpod_has_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = project["optional-dependencies"]["runpod"]
    lines = (RUNPOD / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [extra]


def test_the_base_image_is_the_bentos() -> None:
    bento = (ROOT / "bentofile.yaml").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert f"base_image: {base}\n" in bento


def test_the_test_input_is_one_of_an_old_client() -> None:
    job = json.loads((RUNPOD / "test_input.json").read_text(encoding="utf-8"))
    (request,) = translate(job["input"], LIMITS).requests
    assert (request.num_inference_steps, request.guidance_scale, request.seed) == (12, 5.0, 7)
