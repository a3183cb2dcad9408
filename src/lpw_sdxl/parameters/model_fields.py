"""The model that a text names, and Civitai's list of what a picture was made with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.hashes import AUTOV2_DIGITS
from lpw_sdxl.parameters.offered import Offered
from lpw_sdxl.store.kind import slug

RESOURCES_KEY = "civitai resources"
MOST_RESOURCES = 32
_ENDINGS = (".safetensors", ".ckpt")
_COMMANDS: Mapping[str, str] = {
    "checkpoint": "checkpoint",
    "embed": "embedding",
    "embedding": "embedding",
    "textualinversion": "embedding",
}
# Civitai's names of files: urn:air:sdxl:lora:civitai:MODEL@VERSION.
_ADDRESS = re.compile(r":(\w{1,20}):civitai:\d{1,15}@(\d{1,15})")


def note_model(draft: Draft, offered: Offered | None) -> None:
    """Note a model that is not the served one."""
    name, digits = draft.written.value("model"), draft.written.value("model hash").lower()
    if offered is None or not (name or digits) or _is_served(name, digits, offered):
        return
    pair = draft.pair("model") or draft.pair("model hash")
    assert pair is not None
    shown = f"{name} [{digits}]" if name and digits else name or digits
    served = f"{offered.model_name} [{offered.model_sha256[:AUTOV2_DIGITS]}]"
    draft.note(
        pair.key, shown, f"Served is {served}; pictures of another model are others. Its import"
        " would be right."
    )  # fmt: skip


def note_resources(draft: Draft) -> None:
    """Note the LoRAs and embeddings that Civitai lists by their versions there."""
    pair = draft.pair(RESOURCES_KEY)
    if pair is None:
        return
    for resource in _read_resources(pair.value):
        address = _ADDRESS.search(str(resource.get("air", "")))
        kind = str(resource.get("type", address[1] if address else "")).casefold()
        version = resource.get("modelVersionId", int(address[2]) if address else None)
        if kind == "checkpoint" and draft.pair("model") is not None:
            continue
        name = " ".join(
            str(resource[key])
            for key in ("modelName", "modelVersionName", "versionName")
            if resource.get(key)
        )
        weight = resource.get("weight")
        shown = f"{kind} {name}".strip() + (f", weight {weight}" if weight is not None else "")
        draft.note(pair.key, shown, _explain(kind, version))


def _is_served(name: str, digits: str, offered: Offered) -> bool:
    """Return whether a model is the served one: by its hash, or by name where there is none.

    The hashes of 8 digits that A1111 had before its version 1.0 are of a part of the file.
    """
    if len(digits) >= AUTOV2_DIGITS:
        return offered.model_sha256.startswith(digits)
    known = {slug(_without_ending(one)) for one in (offered.model_name, offered.model_file)}
    return bool(name) and slug(_without_ending(name)) in known


def _without_ending(name: str) -> str:
    name = name.rpartition("/")[2].rpartition("\\")[2]
    return next((name.removesuffix(end) for end in _ENDINGS if name.endswith(end)), name)


def _read_resources(value: str) -> Iterator[Mapping[str, Any]]:
    try:
        resources = json.loads(value)
    except (ValueError, RecursionError):
        return
    if isinstance(resources, list):
        found = [resource for resource in resources if isinstance(resource, dict)]
        yield from found[:MOST_RESOURCES]


def _explain(kind: str, version: object) -> str:
    command = _COMMANDS.get(kind, "lora")
    if not isinstance(version, int):
        return "Civitai does not say which file it is; it is left out."
    import_it = f"model_import.py {command} civitai:{version} imports it"
    if command == "lora":
        return f"It is in no tag of the prompt; {import_it}, and then loras names it."
    return f"It is not looked for; {import_it}."
