"""The worker in the loop of RunPod's package, with a queue on loopback."""

from __future__ import annotations

import base64
import io
import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from bucket import REFUSED, Bucket
from conftest import Store
from runpod_platform import KEY, Platform
from runpod_worker import PYTHON, Worker, working

pytestmark = [pytest.mark.processes, pytest.mark.runpod]

SMALL = {"width": 64, "height": 64, "steps": 3}
LONG = {"prompt": "a long one", "width": 128, "height": 128, "steps": 900}
PROMPT = "a secret prompt"


def environment(store: Store, platform: Platform) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "LPW_SDXL_MAX_STEPS": "999", "LPW_SDXL_MAX_ROWS": "2"}
    return store.environment | platform.environment | own | {"LPW_SDXL_RUNPOD_JOBS": "4"}


@pytest.fixture(scope="module")
def worker(
    store: Store, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker whose UNet calls have room for one image."""
    with working(environment(store, platform), tmp_path_factory.mktemp("worker")) as worker:
        worker.wait_for("jobs are taken at once")
        platform.wait_until_asked()
        yield worker
    assert worker.process.returncode == 0, worker.log


def test_jobs_are_done_and_wrong_ones_refused_by_field(worker: Worker, platform: Platform) -> None:
    platform.submit("right", prompt=PROMPT, seed=3, **SMALL)
    platform.submit("wrong", prompt=PROMPT, cfg_scale="much")
    platform.submit("right-2", prompt=PROMPT, seed=4, image_format="jpeg", **SMALL)
    (image,) = platform.result("right")["output"]["images"]
    assert image["seed"] == 3
    with Image.open(io.BytesIO(base64.b64decode(image["image"]))) as opened:
        assert (opened.format, opened.size) == ("PNG", (64, 64))
    assert platform.result("right-2")["output"]["images"][0]["media_type"] == "image/jpeg"
    wrong = platform.result("wrong")
    assert "output" not in wrong
    error = json.loads(wrong["error"])
    assert error["field"] == "cfg_scale"
    assert "cfg_scale" in error["message"]
    deadline = time.monotonic() + 20
    while not platform.pings:
        assert time.monotonic() < deadline, "the worker has sent no sign of life"
        time.sleep(0.1)
    assert "right" in worker.log
    for secret in (PROMPT, KEY, image["image"][:40]):
        assert secret not in worker.log


def test_a_job_is_reported_on_while_it_is_made(worker: Worker, platform: Platform) -> None:
    platform.submit("reported", **LONG | {"steps": 100}, preview_every=1)
    platform.result("reported")
    reports = platform.reports_of("reported")
    assert reports, "there was no report"
    shares = [report["progress"] for report in reports]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    last = reports[-1]["images"][0]
    assert last["calls"] == 100
    assert 1 <= last["call"] <= 100
    previews = [one["images"][0]["preview"] for one in reports if "preview" in one["images"][0]]
    with Image.open(io.BytesIO(base64.b64decode(previews[-1]))) as opened:
        assert (opened.format, opened.size) == ("JPEG", (16, 16))


def test_a_cancelled_job_frees_its_rows_for_the_next_one(
    worker: Worker, platform: Platform
) -> None:
    platform.submit("cancelled", **LONG, progress=True)
    platform.wait_for_state("cancelled", "running")
    platform.submit("next", prompt=PROMPT, progress=True, **SMALL)
    platform.wait_for_state("next", "queued")  # there is no room for both
    platform.stops.put("cancelled")
    platform.result("next")
    assert "cancelled" not in platform.results
    worker.wait_for("Job stopped.")


def test_at_sigterm_jobs_under_way_are_finished_and_put_into_the_bucket(
    store: Store, tmp_path: Path
) -> None:
    secret = f"secret{secrets.token_hex(12)}"
    with Platform().serving() as platform, Bucket().serving() as bucket:
        own = environment(store, platform) | {
            "BUCKET_ENDPOINT_URL": bucket.url,
            "BUCKET_ACCESS_KEY_ID": "key-id",
            "BUCKET_SECRET_ACCESS_KEY": secret,
            "BUCKET_NAME": "pictures",
        }
        with working(own, tmp_path) as worker:
            platform.wait_until_asked()
            platform.submit(REFUSED, prompt="a", **SMALL)
            error = json.loads(platform.result(REFUSED)["error"])
            assert error["code"] == "upload_failed"
            assert "AccessDenied" in error["message"]

            names = ["first", "second"]
            for name in names:
                platform.submit(name, **LONG | {"steps": 150}, progress=True)
            platform.wait_for_state("first", "running")
            platform.wait_for_state("second", "queued")
            asked = platform.asked
            started = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            results = [platform.result(name)["output"]["images"] for name in names]
            assert worker.process.wait(15) == 0, worker.log
            # RunPod's package alone would wait for its open call, which is held for 30 s.
            assert time.monotonic() - started < 25
            assert platform.asked == asked

        for name, (image,) in zip(names, results, strict=True):
            assert image["url"].startswith(f"{bucket.url}/pictures/{name}/0.png?")
            assert "image" not in image
            kept = bucket.files[f"/pictures/{name}/0.png"]
            assert kept.media_type == "image/png"
            assert httpx.get(image["url"]).content == kept.content
            with Image.open(io.BytesIO(kept.content)) as opened:
                assert opened.size == (128, 128)
        assert secret not in worker.log
        assert "Signature" not in worker.log
        assert secret not in json.dumps([*platform.results.values()])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LPW_SDXL_MODEL": "none:such"}, "No model none:such"),
        ({"LPW_SDXL_RUNPOD_JOBS": "0"}, "LPW_SDXL_RUNPOD_JOBS"),
        ({"BUCKET_ENDPOINT_URL": "https://example.org"}, "not BUCKET_ACCESS_KEY_ID"),
        ({"BUCKET_ENDPOINT_URL": "example.org"}, "BUCKET_ENDPOINT_URL"),
    ],
    ids=["model", "jobs", "half a bucket", "no address"],
)
def test_a_wrong_setting_ends_the_start_with_one_sentence(
    store: Store, variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "lpw_sdxl.doors.runpod"],
        cwd=tmp_path,
        env=store.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("lpw-sdxl: ")
    assert words in line
