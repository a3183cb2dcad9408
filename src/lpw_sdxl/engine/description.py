"""An engine's description: what it serves, under which limits, and what it has done.

These types are the answer of /info and its schema in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from lpw_sdxl.addon.registry import Addon
from lpw_sdxl.conditioning.cache import CacheCounters
from lpw_sdxl.engine.metrics import LoopCounters
from lpw_sdxl.engine.offload import OffloadRule
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType, TimestepRounding
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.manifest import Manifest

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AutoV2 = Annotated[str, Field(pattern="^[0-9A-F]{10}$")]
Size = Annotated[str, Field(pattern="^[0-9]+x[0-9]+$", examples=["1024x1024"])]


class _Closed:
    """A part of an answer, with no other fields than those named."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ModelDescription(_Closed):
    """The served checkpoint and its source: its manifest without the files."""

    name: str
    source: str
    source_file: str
    source_size: Annotated[int, Field(ge=0, description="Bytes.")]
    source_sha256: Sha256
    title: str
    base_model: str
    trained_words: list[str]
    native_size: Size
    dtype: str
    prediction_type: str
    zero_terminal_snr: bool
    schedule_type: ScheduleType
    ema: bool
    vae: str
    ignored: dict[str, Count]
    inpainting: Annotated[bool, Field(description="Whether the UNet sees masks.")]
    defaults: Annotated[
        dict[str, Any],
        Field(description="The model's own, of fields that a request leaves out."),
    ]
    created: str
    importer_version: str
    source_autov2: AutoV2


@dataclass(frozen=True)
class HardwareDescription(_Closed):
    """The device: a GPU, or the CPU."""

    device: Annotated[str, Field(description="By torch's name.", examples=["cuda:0"])]
    name: Annotated[str, Field(examples=["NVIDIA RTX A5000"])]
    total_bytes: Annotated[int, Field(ge=0, description="A CPU's are those of its machine.")]
    free_bytes: Annotated[
        int | None,
        Field(ge=0, description="Before the model was moved there; null for a CPU."),
    ] = None
    driver: Annotated[
        str | None,
        Field(description="Version; null for a CPU, or where the kernel does not list it."),
    ] = None
    compute_capability: Annotated[
        str | None, Field(pattern=r"^[0-9]+\.[0-9]+$", description="Null for a CPU.")
    ] = None
    threads: Annotated[
        int | None, Field(ge=1, description="That torch computes with; null for a GPU.")
    ] = None

    def __str__(self) -> str:
        """Write the device as a part of a line of a log."""
        facts = [f"{self.total_bytes / 1e9:.1f} GB of memory"]
        if self.free_bytes is not None:
            facts.append(f"{self.free_bytes / 1e9:.1f} GB of it free before the model came")
        if self.compute_capability is not None:
            facts.append(f"driver {self.driver or 'of unknown version'}")
            facts.append(f"compute capability {self.compute_capability}")
        if self.threads is not None:
            facts.append(f"{self.threads} {'thread' if self.threads == 1 else 'threads'}")
        return f"{self.device} is {self.name} ({', '.join(facts)})"


@dataclass(frozen=True)
class MemoryDescription(_Closed):
    """The plan for the device's memory."""

    device: str
    hardware: HardwareDescription
    dtype: str
    decode_dtype: str
    weight_bytes: Count
    is_offloading: bool
    offload_rule: OffloadRule
    offload_reason: str
    max_rows: Count
    call_pixels: Count
    tile_above_pixels: Count
    keeps_projections: bool
    merged_bytes: Count
    max_lora_sets: Count
    graph_pixels: Count
    upscaling_bytes: Annotated[
        int, Field(ge=0, description="That one tile of an upscaler may take, at most.")
    ]
    kernels: Annotated[
        Literal["plain", "fused"],
        Field(description="What lies between the products of the networks: torch's, or ours."),
    ] = "plain"
    precision: Annotated[
        Literal["model", "fp8"], Field(description="Of the large products of the UNet.")
    ] = "model"


@dataclass(frozen=True)
class LimitsDescription(_Closed):
    """The limits in force."""

    max_prompt_characters: Count
    max_steps: Count
    max_size: Size
    max_batch_items: Count
    max_loras: Count
    max_prompt_chunks: Count
    max_prompt_variants: Count
    max_image_bytes: Count
    max_upscaled_pixels: Annotated[int, Field(ge=0, description="Of an answer of /upscale.")]
    max_queued_cost: Annotated[float, Field(description="Megapixel steps.")]
    time_limit_s: float

    @classmethod
    def of(cls, settings: Settings, max_size: ImageSize) -> LimitsDescription:
        """Read the limits from the settings of the same names, but the largest size."""
        facts: dict[str, Any] = {name: one for name, one in settings if name in cls.__annotations__}
        return cls(**facts, max_size=str(max_size))


@dataclass(frozen=True)
class _AddonDescription(_Closed):
    """An addon that a request may name."""

    name: str
    sha256: Sha256
    autov2: AutoV2
    base_model: str
    trained_words: list[str]


@dataclass(frozen=True)
class LoraDescription(_AddonDescription):
    """A LoRA that a request may name."""

    kinds: list[str]


@dataclass(frozen=True)
class EmbeddingDescription(_AddonDescription):
    """An embedding that a prompt may name."""

    vectors: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class EngineCounters(_Closed):
    """The engine's counters since it started."""

    queued_jobs: Count
    images: Count
    upscales: Annotated[int, Field(ge=0, description="Pictures enlarged by /upscale.")]
    failed: Count
    left: Annotated[int, Field(ge=0, description="Jobs whose client had disconnected.")]
    out_of_memory: Count
    unet_calls_by_jobs: Annotated[
        dict[str, Count], Field(description="Number of UNet calls by how many images they had.")
    ]

    @classmethod
    def of(cls, counters: LoopCounters, queued_jobs: int) -> EngineCounters:
        """Convert the loop's counters."""
        return cls(
            queued_jobs=queued_jobs,
            images=counters.images,
            upscales=counters.upscales,
            failed=counters.failed,
            left=counters.left,
            out_of_memory=counters.out_of_memory,
            unet_calls_by_jobs={str(k): n for k, n in sorted(counters.unet_calls.items())},
        )


@dataclass(frozen=True)
class PromptCache(_Closed):
    """The counters of the caches of encoded prompts."""

    conditionings: CacheCounters
    windows: CacheCounters


@dataclass(frozen=True)
class KDiffusionDescription(_Closed):
    """The choices of requests whose `sampler_implementation` is `k_diffusion`."""

    samplers: list[SamplerName]
    own_sampler: Annotated[
        SamplerName | None, Field(description="Without one a request must name its sampler.")
    ]
    schedule_types: list[SigmaScheduleType]
    noise_sources: list[NoiseSource]
    timestep_roundings: list[TimestepRounding]


@dataclass(frozen=True)
class EngineDescription(_Closed):
    """The description of an engine: what it serves, under which limits, and its counters."""

    model_tag: Annotated[str, Field(examples=["sdxl:6c5fa69b3e1d"])]
    version: str
    model: ModelDescription
    device: str
    memory: MemoryDescription
    schedulers: list[SchedulerName]
    own_scheduler: SchedulerName
    schedule_types: list[ScheduleType]
    own_schedule_type: ScheduleType
    k_diffusion: KDiffusionDescription
    prompt_styles: list[PromptStyle]
    limits: LimitsDescription
    upscalers: Annotated[
        list[str], Field(description="Of second passes; /upscale has all but the latent ones.")
    ]
    loras: list[LoraDescription]
    embeddings: list[EmbeddingDescription]
    engine: EngineCounters
    lora_files: CacheCounters
    prompt_cache: PromptCache


def describe_model(manifest: Manifest) -> ModelDescription:
    """Build the description of a model from its manifest."""
    facts: dict[str, Any] = manifest.describe()
    return ModelDescription(**facts)


def describe_k_diffusion(own_sampler: SamplerName | None) -> KDiffusionDescription:
    """List the choices of k-diffusion's family, which are the same for every model."""
    return KDiffusionDescription(
        [*SamplerName], own_sampler, [*SigmaScheduleType], [*NoiseSource], [*TimestepRounding]
    )


def describe_loras(addons: Mapping[str, Addon]) -> list[LoraDescription]:
    """List the LoRAs that can be named, sorted by name."""
    return [
        LoraDescription(**_facts(addon), kinds=[*addon.manifest.details.kinds])
        for _, addon in sorted(addons.items())
    ]


def describe_embeddings(addons: Mapping[str, Addon]) -> list[EmbeddingDescription]:
    """List the embeddings that can be named, sorted by name."""
    return [
        EmbeddingDescription(**_facts(addon), vectors=addon.manifest.details.vectors)
        for _, addon in sorted(addons.items())
    ]


def _facts(addon: Addon) -> dict[str, Any]:
    manifest = addon.manifest
    return {
        "name": manifest.name,
        "sha256": manifest.origin.sha256,
        "autov2": manifest.origin.autov2,
        "base_model": manifest.origin.notes.base_model,
        "trained_words": [*manifest.origin.notes.trained_words],
    }
