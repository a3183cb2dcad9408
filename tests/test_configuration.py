"""Every line of the two YAML files does something: BentoML ignores typing errors in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, Store

pytestmark = pytest.mark.processes

SHOW = """
import json
from bentoml._internal.configuration.containers import BentoMLContainer
import service
service.LpwSdxl.inject_config()
print(json.dumps(BentoMLContainer.config.services.get()["lpw_sdxl"]))
"""


def merged(store: Store, configuration: Path | None) -> dict[str, Any]:
    """What BentoML makes of the decorator and the file together."""
    environment = store.environment
    if configuration is not None:
        environment["BENTOML_CONFIG"] = str(configuration)
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def plain(store: Store) -> dict[str, Any]:
    return merged(store, None)


@pytest.fixture(scope="module")
def configured(store: Store) -> dict[str, Any]:
    return merged(store, ROOT / "configuration.yaml")


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {key: value for name in tree for key, value in leaves(tree[name], (*path, name)).items()}


def test_every_key_of_the_configuration_changes_what_bentoml_has(
    plain: dict[str, Any], configured: dict[str, Any]
) -> None:
    written = yaml.safe_load((ROOT / "configuration.yaml").read_text(encoding="utf-8"))
    ours = leaves(written["services"]["lpw_sdxl"])
    assert set(written) == {"services"}
    assert set(written["services"]) == {"lpw_sdxl"}
    default, effective = leaves(plain), leaves(configured)
    for path, value in ours.items():
        assert effective[path] == value
        assert path in default, f"BentoML knows no {path}"
        assert default[path] != value, f"{path} is what BentoML does anyway"
    changed = {path for path in effective if default.get(path) != effective[path]}
    assert changed == set(ours)


def test_what_must_hold_without_the_file_holds(plain: dict[str, Any]) -> None:
    assert plain["traffic"]["timeout"] == 605
    assert plain["workers"] == 1
    assert plain["resources"] == {"gpu": 1}
    assert plain["logging"]["access"]["enabled"] is False


def test_every_file_that_the_bento_includes_is_there() -> None:
    """What the file's other lines do is seen in a bento: bundle/test_bentofile.py."""
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    for pattern in bentofile["include"]:
        assert pattern.startswith("/"), f"{pattern} would match at every depth"
        assert (ROOT / pattern.strip("/")).exists(), pattern
