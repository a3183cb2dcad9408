"""The served model and the add-ons that requests may name, as A1111 lists its files.

No folder of the server is shown: a path is the name of a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, with_config
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.endpoints import Backend, Call, Handler
from lpw_sdxl.doors.a1111.answering import answer_json
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.second_pass import UPSCALER_LABELS, Upscaler

if TYPE_CHECKING:
    from lpw_sdxl.addon.manifest import AddonManifest
    from lpw_sdxl.addon.registry import Addon, Registry

BUILT_IN_SCALE = 4.0  # as A1111 states it of upscalers that have no scale of their own
ENDING = ".safetensors"
Path = Annotated[str, Field(description="The name of a file.")]


@with_config(extra="forbid")
class ModelItem(TypedDict):
    """A checkpoint."""

    title: Annotated[str, Field(description="What the option sd_model_checkpoint has.")]
    model_name: str
    hash: Annotated[str, Field(description="The first ten digits of sha256.")]
    sha256: str
    filename: Path
    config: None


@with_config(extra="forbid")
class UpscalerItem(TypedDict):
    """An upscaler of second passes and of extra-single-image."""

    name: str
    model_name: str | None
    model_path: Path | None
    model_url: None
    scale: float


@with_config(extra="forbid")
class ModeItem(TypedDict):
    """An upscaler of latents."""

    name: str


@with_config(extra="forbid")
class LoraItem(TypedDict):
    """A LoRA."""

    name: Annotated[str, Field(description="What <lora:name:weight> takes.")]
    alias: str
    path: Path
    metadata: dict[str, str]


@with_config(extra="forbid")
class EmbeddingItem(TypedDict):
    """An embedding."""

    step: None
    sd_checkpoint: None
    sd_checkpoint_name: None
    shape: Annotated[int, Field(description="The widths of both text encoders together.")]
    vectors: Annotated[int, Field(description="Tokens that it takes.")]


@with_config(extra="forbid")
class EmbeddingList(TypedDict):
    """All embeddings by their names."""

    loaded: dict[str, EmbeddingItem]
    skipped: dict[str, EmbeddingItem]


def list_model(model: ServedModel) -> list[ModelItem]:
    """List the served model."""
    return [
        {
            "title": model.title,
            "model_name": model.name,
            "hash": model.short_hash,
            "sha256": model.sha256,
            "filename": model.filename,
            "config": None,
        }
    ]


def list_upscalers(imported: Mapping[str, Addon]) -> list[UpscalerItem]:
    """List the upscalers of pixels: those that every server has, then the imported ones.

    Args:
        imported: as a registry has them.
    """
    built_in = (Upscaler.NONE, Upscaler.LANCZOS, Upscaler.NEAREST)
    items: list[UpscalerItem] = [
        {
            "name": UPSCALER_LABELS[one],
            "model_name": None,
            "model_path": None,
            "model_url": None,
            "scale": BUILT_IN_SCALE,
        }
        for one in built_in
    ]
    for manifest in sorted((one.manifest for one in imported.values()), key=_by_name):
        items.append(
            {
                "name": manifest.name,
                "model_name": None,
                "model_path": manifest.name + ENDING,
                "model_url": None,
                "scale": float(manifest.details.scale),
            }
        )
    return items


def list_latent_modes() -> list[ModeItem]:
    """List the upscalers of latents."""
    return [{"name": UPSCALER_LABELS[one]} for one in Upscaler if one.is_latent]


def list_loras(loras: Mapping[str, Addon]) -> list[LoraItem]:
    """List the LoRAs, with the words that they were trained on.

    Args:
        loras: as a registry has them.
    """
    return [
        {
            "name": manifest.name,
            "alias": manifest.name,
            "path": manifest.name + ENDING,
            "metadata": _metadata(manifest.origin.notes.trained_words),
        }
        for manifest in sorted((one.manifest for one in loras.values()), key=_by_name)
    ]


def list_embeddings(embeddings: Mapping[str, Addon]) -> EmbeddingList:
    """List the embeddings.

    Args:
        embeddings: as a registry has them.
    """
    loaded: dict[str, EmbeddingItem] = {}
    for manifest in sorted((one.manifest for one in embeddings.values()), key=_by_name):
        loaded[manifest.name] = {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": sum(map(int, manifest.fits.split("+"))),
            "vectors": manifest.details.vectors,
        }
    return {"loaded": loaded, "skipped": {}}


def of_registry(describe: Callable[[Registry], object]) -> Handler:
    """Return a handler that describes what requests may name now, in a thread: it may be much."""

    async def answer(_call: Call, _request: Request, backend: Backend) -> Response:
        registry: Registry = backend.engine.registry
        return await asyncio.to_thread(lambda: answer_json(describe(registry)))

    return answer


def _by_name(manifest: AddonManifest) -> str:
    return manifest.name.lower()


def _metadata(trained_words: tuple[str, ...]) -> dict[str, str]:
    return {"modelspec.trigger_phrase": ", ".join(trained_words)} if trained_words else {}
