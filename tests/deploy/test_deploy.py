"""What deploys: held against Kubernetes' own schemas, BentoML's, and the service's settings."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate
import pytest
import yaml
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.utils.cattr import bentoml_cattr
from prometheus_client import CollectorRegistry

from conftest import ROOT
from lpw_sdxl.api.operation import PROBES
from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.settings import ENVIRONMENT_PREFIX, Settings, variable_of

KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPONENTS = ("components/scaling", "components/model-volume")
FOLDERS = (KUBERNETES / "base", *(KUBERNETES / name for name in COMPONENTS))
OWN_KINDS = {
    "Kustomization",
    "Component",
    "ScaledObject",
}  # Kustomize's and KEDA's: no part of Kubernetes
OLDEST, NEWEST = "1.31", "1.37"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def patched(deployment: dict[str, Any]) -> dict[str, Any]:
    return jsonpatch.apply_patch(
        deployment, read(KUBERNETES / "components/model-volume/patch.yaml")
    )


MANIFESTS = {
    path.relative_to(KUBERNETES).as_posix(): read(path)
    for path in KUBERNETES.rglob("*.yaml")
    if path.name != "patch.yaml" and read(path)["kind"] not in OWN_KINDS
}
DEPLOYMENT = MANIFESTS["base/deployment.yaml"]
EVERY = MANIFESTS | {"model-volume/deployment": patched(copy.deepcopy(DEPLOYMENT))}


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return one


@pytest.mark.parametrize("name", EVERY)
def test_kubernetes_takes_it(name: str) -> None:
    kubernetes_validate.validate(EVERY[name], OLDEST, strict=True)


def test_the_newest_kubernetes_takes_the_deployment() -> None:
    kubernetes_validate.validate(DEPLOYMENT, NEWEST, strict=True)


def test_a_spoilt_one_is_not_taken() -> None:
    spoilt = copy.deepcopy(DEPLOYMENT)
    container(spoilt)["livenessProbe"]["periodSecond"] = 5
    with pytest.raises(kubernetes_validate.ValidationError, match="periodSecond"):
        kubernetes_validate.validate(spoilt, OLDEST, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_kustomization_names_every_file_beside_it(folder: Path) -> None:
    told = read(folder / "kustomization.yaml")
    named = set(told["resources"])
    named |= {patch["path"] for patch in told.get("patches", [])}
    assert named == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_no_kustomization_is_built_on_one_around_it() -> None:
    """Kustomize calls that a cycle; scaling/ and model-volume/ once were."""
    for folder in (KUBERNETES, *FOLDERS):
        told = read(folder / "kustomization.yaml")
        for name in [*told["resources"], *(told.get("components") or [])]:
            other = (folder / name).resolve()
            assert other.exists()
            assert other not in (folder, *folder.parents)


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")


def rendered(tmp_path: Path, *components: str) -> list[dict[str, Any]]:
    """Render as somebody does who takes the # from some lines."""
    copied = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copied)
    file = copied / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    for component in components:
        assert text.count(f"#  - {component}") == 1
        text = text.replace(f"#  - {component}", f"  - {component}")
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["kubectl", "kustomize", str(copied)], check=True, capture_output=True, text=True
    )
    return [*yaml.safe_load_all(done.stdout)]


@needs_kubectl
@pytest.mark.processes
@pytest.mark.parametrize("components", [(), COMPONENTS[:1], COMPONENTS[1:], COMPONENTS])
def test_kubectl_renders_every_choice(tmp_path: Path, components: tuple[str, ...]) -> None:
    manifests = rendered(tmp_path, *components)
    for manifest in manifests:
        if manifest["kind"] != "ScaledObject":
            kubernetes_validate.validate(manifest, OLDEST, strict=True)
    kinds = [manifest["kind"] for manifest in manifests]
    assert len(kinds) == 5 + len(components)
    assert ("ScaledObject" in kinds) is (COMPONENTS[0] in components)
    (deployment,) = (one for one in manifests if one["kind"] == "Deployment")
    assert container(deployment)["image"] == "lpw-sdxl:latest"
    mounted = {mount["name"] for mount in container(deployment)["volumeMounts"]}
    assert mounted == {
        volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]
    }
    assert ("models" in mounted) is (COMPONENTS[1] in components)


def test_the_parts_find_each_other() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["base/service.yaml"]["spec"]["selector"] == labels
    assert MANIFESTS["base/disruption-budget.yaml"]["spec"]["selector"]["matchLabels"] == labels
    policy = MANIFESTS["base/network-policy.yaml"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    ports = {port["name"] for port in container(DEPLOYMENT)["ports"]}
    assert {port["targetPort"] for port in MANIFESTS["base/service.yaml"]["spec"]["ports"]} <= ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= ports
    (source,) = container(DEPLOYMENT)["envFrom"]
    assert source["configMapRef"]["name"] == MANIFESTS["base/settings.yaml"]["metadata"]["name"]
    claim = MANIFESTS["components/model-volume/claim.yaml"]["metadata"]["name"]
    volumes = EVERY["model-volume/deployment"]["spec"]["template"]["spec"]["volumes"]
    assert claim in [
        v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
    ]
    (image,) = read(KUBERNETES / "kustomization.yaml")["images"]
    assert container(DEPLOYMENT)["image"] == image["name"]
    scaled = read(KUBERNETES / "components/scaling/scaled-object.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert "replicas" not in DEPLOYMENT["spec"]


def test_its_probes_ask_what_is_there_and_wait_for_the_model() -> None:
    one = container(DEPLOYMENT)
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert one[name]["httpGet"]["path"] in PROBES
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 600


def test_settings_are_known_and_leave_time_to_end() -> None:
    data = MANIFESTS["base/settings.yaml"]["data"]
    told = {name: value for name, value in data.items() if name.startswith(ENVIRONMENT_PREFIX)}
    fields = {name.removeprefix(ENVIRONMENT_PREFIX).lower(): told[name] for name in told}
    assert fields.keys() <= Settings.model_fields.keys()
    settings = Settings.model_validate(fields)
    grace = DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.time_limit_s + settings.drain_s + 10
    readiness = container(DEPLOYMENT)["readinessProbe"]
    assert settings.drain_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    mounts = {mount["mountPath"] for mount in container(DEPLOYMENT)["volumeMounts"]}
    assert str(settings.tokens_file).startswith("/secrets/")
    assert {"/tmp", "/secrets"} <= mounts
    assert data["BENTOML_HOME"].startswith("/tmp/")


def test_what_asks_for_a_gpu_serves_on_nothing_else() -> None:
    assert container(DEPLOYMENT)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert MANIFESTS["base/settings.yaml"]["data"]["LPW_SDXL_DEVICE"] == "cuda"
    cloud = read(ROOT / "deploy" / "bentocloud.yaml")
    assert cloud["services"]["lpw_sdxl"]["instance_type"].startswith("gpu.")
    assert {"name": "LPW_SDXL_DEVICE", "value": "cuda"} in cloud["envs"]


def test_no_volume_is_mounted_inside_another() -> None:
    """What makes the folders between them is root, and the service is not."""
    mounts = container(EVERY["model-volume/deployment"])["volumeMounts"]
    paths = [Path(mount["mountPath"]) for mount in mounts]
    assert len({*paths}) == len(paths) == 3
    assert not [(inner, outer) for inner in paths for outer in paths if outer in inner.parents]


def test_models_are_mounted_where_the_image_was_tried_with_them() -> None:
    mounts = container(EVERY["model-volume/deployment"])["volumeMounts"]
    (path,) = (mount["mountPath"] for mount in mounts if mount["name"] == "models")
    tried = (ROOT / "tests" / "container" / "test_container.py").read_text(encoding="utf-8")
    assert f":{path}:ro" in tried
    (variable,) = container(EVERY["model-volume/deployment"])["env"]
    assert variable == {"name": variable_of(Settings, "store"), "value": path}


def test_it_scales_on_a_metric_that_exists() -> None:
    scaled = read(KUBERNETES / "components/scaling/scaled-object.yaml")
    (trigger,) = scaled["spec"]["triggers"]
    registry = CollectorRegistry()
    EngineMetrics(registry)
    names = {metric.name for metric in registry.collect()}
    asked = set(re.findall(r"lpw_sdxl_\w+", trigger["metadata"]["query"]))
    assert asked
    assert asked <= names


def test_bentocloud_takes_its_file() -> None:
    told = read(ROOT / "deploy" / "bentocloud.yaml")
    made = bentoml_cattr.structure(told, CreateDeploymentSchema)
    assert told.pop("access_authorization") is False  # BentoML leaves out what it has anyway
    assert bentoml_cattr.unstructure(made) == told
    (service,) = made.services
    assert service == "lpw_sdxl"
    for env in told["envs"]:
        assert env["name"].removeprefix(ENVIRONMENT_PREFIX).lower() in Settings.model_fields
    told["services"][service]["instance_typ"] = "gpu"  # BentoML drops what it does not know
    assert bentoml_cattr.unstructure(bentoml_cattr.structure(told, CreateDeploymentSchema)) != told
