"""The answers of status 200 that are JSON, as types: for the OpenAPI document.

Nothing is made from these types at run time; a test holds the service's real answers against them,
and a field that they don't name fails it. An inspection's type is `conditioning.explain`'s own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from lpw_sdxl.prompt.style import PromptStyle
from lpw_sdxl.scheduler_names import SchedulerName

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Size = Annotated[str, Field(pattern="^[0-9]+x[0-9]+$", examples=["1024x1024"])]


class _Answer(BaseModel):
    """An object of which every field is named and always there."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class BatchImage(_Answer):
    """An item of a batch that became an image."""

    status: Literal["ok"]
    seed: Annotated[int, Field(ge=0, le=2**64 - 1, description="Makes the same image again.")]
    width: Annotated[int, Field(ge=1, description="Pixels.")]
    height: Annotated[int, Field(ge=1, description="Pixels.")]
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    image: Annotated[
        str,
        Field(description="The file, in base64.", json_schema_extra={"contentEncoding": "base64"}),
    ]


class BatchError(_Answer):
    """An item of a batch that failed; the others did not."""

    status: Literal["error"]
    code: str
    message: str
    field: Annotated[str | None, Field(description="Of this item, such as `width`.")]


class BatchAnswer(RootModel[list[BatchImage | BatchError]]):
    """One item for each request, in their order."""


class Model(_Answer):
    """What the served checkpoint is, and where it came from."""

    name: str
    source: str
    source_file: str
    source_size: Annotated[int, Field(ge=0, description="Bytes.")]
    source_sha256: Sha256
    source_autov2: Annotated[str, Field(pattern="^[0-9A-F]{10}$")]
    title: str
    base_model: str
    trained_words: list[str]
    native_size: Size
    dtype: str
    prediction_type: str
    zero_terminal_snr: bool
    ema: bool
    vae: str
    ignored: dict[str, Count]
    created: str
    importer_version: str


class Memory(_Answer):
    """What was planned from the device's memory."""

    device: str
    dtype: str
    decode_dtype: str
    weight_bytes: Count
    is_offloading: bool
    max_rows: Count
    call_pixels: Count
    tile_above_pixels: Count
    keeps_projections: bool
    merged_bytes: Count
    max_lora_sets: Count
    graph_pixels: Count


class Limits(_Answer):
    """The limits in force."""

    max_prompt_characters: Count
    max_steps: Count
    max_size: Size
    max_batch_items: Count
    max_loras: Count
    max_prompt_chunks: Count
    max_queued_cost: Annotated[float, Field(description="Megapixel steps.")]
    time_limit_s: float


class _Addon(_Answer):
    """What can be named in a request."""

    name: str
    sha256: Sha256
    autov2: Annotated[str, Field(pattern="^[0-9A-F]{10}$")]
    base_model: str
    trained_words: list[str]


class Lora(_Addon):
    """A LoRA that a request may name."""

    kinds: list[str]


class TextualInversion(_Addon):
    """An embedding that a prompt may name."""

    vectors: Annotated[int, Field(ge=1)]


class EngineCounters(_Answer):
    """What the engine has done since it started."""

    queued_jobs: Count
    images: Count
    failed: Count
    left: Annotated[int, Field(ge=0, description="Whose client had gone.")]
    out_of_memory: Count
    unet_calls_by_jobs: Annotated[
        dict[str, Count], Field(description="Number of UNet calls by how many images they had.")
    ]


class CacheCounters(_Answer):
    """How a cache does."""

    hits: Count
    misses: Count
    entries: Count
    bytes: Count


class PromptCache(_Answer):
    """What is remembered of encoded prompts."""

    conditionings: CacheCounters
    windows: CacheCounters


class InfoAnswer(_Answer):
    """What is served, under which limits, and what the engine has done."""

    model_tag: Annotated[str, Field(examples=["sdxl:6c5fa69b3e1d"])]
    version: str
    model: Model
    device: str
    memory: Memory
    schedulers: list[SchedulerName]
    own_scheduler: SchedulerName
    prompt_styles: list[PromptStyle]
    limits: Limits
    loras: list[Lora]
    embeddings: list[TextualInversion]
    engine: EngineCounters
    lora_files: CacheCounters
    prompt_cache: PromptCache
