"""The rows of A1111's lists and options, and of what it does with files that are fixed here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.endpoints import Answer, Body, Endpoint, HeadCheck
from lpw_sdxl.doors.a1111.answering import (
    API,
    AT_ONCE,
    always,
    command_row,
    get_row,
)
from lpw_sdxl.doors.a1111.bodies import SMALL_BYTES
from lpw_sdxl.doors.a1111.memory import MemoryAnswer, answer_memory
from lpw_sdxl.doors.a1111.model_lists import (
    EmbeddingList,
    LoraItem,
    ModeItem,
    ModelItem,
    UpscalerItem,
    list_embeddings,
    list_latent_modes,
    list_loras,
    list_model,
    list_upscalers,
    of_registry,
)
from lpw_sdxl.doors.a1111.options import OptionSetter, list_options, parse_options
from lpw_sdxl.doors.a1111.sampling_lists import (
    SamplerItem,
    SchedulerItem,
    list_samplers,
    list_schedulers,
)
from lpw_sdxl.doors.a1111.served_model import ServedModel

EMPTY_LISTS = (
    *("sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "script-info", "extensions"),
)
"""Lists of what is not here: clients read them at their start, and stop at a 404."""
REFRESHES = ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings")
UNLOADS = ("unload-checkpoint", "reload-checkpoint")
_FLAGS = {"api": True, "nowebui": True, "api_log": False}


@with_config(extra="forbid")
class ScriptList(TypedDict):
    """The scripts by what they are for; there are none."""

    txt2img: list[str]
    img2img: list[str]


class OptionFields(BaseModel):
    """Any of the options; what is not known is ignored."""

    model_config = ConfigDict(extra="allow")

    sd_model_checkpoint: Any = None


def list_rows(model: ServedModel) -> Iterator[Endpoint]:
    """Build the rows."""
    yield from _fixed_rows(model)
    yield from _addon_rows()
    yield from _option_rows(model)
    for name in REFRESHES:
        yield command_row(
            f"{API}/{name}", "Nothing: what is new is noticed by itself.", type(None), always(None)
        )
    for name in UNLOADS:
        yield command_row(
            f"{API}/{name}", "Nothing: the model is always loaded.", dict[str, str], always({})
        )


def _fixed_rows(model: ServedModel) -> Iterator[Endpoint]:
    yield get_row(
        f"{API}/sd-models", "The served model.", list[ModelItem], always(list_model(model))
    )
    yield get_row(f"{API}/samplers", "The samplers.", list[SamplerItem], always(list_samplers()))
    yield get_row(
        f"{API}/schedulers",
        "The schedule types.",
        list[SchedulerItem],
        always(list_schedulers()),
    )
    yield get_row(
        f"{API}/latent-upscale-modes",
        "The upscalers of latents.",
        list[ModeItem],
        always(list_latent_modes()),
    )
    yield get_row(f"{API}/scripts", "None.", ScriptList, always(ScriptList(txt2img=[], img2img=[])))
    yield get_row(f"{API}/cmd-flags", "How A1111 was started.", dict[str, bool], always(_FLAGS))
    for name in EMPTY_LISTS:
        yield get_row(f"{API}/{name}", "None.", list[str], always([]))


def _addon_rows() -> Iterator[Endpoint]:
    yield get_row(
        f"{API}/upscalers",
        "The upscalers of pixels.",
        list[UpscalerItem],
        of_registry(lambda known: list_upscalers(known.upscalers)),
    )
    yield get_row(
        f"{API}/loras",
        "The LoRAs.",
        list[LoraItem],
        of_registry(lambda known: list_loras(known.loras)),
    )
    yield get_row(
        f"{API}/embeddings",
        "The embeddings.",
        EmbeddingList,
        of_registry(lambda known: list_embeddings(known.embeddings)),
    )
    yield get_row(f"{API}/memory", "The memory in use.", MemoryAnswer, answer_memory)


def _option_rows(model: ServedModel) -> Iterator[Endpoint]:
    path = f"{API}/options"
    yield get_row(path, "The options that hold here.", dict[str, Any], always(list_options(model)))
    yield Endpoint(
        ("POST",),
        path,
        "Check the model's name; no option is changed.",
        Answer("The model is served, or none was named.", (JSON,), type(None)),
        body=Body(
            parse_options,
            SMALL_BYTES,
            OptionFields,
            {"sd_model_checkpoint": model.title},
            head_check=HeadCheck.TOLERANT,
            is_required=False,
        ),
        handler=OptionSetter(model).answer,
        statuses=frozenset({500}),
        at_once=AT_ONCE,
    )
