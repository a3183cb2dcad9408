"""A LoRA's alpha and its extra tensors on the command line: what is shown, kept and known again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Store
from forks import Finished
from stores import run_here, snapshot
from tests.forge.raw import safetensors_bytes
from tests.forge.stated_alpha import QUERY, STATEMENTS, write_statement
from web import File, WebServer


class Home:
    """The commands on a store of the test's own with a tiny model in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *words: str) -> Finished:
        return run_here(self.path, *words)

    def done(self, *words: str) -> Finished:
        finished = self.run(*words)
        assert finished.status == 0, finished.sentence
        return finished

    def manifest(self, tag: str) -> dict:
        return json.loads(
            (self.path / "models" / tag.replace(":", "/") / "manifest.json").read_text()
        )

    def alphas(self, tag: str) -> set[float]:
        stored = load_file(self.path / "models" / tag.replace(":", "/") / "lora.safetensors")
        return {float(tensor) for name, tensor in stored.items() if name.endswith("/alpha")}


@pytest.fixture
def home(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("LPW_SDXL_DOWNLOADS", str(tmp_path / "downloads"))
    return Home(shutil.copytree(store.home, tmp_path / "bentoml"))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_statement(tmp_path / "plain", STATEMENTS["nothing"])


def test_an_alpha_that_nothing_states_is_shown_by_import_and_inspect(home: Home, plain: Path):
    row = "alpha: not told, taken as the rank"
    assert row in home.done("inspect", str(plain)).output.splitlines()
    done = home.done("lora", str(plain))
    assert row in done.output.splitlines()
    assert home.alphas(done.tag) == {4.0}
    assert "alpha note: not told, taken as the rank" in home.done("verify", done.tag).output


def test_alpha_is_set_by_the_option_and_kept_apart(home: Home, plain: Path):
    done = home.done("lora", str(plain), "--alpha", "16")
    assert "alpha: 16, by --alpha" in done.output.splitlines()
    assert home.alphas(done.tag) == {16.0}
    assert home.manifest(done.tag)["details"]["asked_alpha"] == 16.0
    again = home.done("lora", str(plain), "--alpha", "16")
    assert "Already imported" in again.output
    before = snapshot(home.path)
    for words, asked in (((), "the file's own alpha"), (("--alpha", "8"), "--alpha 8")):
        other = home.run("lora", str(plain), *words)
        assert other.sentence == (
            f"model_import: {done.tag} is imported with --alpha 16, and {asked} is asked for; "
            "--force replaces it, and --name gives the new one another name.\n"
        )
    assert snapshot(home.path) == before
    forced = home.done("lora", str(plain), "--force")
    assert (forced.tag, home.alphas(forced.tag)) == (done.tag, {4.0})
    refused = home.run("lora", str(plain), "--alpha", "16")
    assert "is imported with the file's own alpha, and --alpha 16 is asked for" in refused.sentence


def test_a_download_that_is_known_by_its_sha256_is_judged_by_its_alpha(home: Home, plain: Path):
    from hashlib import sha256

    content = plain.read_bytes()
    digest = sha256(content).hexdigest()
    with WebServer() as server:
        server.on("/stated.safetensors", File(content))
        url = server.url("/stated.safetensors")
        tag = home.done("lora", url, "--sha256", digest, "--alpha", "16").tag
        shutil.rmtree(home.path.parent / "downloads")
        again = home.done("lora", url, "--sha256", digest, "--alpha", "16")
        assert (again.tag, "Already imported" in again.output) == (tag, True)
        shutil.rmtree(home.path.parent / "downloads")
        for words in ((), ("--alpha", "8")):
            other = home.run("lora", url, "--sha256", digest, *words)
            assert f"{tag} is imported with --alpha 16, and " in other.sentence


def test_a_download_shows_the_alphas_of_its_tensors_when_it_is_whole(home: Home, tmp_path: Path):
    path = write_statement(tmp_path / "file", STATEMENTS["tensors that differ from a key"])
    with WebServer() as server:
        server.on("/stated.safetensors", File(path.read_bytes(), wait_s=0.05))
        done = home.done("lora", server.url("/stated.safetensors"))
    rows = [line for line in done.output.splitlines() if line.startswith(("alpha", "file", "is"))]
    assert rows[-1] == "alpha: 8; ss_network_alpha states 1, which does not count"
    assert rows.count("is: a LoRA (LoRA)") == 1


@pytest.mark.parametrize("word", ["0", "x", "nan", "inf", "1e99", ""])
def test_an_alpha_that_is_no_number_is_not_understood(home: Home, plain: Path, word: str, capsys):
    with pytest.raises(SystemExit) as left:
        home.run("lora", str(plain), "--alpha", word)
    assert left.value.code == 2


def test_the_configuration_beside_a_file_belongs_to_its_import(home: Home, tmp_path: Path):
    path = write_statement(tmp_path / "file", STATEMENTS["PEFT's file"])
    assert "alpha: 16, by adapter_config.json (SHA-256 " in home.done("inspect", str(path)).output
    done = home.done("lora", str(path))
    assert home.alphas(done.tag) == {16.0}
    assert "Already imported" in home.done("lora", str(path)).output
    config = path.with_name("adapter_config.json")
    config.write_text(config.read_text().replace("16", "8"))
    refused = home.run("lora", str(path))
    assert "is imported with the alpha of adapter_config.json (SHA-256 " in refused.sentence
    config.unlink()
    refused = home.run("lora", str(path))
    assert "and the file's own alpha is asked for; --force replaces it" in refused.sentence


def test_a_configuration_that_changes_meanwhile_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lpw_sdxl.importing.console import ImportConsole

    path = write_statement(tmp_path / "file", STATEMENTS["PEFT's file"])
    config = path.with_name("adapter_config.json")
    before = snapshot(home.path)
    monkeypatch.setattr(ImportConsole, "progress", lambda *_: config.write_text("{}"))
    done = home.run("lora", str(path))
    assert (done.status, "adapter_config.json changed while it was" in done.sentence) == (1, True)
    assert snapshot(home.path) == before


def with_extras(path: Path, *names: str) -> Path:
    tensors = load_file(path) | {name: torch.ones(1) for name in names}
    extra = path.with_name("extra.safetensors")
    save_file(tensors, extra)
    return extra


def test_extra_tensors_are_listed_and_left_out(home: Home, plain: Path):
    lone = f"{QUERY.kohya.replace('attn1', 'attn2')}.alpha"
    path = with_extras(plain, "v_pred", "ztsnr", "foo.a", "foo.b", lone)
    row = (
        "left out: foo.*, of none of SDXL's networks (2); alphas of modules that have no factors "
        "(1); marks of what the base model predicts, which its own import decides (2)"
    )
    shown = [
        line
        for command in ("inspect", "lora")
        for line in home.done(command, str(path)).output.splitlines()
        if line.startswith("left out: ")
    ]
    assert [sorted(line[10:].split("; ")) for line in shown] == [sorted(row[10:].split("; "))] * 2


def test_unknown_tensors_are_refused_by_name_unless_they_are_to_be_left_out(
    home: Home, plain: Path
):
    path = with_extras(plain, "unet.down_blocks.9.proj_in.lora_A.weight", f"{QUERY.kohya}.gate")
    before = snapshot(home.path)
    refused = home.run("lora", str(path))
    assert (refused.status, "--ignore-unknown leaves out and lists" in refused.sentence) == (
        1,
        True,
    )
    assert snapshot(home.path) == before
    told = home.done("inspect", str(path)).output.splitlines()[-1]
    assert told.startswith("can't be imported: ")
    assert "--ignore-unknown leaves out and lists such tensors" in told
    done = home.done("lora", str(path), "--ignore-unknown")
    (row,) = [line for line in done.output.splitlines() if line.startswith("left out: ")]
    assert "unet.down_blocks.9.proj_in.lora_A.weight, by --ignore-unknown (1)" in row
    assert f"{QUERY.kohya}.gate, by --ignore-unknown (1)" in row
    assert sum(home.manifest(done.tag)["details"]["ignored"].values()) == 2
    assert home.done("verify", done.tag).tag == done.tag


def nulled(path: Path) -> Path:
    """The same file with `"__metadata__": null` in its header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    path.write_bytes(safetensors_bytes(header | {"__metadata__": None}, content[8 + length :]))
    return path


@pytest.mark.parametrize("kind", ["lora", "embedding", "checkpoint"])
def test_metadata_of_null_is_none_in_every_import(
    home: Home, plain: Path, tmp_path: Path, tiny_checkpoint: Path, kind: str
):
    path = tmp_path / "null.safetensors"
    if kind == "embedding":
        save_file({"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 64)}, path)
    else:
        shutil.copy(plain if kind == "lora" else tiny_checkpoint, path)
    nulled(path)
    home.done("inspect", str(path))
    tag = home.done(kind, str(path)).tag
    assert home.done("verify", tag).tag == tag


def test_a_full_difference_in_diffusers_names_is_a_lora(home: Home, tmp_path: Path):
    for number, name in enumerate((f"{QUERY.diffusers}.diff", f"{QUERY.path}.weight.diff")):
        path = tmp_path / f"full{number}.safetensors"
        save_file({name: torch.ones(QUERY.shape)}, path)
        assert "is: a LoRA (full)" in home.done("inspect", str(path)).output.splitlines()
        assert "is: a LoRA (full)" in home.done("lora", str(path)).output.splitlines()
        refused = home.run("checkpoint", str(path))
        assert "is a LoRA; import it with `python model_import.py lora FILE`" in refused.sentence
