"""Schemathesis against A1111's door: requests made from the OpenAPI document, right and wrong.

Nothing is mocked; the checks are those of test_service_schemathesis.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Store
from serving import Server, serving
from test_service_schemathesis import LONG_RUN_CASES, SETTINGS, answered, fuzz

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.processes, pytest.mark.fuzz, pytest.mark.timeout(3600)]

PATHS = "^/(sdapi|internal|app_id|config|queue|login)"
OPERATIONS = 41


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store.environment | SETTINGS | {"LPW_SDXL_DOORS": "a1111"},
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


def test_ten_thousand_requests_get_documented_answers(server: Server, tmp_path: Path) -> None:
    report = fuzz(
        server,
        tmp_path,
        *("--include-path-regex", PATHS, "--max-examples", "600"),
        timeout_s=3500,
    )
    statuses = answered(server)
    cases = report["test_cases"]["generated"]
    logger.info("%d cases in %.0f s; %s", cases, report["running_time"], statuses)
    assert report["operations"]["tested"] == OPERATIONS
    assert cases >= LONG_RUN_CASES
    assert set(statuses) <= {"200", "400", "404", "405", "408", "409", "413", "415", "422", "429"}
    assert statuses["200"] > LONG_RUN_CASES / 10
    assert "Traceback" not in server.log
