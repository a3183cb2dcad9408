"""Schemathesis against a real server: requests made from the OpenAPI document, right and wrong.

Nothing is mocked: images are drawn, 64 x 64 pixels in at most 2 steps. Every answer has to be one
that the document lists, with its media type, headers and schema, and none may be a 5xx.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import ROOT, Store
from serving import Server, serving

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

SETTINGS = {
    "LPW_SDXL_MAX_STEPS": "2",
    "LPW_SDXL_MAX_WIDTH": "64",
    "LPW_SDXL_MAX_HEIGHT": "64",
    "LPW_SDXL_MAX_BATCH_ITEMS": "3",
    "LPW_SDXL_DOORS": "openai",  # test_service_a1111_schemathesis.py has the other one
}
SEED = "20261124"
HANG_S = "15"
OPERATIONS = 24
LONG_RUN_CASES = 10_000
# A request that fits the schema may still be refused: a schema can't express which LoRAs there are,
# how many tokens a text has, or whether a nanosecond is enough. All other checks are made.
LEFT_OUT = "positive_data_acceptance"
# A wrong body may also be refused for its length, before its type is checked.
CONFIGURATION = """
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 415, 429]
"""
LINE = re.compile(r"([A-Z]+ /\S*) (\d{3}) ")


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store.environment | SETTINGS,
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


def fuzz(server: Server, folder: Path, *options: str, timeout_s: float) -> dict[str, Any]:
    """Run schemathesis to its end and return its report."""
    report, configuration = folder / "report.json", folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration),
            "run", f"{server.url}/docs.json",
            "--checks", "all", "--exclude-checks", LEFT_OUT,
            "--request-timeout", HANG_S, "--max-response-time", HANG_S,
            "--seed", SEED, "--generation-database", "none", "--continue-on-failure",
            "--no-color", "--report", "json", "--report-json-path", str(report), *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(report.read_text())
    assert result["failures"] == result["errors"] == []
    assert result["complete"]
    return result


def answered(server: Server) -> Counter[str]:
    """Count the statuses in the server's own log."""
    return Counter(status for _, status in LINE.findall(server.log))


def test_a_native_size_over_the_limit_is_refused(server: Server) -> None:
    """The demo model's is 128; by the document, the size is then required."""
    response = httpx.post(
        f"{server.url}/generate", json={"prompt": "a", "num_inference_steps": 1, "width": 64}
    )
    assert response.status_code == 400
    assert response.json()["error"] == {
        "code": "invalid_request",
        "message": "height is 128, the model's native; at most 64 is accepted here",
        "field": "height",
    }
    schema = httpx.get(f"{server.url}/docs.json").json()["components"]["schemas"]
    assert {"width", "height"} <= set(schema["GenerationRequest"]["required"])


def test_every_border_of_the_document_is_kept(server: Server, tmp_path: Path) -> None:
    report = fuzz(server, tmp_path, "--phases", "examples,coverage", timeout_s=300)
    assert report["test_cases"]["generated"] > 300
    assert report["operations"]["tested"] == OPERATIONS
    assert not [status for status in answered(server) if status.startswith("5")]


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_get_documented_answers(server: Server, tmp_path: Path) -> None:
    report = fuzz(server, tmp_path, "--max-examples", "3300", timeout_s=3500)
    statuses = answered(server)
    logger.info(
        "%d cases in %.0f s; %s",
        report["test_cases"]["generated"],
        report["running_time"],
        statuses,
    )
    assert report["test_cases"]["generated"] >= LONG_RUN_CASES
    assert statuses.total() >= LONG_RUN_CASES
    assert set(statuses) <= {"200", "400", "404", "405", "408", "409", "413", "415", "429"}
    assert statuses["200"] > LONG_RUN_CASES / 10
    assert "Traceback" not in server.log
