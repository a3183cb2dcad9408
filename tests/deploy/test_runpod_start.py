"""The start on RunPod: what is found on a volume, what is imported, what is said."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import ROOT, Store, store_environment
from deploy.runpod.lease import lease
from deploy.runpod.model import Places, Wish, choose_model
from deploy.runpod.start import choose_command, find_variables
from deploy.runpod.volume import find_addon_folders, find_models, find_volume
from lpw_sdxl.doors.runpod.settings import StartSettings
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.volume import Volume
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

DEMO = ROOT / "demo" / "lpw-sdxl-demo.safetensors"
LORA = ROOT / "demo" / "addons" / "demo-pastel.safetensors"
QUEUE = [sys.executable, "-m", "lpw_sdxl.doors.runpod"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY)
    return path


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in store_environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    volume = tmp_path / "volume"
    (volume / "models" / "checkpoints").mkdir(parents=True)
    return volume


def put(source: Path, volume: Path, name: str) -> None:
    path = volume / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)


def places(volume: Path | None, image: Path | None = None) -> Places:
    store = volume / "lpw-sdxl" if volume else None
    return Places(image or Path("/nowhere"), store, volume)


def sentence(wish: Wish, where: Places) -> str:
    with pytest.raises((SettingsError, ModelError)) as refusal:
        choose_model(wish, where)
    return str(refusal.value)


def test_checkpoints_are_found_where_old_setups_and_other_programs_have_them(
    volume: Path, tiny: Path
) -> None:
    put(tiny, volume, "models/checkpoints/Jib Mix v8.safetensors")
    put(tiny, volume, "models/Stable-diffusion/jib_mix_v8.SAFETENSORS")
    put(tiny, volume, "models/lora-like.safetensors")
    put(LORA, volume, "models/checkpoints/style.safetensors")
    (volume / "models/checkpoints/notes.txt").write_text("no model")
    (volume / "models/checkpoints/broken.safetensors").write_bytes(b"no header")
    found = find_models(volume)
    assert {name: one.path.name for name, one in found.checkpoints.items()} == {
        "jib-mix-v8": "Jib Mix v8.safetensors",
        "jib_mix_v8": "jib_mix_v8.SAFETENSORS",
        "model-lora-like": "lora-like.safetensors",
    }
    assert {path.name for path in found.unfit} == {"style.safetensors", "broken.safetensors"}


def test_names_that_become_one_are_numbered(volume: Path, tiny: Path) -> None:
    put(tiny, volume, "models/checkpoints/A B.safetensors")
    put(DEMO, volume, "models/checkpoints/a-b.safetensors")
    assert [*find_models(volume).checkpoints] == ["a-b", "a-b-2"]


def test_folders_of_addons_are_found_in_any_case(volume: Path) -> None:
    for name in ("models/Lora", "models/ESRGAN", "embeddings"):
        (volume / name).mkdir()
    assert find_addon_folders(volume) == {
        "LPW_SDXL_LORA_DIR": f"{volume}/models/Lora",
        "LPW_SDXL_EMBEDDING_DIR": f"{volume}/embeddings",
        "LPW_SDXL_UPSCALER_DIR": f"{volume}/models/ESRGAN",
    }


def test_a_workers_volume_comes_before_a_pods(tmp_path: Path) -> None:
    worker, pod = tmp_path / "runpod-volume", tmp_path / "workspace"
    assert find_volume((worker, pod)) is None
    pod.mkdir()
    assert find_volume((worker, pod)) == pod
    worker.mkdir()
    assert find_volume((worker, pod)) == worker


@pytest.mark.processes
@pytest.mark.thorough
def test_the_only_checkpoint_is_imported_once_and_then_served(volume: Path, tiny: Path) -> None:
    put(tiny, volume, "models/checkpoints/Jib.safetensors")
    (volume / "loras").mkdir()
    settings = StartSettings(bentoml_home=volume / "none")
    found = find_variables(settings, Settings(), volume, words=["http"])
    assert found == {
        "LPW_SDXL_LORA_DIR": f"{volume}/loras",
        "LPW_SDXL_STORE": f"{volume}/lpw-sdxl",
        "LPW_SDXL_MODEL": "jib",
    }
    (entry,) = (volume / "lpw-sdxl" / "jib").glob("*/manifest.json")
    made = entry.stat().st_mtime_ns

    (volume / "models/checkpoints/Jib.safetensors").unlink()  # nothing is imported any more
    again = find_variables(settings, Settings(), volume, words=[])
    assert again == {name: one for name, one in found.items() if name != "LPW_SDXL_MODEL"}
    assert entry.stat().st_mtime_ns == made
    wanted = Settings(model="jib", lora_dir=volume)
    assert find_variables(settings, wanted, volume, words=["queue"]) == {
        "LPW_SDXL_STORE": f"{volume}/lpw-sdxl",
        "LPW_SDXL_MODEL": "jib",
    }


@pytest.mark.processes
@pytest.mark.thorough
def test_of_several_checkpoints_the_setting_chooses_by_name_or_file(
    volume: Path, tiny: Path
) -> None:
    put(tiny, volume, "models/checkpoints/Tiny One.safetensors")
    put(DEMO, volume, "models/checkpoints/demo.safetensors")
    said = sentence(Wish(), places(volume))
    assert said == (
        f"{volume} has the checkpoints tiny-one, demo; one of these names in LPW_SDXL_MODEL would"
        " be right"
    )
    said = sentence(Wish("other"), places(volume))
    assert "LPW_SDXL_MODEL is other" in said
    assert "tiny-one, demo" in said
    for wanted in ("tiny-one", "Tiny One", "Tiny One.safetensors", "tiny-one:latest"):
        assert choose_model(Wish(wanted), places(volume)).partition(":")[0] == "tiny-one"
    assert [path.name for path in (volume / "lpw-sdxl").glob("[!.]*")] == ["tiny-one"]


@pytest.mark.processes
@pytest.mark.thorough
def test_a_source_that_is_named_is_imported_once_whatever_else_is_there(
    volume: Path, tiny: Path
) -> None:
    put(tiny, volume, "models/checkpoints/tiny.safetensors")
    assert choose_model(Wish(checkpoint="demo"), places(volume)) == "sdxl"
    again = choose_model(Wish(checkpoint="demo"), places(volume))
    assert again.startswith("sdxl:")
    other = choose_model(Wish("mine", str(tiny)), places(volume))
    assert other == "mine"
    assert Volume(volume / "lpw-sdxl").model_names() == ["mine", "sdxl"]


def test_an_images_own_model_is_served_if_no_other_is_named(
    volume: Path, tiny: Path, store: Store
) -> None:
    put(tiny, volume, "models/checkpoints/tiny.safetensors")
    for where in (places(volume, store.home), places(None, store.home)):
        assert choose_model(Wish(), where) == "sdxl"
        assert choose_model(Wish("sdxl"), where) == "sdxl"
        assert choose_model(Wish(store.tag), where) == store.tag
    assert not (volume / "lpw-sdxl").exists()


def test_an_image_that_was_built_with_a_source_need_not_import_it(demo_store: Store) -> None:
    tag = choose_model(Wish(checkpoint="demo"), places(None, demo_store.home))
    assert tag == demo_store.tag


def test_without_a_model_or_a_volume_the_sentence_says_what_would_be_right() -> None:
    said = sentence(Wish("mine", "demo"), places(None))
    assert said.startswith("the model mine demo is not in this image, and there is no volume")
    said = sentence(Wish(), places(None))
    assert "there is no volume at /runpod-volume or /workspace" in said
    assert "--build-arg CHECKPOINT=civitai:VERSION_ID" in said


def test_a_volume_without_a_checkpoint_is_named_with_what_it_has(volume: Path) -> None:
    said = sentence(Wish(), places(volume))
    assert said.startswith(f"{volume} has no model; ")
    assert "LPW_SDXL_CHECKPOINT with civitai:VERSION_ID" in said

    (volume / "models/jib-df").mkdir()
    (volume / "models/jib-df/model_index.json").write_text("{}")
    said = sentence(Wish(), places(volume))
    assert f"{volume}/models/jib-df is a model in Diffusers' layout" in said

    put(LORA, volume, "models/checkpoints/style.safetensors")
    said = sentence(Wish(), places(volume))
    assert "style.safetensors: " in said
    assert "LoRA" in said


@pytest.mark.processes
@pytest.mark.thorough
def test_an_import_that_fails_is_one_more_sentence(volume: Path, tiny: Path) -> None:
    put(tiny, volume, "models/checkpoints/tiny.safetensors")
    path = volume / "models/checkpoints/tiny.safetensors"
    path.unlink()
    content = bytearray(tiny.read_bytes())
    content[-4:] = b"\x00\x7e\x00\x7e"  # NaN in float16
    path.write_bytes(content)
    assert "could not be imported" in sentence(Wish(), places(volume))
    assert not [*(volume / "lpw-sdxl").glob("[!.]*")]


@pytest.mark.parametrize(
    ("words", "settings", "command"),
    [
        ([], {"get_job": "https://a/job-take/$ID"}, QUEUE),
        ([], {"get_job": "https://a/job-take/$ID", "port": 80}, "http 80"),
        ([], {}, "http 3000"),
        ([], {"runpod_endpoint": "queue"}, QUEUE),
        ([], {"runpod_endpoint": "http", "get_job": "https://a"}, "http 3000"),
        (["http"], {"get_job": "https://a"}, "http 3000"),
        (["queue"], {"port": 80}, QUEUE),
        (["queue", "--rp_serve_api"], {}, [*QUEUE, "--rp_serve_api"]),
        (["--rp_serve_api"], {}, [*QUEUE, "--rp_serve_api"]),
        (["python", "-m", "lpw_sdxl", "list"], {}, ["python", "-m", "lpw_sdxl", "list"]),
    ],
)
def test_the_place_or_the_command_decides_what_is_served(
    words: list[str], settings: dict[str, object], command: str | list[str]
) -> None:
    if isinstance(command, str):
        port = command.split()[1]
        serve = ["-m", "bentoml", "serve", "service:LpwSdxl", "--host", "0.0.0.0", "--port", port]
        command = [sys.executable, *serve]
    assert choose_command(words, StartSettings(**settings)) == command  # type: ignore[arg-type]


def test_another_command_gets_the_volumes_store_and_imports_nothing(
    volume: Path, tiny: Path
) -> None:
    put(tiny, volume, "models/checkpoints/tiny.safetensors")
    words = ["python", "-m", "lpw_sdxl", "list"]
    found = find_variables(StartSettings(), Settings(), volume, words=words)
    assert found == {"LPW_SDXL_STORE": f"{volume}/lpw-sdxl"}


HOLDER = """
import sys, time
from pathlib import Path
from deploy.runpod.lease import lease

folder = Path(sys.argv[1])
with lease(folder / "lease", beat_s=0.1, stale_s=1.0):
    (folder / "alone").mkdir()  # fails where another one is there
    time.sleep(0.3)
    (folder / "alone").rmdir()
"""


def hold(folder: Path, seconds: float, done: list[str]) -> None:
    with lease(folder / "lease", beat_s=0.1, stale_s=1.0):
        (folder / "alone").mkdir()
        time.sleep(seconds)
        (folder / "alone").rmdir()
        done.append("done")


@pytest.mark.processes
@pytest.mark.thorough
def test_one_worker_at_a_time_holds_the_lease(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    workers = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert [*tmp_path.iterdir()] == []


def test_a_lease_whose_holder_is_gone_passes_to_one_worker(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.touch()  # as a worker that was killed leaves it
    done: list[str] = []
    threads = [threading.Thread(target=hold, args=(tmp_path, 0.2, done)) for _ in range(3)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - started > 1.0
    assert done == ["done"] * 3
    assert [*tmp_path.iterdir()] == []


def test_a_lease_that_is_held_for_long_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    done: list[str] = []
    holder = threading.Thread(target=hold, args=(tmp_path, 3.0, done))
    holder.start()
    while not path.exists():
        time.sleep(0.01)
    with lease(path, beat_s=0.1, stale_s=1.0):
        assert done == ["done"]
    holder.join()
