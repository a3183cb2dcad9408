"""What a start leaves out: a supervisor and an open port torch, imports the collector."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from conftest import ROOT, Store

pytestmark = pytest.mark.processes

HEAVY = ("torch", "diffusers", "transformers", "scipy", "numpy", "tokenizers", "prometheus_client")
REPORT = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"


def told_by(script: str, store: Store) -> Any:
    """Run Python where service.py is; read the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=store.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_supervisor_imports_nothing_heavy_and_verifies_without(store: Store) -> None:
    script = f"import json, sys, service; service.LpwSdxl.inner.verify_model(); {REPORT}"
    assert told_by(script, store) == []


def test_a_workers_imports_are_out_of_the_garbage_collectors_sight(store: Store) -> None:
    script = (
        "import gc, json, sys, service; service.LpwSdxl.to_asgi();"
        "assert 'torch' not in sys.modules;"
        "from lpw_sdxl.api.engine_start import import_packages; import_packages();"
        "seen = len(gc.get_objects());"
        "from lpw_sdxl.engine import Engine;"
        "print(json.dumps([gc.isenabled(), seen, len(gc.get_objects()) - seen]))"
    )
    is_enabled, seen, more = told_by(script, store)
    assert is_enabled
    assert seen < 10_000  # of 500,000 and more
    assert more < 1_000  # whatever the engine imports, it is not torch
