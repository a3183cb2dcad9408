"""The whole way from a source to the store, with the real command and real HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from math import prod
from pathlib import Path

import bentoml
import pytest

from forks import Finished, Forks
from lpw_sdxl.store.space import SPARE_BYTES, gigabytes
from mutations import Entries, entries_of
from tests.forge.checkpoint import SyntheticSize, tensor_shapes
from tests.forge.raw import safetensors_bytes
from web import Counted, File, Keyed, WebServer, civitai_record, json_answer, redirect

ROOT = Path(__file__).parents[2]
CANARY = "c4nary-0123456789abcdef"
SIGNATURE = "X-Amz-Signature=c4nary-of-the-url"


def _heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, such as these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class CommandLine:
    """model_import.py on a store and a downloads folder of its own."""

    def __init__(self, forks: Forks, folder: Path, civitai_url: str) -> None:
        self._forks = forks
        self.home = folder / "home"
        self.downloads = folder / "downloads"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LPW_SDXL_")}
        self.environment = kept | {
            "BENTOML_HOME": str(self.home),
            "BENTOML_DO_NOT_TRACK": "True",
            "HF_HUB_OFFLINE": "1",
            "CIVITAI_TOKEN": CANARY,
            "LPW_SDXL_CIVITAI_URL": civitai_url,
            "LPW_SDXL_DOWNLOADS": str(self.downloads),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "model_import.py"), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - of a child without threads
        )

    def run(self, *words: str) -> Finished:
        return self._forks.run(words, self.environment)

    def metadata(self, tag: str) -> dict[str, object]:
        return bentoml.models.get(tag, _model_store=self._store()).info.metadata

    def _store(self) -> object:
        from bentoml._internal.models import ModelStore

        return ModelStore(self.home / "models")


@pytest.fixture
def civitai():
    with WebServer() as server:
        yield server


@pytest.fixture
def storage():
    """Where Civitai sends a download on to: another origin."""
    with WebServer() as server:
        yield server


@pytest.fixture
def command_line(forks: Forks, tmp_path: Path, civitai: WebServer) -> CommandLine:
    return CommandLine(forks, tmp_path, civitai.url())


@pytest.fixture
def offered(civitai: WebServer, storage: WebServer, tiny_checkpoint: Path) -> bytes:
    """A model version on Civitai that asks for the key and redirects to a presigned URL."""
    content = tiny_checkpoint.read_bytes()
    file = {
        "name": "dream.safetensors",
        "sizeKB": len(content) / 1024,
        "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
    }
    record = civitai_record(456, civitai.url("/api/download/models/456"), file=file)
    civitai.on("/api/v1/model-versions/456", Keyed(CANARY, json_answer(record)))
    away = redirect(storage.url(f"/blob?{SIGNATURE}"))
    civitai.on("/api/download/models/456", Keyed(CANARY, away))
    storage.on("/blob", File(content))
    return content


def test_a_version_of_civitai_is_imported_with_its_provenance_and_no_secret(
    command_line: CommandLine, civitai: WebServer, storage: WebServer, offered: bytes
):
    done = command_line.run("checkpoint", "civitai:456", "--name", "dream")
    assert (done.status, done.sentence) == (0, "")
    sha256 = hashlib.sha256(offered).hexdigest()
    assert done.tag == f"dream:{sha256[:12]}"
    metadata = command_line.metadata(done.tag)
    assert {key: metadata[key] for key in ("source", "source_file", "source_size")} == {
        "source": "civitai:456",
        "source_file": "dream.safetensors",
        "source_size": len(offered),
    }
    assert (metadata["source_sha256"], metadata["source_autov2"]) == (sha256, sha256[:10].upper())
    assert metadata["base_model"] == "Illustrious"
    assert metadata["trained_words"] == ["masterpiece", "best quality"]

    assert {request.key for request in civitai.requests} == {f"Bearer {CANARY}"}
    assert {request.key for request in storage.requests} == {None}
    everything = done.output + done.sentence + _all_text(command_line.home, command_line.downloads)
    assert "civitai:456" in everything
    assert CANARY not in everything
    assert "c4nary-of-the-url" not in everything


def test_a_downloads_first_line_says_what_it_needs_and_where(
    command_line: CommandLine, offered: bytes
):
    done = command_line.run("checkpoint", "civitai:456")
    lines = done.output.splitlines()
    size, entry = len(offered), len(offered) + SPARE_BYTES
    models = command_line.home / "models"
    assert lines[0] == (
        f"needs: {gigabytes(size)} for the download in {command_line.downloads} and about"
        f" {gigabytes(entry)} for the entry in {models}"
    )
    (exact,) = [line for line in lines[1:] if line.startswith("needs: ")]
    assert re.fullmatch(rf"needs: \S+ GB for the entry in {models}", exact)
    # Nothing of it is asked for again, so nothing of it is needed.
    again = command_line.run("checkpoint", "civitai:456").output
    assert "for the download" not in again


def test_a_known_version_is_not_downloaded_again(
    command_line: CommandLine, storage: WebServer, offered: bytes
):
    first = command_line.run("checkpoint", "civitai:456", "--remove-source")
    assert first.status == 0
    assert [path for path in command_line.downloads.rglob("*") if path.is_file()] == []
    again = command_line.run("checkpoint", "civitai:456")
    assert (again.status, again.tag) == (0, first.tag)
    assert "Already imported; nothing changed." in again.output
    assert len(storage.requests) == 1
    other = command_line.run("checkpoint", "civitai:456", "--dtype", "bf16")
    assert other.status == 1
    assert "imported with dtype float16, and dtype bfloat16 is asked for; --force" in other.sentence
    assert len(storage.requests) == 1


@pytest.mark.thorough
def test_a_finished_download_is_found_again_without_the_network(
    command_line: CommandLine, civitai: WebServer, storage: WebServer, offered: bytes
):
    first = command_line.run("checkpoint", "civitai:456")
    asked = len(civitai.requests) + len(storage.requests)
    again = command_line.run("checkpoint", "civitai:456", "--force")
    assert (again.status, again.tag) == (0, first.tag)
    assert "downloaded earlier: " in again.output
    assert len(civitai.requests) + len(storage.requests) == asked


def test_a_url_that_holds_no_sdxl_checkpoint_is_refused_after_its_first_bytes(
    command_line: CommandLine, storage: WebServer
):
    numbers = 20_000_000
    header = {"a.lora_up.weight": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}
    storage.on("/style", File(safetensors_bytes(header, bytes(numbers)), wait_s=0.05))
    started = time.monotonic()
    done = command_line.run("checkpoint", storage.url("/style"))
    assert time.monotonic() - started < 20, "the whole file would take two minutes"
    assert done.status == 1
    assert done.sentence == (
        "model_import: checkpoint.safetensors is a LoRA; import it with "
        "`python model_import.py lora FILE`.\n"
    )
    assert [path for path in command_line.downloads.rglob("*") if path.is_file()] == []


DAMAGES = {
    "a wrong shape": ("output_blocks.3.0.in_layers.2.weight", [64, 64, 3, 3], "has the shape"),
    "a missing tensor": ("output_blocks.3.0.in_layers.2.weight", None, "lacks tensors"),
    "an unknown tensor": ("more", [1], "holds unexpected tensors"),
}


@pytest.mark.parametrize(("name", "shape", "what"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_checkpoint_that_cannot_be_converted_is_refused_after_its_header(
    command_line: CommandLine,
    storage: WebServer,
    tiny_checkpoint: Path,
    name: str,
    shape: list[int] | None,
    what: str,
):
    header = _with_tensor(tiny_checkpoint, f"model.diffusion_model.{name}", shape)
    size = max(end for entry in header.values() for end in entry["data_offsets"])
    assert size > 20_000_000
    answer = Counted(File(safetensors_bytes(header, bytes(size)), wait_s=0.02))
    storage.on("/m.safetensors", answer)
    done = command_line.run("checkpoint", storage.url("/m.safetensors"))
    assert done.status == 1
    assert what in done.sentence
    assert name in done.sentence
    assert "an SDXL checkpoint" not in done.output
    assert sum(answer.counts) - len(json.dumps(header)) < 1_000_000
    assert [path for path in command_line.downloads.rglob("*") if path.is_file()] == []


def _with_tensor(checkpoint: Path, name: str, shape: list[int] | None) -> Entries:
    """The header of a checkpoint with a tensor of this shape in F16, or without it."""
    entries = entries_of(checkpoint.read_bytes())
    entries.pop(name, None)
    sizes = {
        key: entry["data_offsets"][1] - entry["data_offsets"][0] for key, entry in entries.items()
    }
    if shape is not None:
        entries[name] = {"dtype": "F16", "shape": shape}
        sizes[name] = 2 * prod(shape)
    position = 0
    for key, entry in entries.items():
        entry["data_offsets"] = [position, position + sizes[key]]
        position += sizes[key]
    return entries


@pytest.mark.thorough
def test_an_interrupted_download_goes_on_when_it_is_run_again(
    command_line: CommandLine, storage: WebServer, tiny_checkpoint: Path
):
    content = tiny_checkpoint.read_bytes()
    storage.on("/m.safetensors", File(content, wait_s=0.02), File(content))
    url = storage.url("/m.safetensors")
    with command_line.start("checkpoint", url) as process:
        while not any(p.stat().st_size > 10**6 for p in command_line.downloads.rglob("*.part")):
            time.sleep(0.02)
        assert CANARY not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (
        1,
        "model_import: Stopped; the model store is as it was. Run the same command again to go on "
        "with a download.\n",
    )
    assert command_line.run("checkpoint", url).status == 0
    first, second = storage.requests
    assert "range" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) > 10**6


def test_a_file_of_ones_own_is_never_removed(command_line: CommandLine, tiny_checkpoint: Path):
    done = command_line.run("checkpoint", str(tiny_checkpoint), "--remove-source")
    assert done.status == 1
    assert "--remove-source is for downloads; tiny.safetensors is a file of yours" in done.sentence
    assert tiny_checkpoint.is_file()


@pytest.mark.processes
@pytest.mark.thorough
def test_a_wrong_kind_is_refused_before_anything_heavy_is_imported(write_file):
    path = write_file({"a.lora_up.weight": (2, 2)}, name="style.safetensors")
    script = (
        "import sys, model_import as m; status = m.main(sys.argv[1:]);"
        "heavy = {'torch', 'bentoml', 'diffusers', 'transformers'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy or status != 1 else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "checkpoint", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        0,
        "model_import: style.safetensors is a LoRA; import it with "
        "`python model_import.py lora FILE`.\n",
    )


@pytest.mark.processes
@pytest.mark.thorough
def test_a_full_size_header_is_judged_in_a_second_and_without_anything_heavy(tmp_path: Path):
    shapes = dict(tensor_shapes(SyntheticSize.FULL))
    name = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"
    shapes[name] = (640, 640, 3, 3)
    position, header = 0, {}
    for key, shape in shapes.items():
        end = position + 2 * prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    path = tmp_path / "full.safetensors"
    path.write_bytes(safetensors_bytes(header))
    os.truncate(path, path.stat().st_size + position)  # a hole of 7 GB
    script = (
        "import sys, time, model_import as m;"
        "status = m.main(['checkpoint', sys.argv[1]]);"
        "heavy = {'torch', 'bentoml', 'diffusers', 'transformers'} & set(sys.modules);"
        "print(time.process_time());"
        "sys.exit(repr(heavy) if heavy or status != 1 else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    path.unlink()
    assert (done.returncode, done.stderr) == (
        0,
        f"model_import: full.safetensors: tensor {name} has the shape [640, 640, 3, 3]; the other "
        "tensors make [640, 1920, 3, 3] right.\n",
    )
    assert float(done.stdout) < 1, "seconds of the whole process; nothing else is printed"


def _all_text(*folders: Path) -> str:
    """Every file's bytes as text, weights too."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    return "".join(path.read_bytes().decode("latin-1") for path in files)
