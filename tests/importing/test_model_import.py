"""The command line: exit status, last line, one sentence, no network."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
BLOCKED = """
import runpy, socket, sys
def refuse(*args, **options):
    raise RuntimeError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def command_line() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path, Path]:
    """Run the demo import as a process that can't use the network."""
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("tmp")
    environment = os.environ | {
        "BENTOML_HOME": str(home),
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(ROOT / "model_import.py"), "demo"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=temporary,
    )
    return done, home, temporary


@pytest.mark.processes
def test_demo_is_imported_with_the_network_off(demo):
    done, home, temporary = demo
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("sdxl:")
    assert len(lines[-1]) == len("sdxl:") + 12
    assert any("a small red circle on a blue background" in line for line in lines)
    assert (home / "models" / lines[-1].replace(":", "/") / "manifest.json").is_file()
    assert list(temporary.iterdir()) == []


@pytest.mark.processes
def test_a_process_that_fails_says_one_sentence(tmp_path: Path):
    path = tmp_path / "page.safetensors"
    path.write_text("<html>Log in</html>")
    done = subprocess.run(
        [sys.executable, str(ROOT / "model_import.py"), "checkpoint", str(path)],
        env=os.environ | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().splitlines() == [
        "model_import: page.safetensors is a web page, as a download without a login leaves it; "
        "a .safetensors file is needed."
    ]


def test_every_command_on_one_store(command_line, store_home, tiny_checkpoint, capsys):
    source = str(tiny_checkpoint)
    assert command_line.main(["list"]) == 0
    assert capsys.readouterr().out == ""
    assert command_line.main(["checkpoint", source, "--name", "mine"]) == 0
    tag = capsys.readouterr().out.splitlines()[-1]
    assert tag.startswith("mine:")
    assert command_line.main(["checkpoint", source, "--name", "mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "Already imported; nothing changed.",
        f"Serve it with: make serve MODEL={tag}",
        tag,
    ]
    assert command_line.main(["list"]) == 0
    assert capsys.readouterr().out == f"{tag}  128x96  float16  leading  tiny.safetensors  latest\n"
    assert command_line.main(["verify", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == tag
    assert {"source: file:tiny.safetensors", "dtype: float16", "ema: False"} <= set(lines)
    assert command_line.main(["inspect", source]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["file: tiny.safetensors", "is: an SDXL checkpoint"]
    assert {"native size: 128x96 pixels", "predicts: epsilon", "VAE: inside"} <= set(lines)

    weights = (
        store_home / "models" / tag.replace(":", "/") / "vae/diffusion_pytorch_model.safetensors"
    )
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert command_line.main(["verify", tag]) == 1
    assert "has other bytes in vae/diffusion_pytorch_model.safetensors" in capsys.readouterr().err
    assert command_line.main(["remove", tag]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == tag
    assert command_line.main(["remove", tag]) == 1
    assert "No model" in capsys.readouterr().err


def test_a_damaged_entry_is_listed_as_damaged(command_line, store_home, tiny_checkpoint, capsys):
    assert command_line.main(["checkpoint", str(tiny_checkpoint)]) == 0
    tag = capsys.readouterr().out.splitlines()[-1]
    (store_home / "models" / tag.replace(":", "/") / "manifest.json").unlink()
    assert command_line.main(["list"]) == 0
    assert capsys.readouterr().out == f"{tag}  damaged: `verify` shows what is wrong\n"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("", "The source is empty; a path (./NAME if it has a colon), an https URL or civitai:"),
        ("ftp://example.com/a.safetensors", "A source of ftp: is not supported;"),
        ("http://example.com/a.safetensors", "begins with http:; https is needed."),
        ("https://example.com/a?token=c4nary", "has a parameter 'token', which looks like a key"),
        ("civitai:dream", "civitai: goes with the id of a model version, such as civitai:2514310;"),
        ("nowhere.safetensors", "nowhere.safetensors can't be read: No such file or directory."),
        (".", "can't be read: it is not a file."),
    ],
)
def test_a_source_that_is_none_is_refused(command_line, capsys, source: str, sentence: str):
    assert command_line.main(["checkpoint", source]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert "c4nary" not in error


def test_a_setting_that_cannot_be_used_is_named(command_line, capsys, monkeypatch):
    monkeypatch.setenv("LPW_SDXL_CIVITAI_URL", "civitai")
    assert command_line.main(["checkpoint", "civitai:12"]) == 1
    assert capsys.readouterr().err.startswith("model_import: LPW_SDXL_CIVITAI_URL: ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fetch"],
        ["checkpoint"],
        ["checkpoint", "a", "--dtype", "fp8"],
        ["checkpoint", "a", "--sha256", "xyz"],
        ["checkpoint", "a", "--prediction-type", "noise"],
        ["checkpoint", "a", "--schedule-type", "karras"],
        ["remove"],
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_understood_ends_with_2(command_line, capsys, words: list[str]):
    with pytest.raises(SystemExit) as left:
        command_line.main(words)
    assert left.value.code == 2


def test_inspect_names_what_is_not_served(command_line, write_file, capsys):
    path = write_file({"control_model.input_hint_block.0.weight": (2, 2)}, name="pose.safetensors")
    assert command_line.main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["file: pose.safetensors", "is: a ControlNet"]
    assert lines[-1].startswith("can't be imported: an SDXL base checkpoint ")


def test_inspect_and_the_imports_first_line_say_what_room_it_takes(
    command_line, store_home, tiny_checkpoint, capsys
):
    """As much as is asked of the disk; the small files beside the tensors are within the rest."""
    source = str(tiny_checkpoint)
    assert command_line.main(["inspect", source]) == 0
    (row,) = re.findall(r"^an import needs: (.*)$", capsys.readouterr().out, re.MULTILINE)
    half, full = re.findall(r"(\S+ GB) in (?:fp16 or bf16|fp32)", row)
    assert "the model store (BENTOML_HOME)" in row
    for dtype, told in (("fp16", half), ("fp32", full)):
        assert command_line.main(["checkpoint", source, "--dtype", dtype, "--name", dtype]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"needs: {told} for the entry in {store_home}/models"
        assert "needs: " not in "\n".join(lines[1:])
        entry = store_home / "models" / lines[-1].replace(":", "/")
        size = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
        assert size <= 1e9 * float(told.partition(" ")[0]) + 5e6 < 2 * size + 1e8


def test_inspect_tells_what_an_import_leaves_out_and_what_it_refuses(
    command_line, store_home, tiny_tensors, save, capsys
):
    unet = "model.diffusion_model."
    extras = {"epoch": torch.tensor(3), "my.own": torch.zeros(2, dtype=torch.bool)}
    path = save(tiny_tensors | extras | {unet + "more": torch.zeros(1)})
    assert command_line.main(["inspect", str(path)]) == 0
    told = [
        "left out: CLIP's position numbers (1); left-overs of the training (1); "
        "tensors of no part of SDXL (1)",
        "tensors of no part of SDXL: my.own",
    ]
    option = "imported only with --ignore-unknown, which leaves out"
    assert capsys.readouterr().out.splitlines()[-3:] == [*told, f"{option}: {unet}more"]
    assert command_line.main(["checkpoint", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"model_import: made.safetensors holds unexpected tensors: {unet}more; SDXL's own are "
        "needed, or --ignore-unknown, which leaves the others out.\n"
    )
    assert command_line.main(["checkpoint", str(path), "--ignore-unknown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {*told, f"--ignore-unknown leaves out: {unet}more"} <= {*lines}
    assert command_line.main(["verify", "sdxl"]) == 0
    assert "unknown tensors of the UNet (1)" in capsys.readouterr().out


def test_inspect_judges_a_checkpoint_without_a_vae_as_if_it_had_sdxls(
    command_line, tiny_tensors, save, capsys
):
    no_vae = {n: t for n, t in tiny_tensors.items() if not n.startswith("first_stage_model.")}
    assert command_line.main(["inspect", str(save(no_vae | {"zzz": torch.zeros(1)}))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "tensors of no part of SDXL: zzz"
    assert "VAE: none inside: --vae FILE adds one" in lines


def test_inspect_tells_why_a_checkpoint_is_refused(command_line, tiny_tensors, save, capsys):
    name = "model.diffusion_model.out.2.bias"
    path = save({**tiny_tensors, name: torch.zeros(5)})
    assert command_line.main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"can't be imported: made.safetensors: tensor {name} has the shape [5]; the other tensors "
        "make [4] right."
    )


def test_an_empty_version_is_not_the_newest(command_line, store_home, tiny_checkpoint, capsys):
    """As an unset variable gives it: it must not remove a model."""
    assert command_line.main(["checkpoint", str(tiny_checkpoint), "--name", "mine"]) == 0
    capsys.readouterr()
    assert command_line.main(["remove", "mine:"]) == 1
    assert "'mine:' is no model tag" in capsys.readouterr().err
    assert command_line.main(["verify", "mine"]) == 0


def test_the_newest_is_marked_and_told(
    command_line, store_home, tiny_checkpoint, second_checkpoint, capsys
):
    for path in (tiny_checkpoint, second_checkpoint, tiny_checkpoint):
        assert command_line.main(["checkpoint", str(path), "--name", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines[-1]
    assert command_line.main(["list"]) == 0
    marked = [line.split() for line in capsys.readouterr().out.splitlines()]
    (newest,) = [words[0] for words in marked if words[-1] == "latest"]
    assert newest != first
    assert f"mine:latest is {newest}, which was imported later." in lines


def test_the_advice_for_a_damaged_entry_repairs_it(
    command_line, store_home, tiny_checkpoint, second_checkpoint, capsys
):
    options = ["--name", "mine", "--dtype", "bf16", "--vae", str(second_checkpoint)]
    assert command_line.main(["checkpoint", str(tiny_checkpoint), *options]) == 0
    tag = capsys.readouterr().out.splitlines()[-1]
    (store_home / "models" / tag.replace(":", "/") / "unet" / "config.json").unlink()
    assert command_line.main(["verify", tag]) == 1
    command = capsys.readouterr().err.split("`")[1]
    words = command.replace("FILE", str(tiny_checkpoint)).split()[2:]
    assert words[words.index("--vae") + 1] == second_checkpoint.name
    words[words.index("--vae") + 1] = str(second_checkpoint)
    assert command_line.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == tag
    assert command_line.main(["verify", tag]) == 0


@pytest.mark.parametrize(
    ("option", "used"),
    [
        ("leading", "leading"),
        ("trailing", "trailing"),
        ("sgm_uniform", "trailing"),
        ("linspace", "linspace"),
    ],
)
def test_a_schedule_type_is_kept_wherever_the_import_is_described(
    command_line, store_home, tiny_checkpoint, capsys, option: str, used: str
):
    words = ["checkpoint", str(tiny_checkpoint), "--name", "mine", "--schedule-type", option]
    assert command_line.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"schedule type: {used}" in lines
    tag = lines[-1]
    directory = store_home / "models" / tag.replace(":", "/")
    config = json.loads((directory / "scheduler" / "scheduler_config.json").read_text())
    assert config["timestep_spacing"] == used
    assert json.loads((directory / "manifest.json").read_text())["schedule_type"] == used
    assert command_line.main(["list"]) == 0
    assert f"  float16  {used}  tiny.safetensors  " in capsys.readouterr().out
    assert command_line.main(["verify", tag]) == 0
    assert f"schedule type: {used}" in capsys.readouterr().out.splitlines()
    if used == "leading":
        return
    (directory / "unet" / "config.json").unlink()
    assert command_line.main(["verify", tag]) == 1
    command = capsys.readouterr().err.split("`")[1]
    assert command_line.main(command.replace("FILE", str(tiny_checkpoint)).split()[2:]) == 0
    config = json.loads((directory / "scheduler" / "scheduler_config.json").read_text())
    assert config["timestep_spacing"] == used


def test_an_entry_that_the_store_cannot_read_is_told_as_damaged(
    command_line, store_home, tiny_checkpoint, capsys
):
    assert command_line.main(["checkpoint", str(tiny_checkpoint), "--name", "mine"]) == 0
    tag = capsys.readouterr().out.splitlines()[-1]
    (store_home / "models" / tag.replace(":", "/") / "model.yaml").unlink()
    assert command_line.main(["list"]) == 0
    assert capsys.readouterr().out.startswith(f"{tag}  damaged")
    assert command_line.main(["verify", tag]) == 1
    assert (
        f"entry of {tag} can't be read; import its checkpoint again with --name mine --force"
        in (capsys.readouterr().err)
    )


@pytest.mark.processes
def test_no_name_is_too_odd_to_be_printed(write_file):
    odd = write_file({"a.lora_up.weight": (2, 2)}, name="é\U0001f3a8\x1b[31m\n.safetensors")
    done = subprocess.run(
        [sys.executable, str(ROOT / "model_import.py"), "inspect", str(odd)],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0] == b"file: \xe9\\U0001f3a8[31m .safetensors"


@pytest.mark.thorough
@pytest.mark.processes
def test_an_import_goes_on_when_nobody_reads(tiny_checkpoint: Path, tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, str(ROOT / "model_import.py"), "checkpoint", str(tiny_checkpoint)],
        env=os.environ | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")
    assert [*(tmp_path / "models" / "sdxl").glob("*/manifest.json")]
