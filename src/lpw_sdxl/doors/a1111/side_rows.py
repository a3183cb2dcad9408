"""The rows beside A1111's API that clients ask for: signs of life, its page's own paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.doors.a1111.answering import always, command_row, get_row
from lpw_sdxl.doors.a1111.model_lists import list_latent_modes, list_upscalers, of_registry
from lpw_sdxl.doors.a1111.served_model import ServedModel

if TYPE_CHECKING:
    from lpw_sdxl.addon.registry import Registry

HIRES_UPSCALERS = "txt2img_hr_upscaler"
_APP_ID_DIGITS = 8  # of the model's hash, hex: A1111's id is a number drawn at its start


@with_config(extra="forbid")
class AppId(TypedDict):
    """The server's number."""

    app_id: int


@with_config(extra="forbid")
class QueueStatus(TypedDict):
    """The state of the queue of A1111's page; this server has none."""

    msg: str
    rank: None
    queue_size: int
    avg_event_process_time: None
    avg_event_concurrent_process_time: None
    rank_eta: None
    queue_eta: int


@with_config(extra="forbid")
class PageConfig(TypedDict):
    """The parts of A1111's page that clients read: the choice of upscalers."""

    components: list[dict[str, Any]]


def side_rows(model: ServedModel) -> Iterator[Endpoint]:
    """Build the rows."""
    yield get_row("/internal/ping", "A sign of life.", dict[str, str], always({}))
    number = int(model.sha256[:_APP_ID_DIGITS] or "0", 16)
    yield get_row("/app_id", "The server's number.", AppId, always({"app_id": number}))
    yield get_row("/queue/status", "The queue of a page: none.", QueueStatus, always(_NO_QUEUE))
    yield get_row(
        "/config", "What clients read of A1111's page.", PageConfig, of_registry(describe_page)
    )
    yield command_row(
        "/login",
        "Nothing: each request has its token.",
        dict[str, bool],
        always({"success": True}),
    )


def describe_page(registry: Registry) -> PageConfig:
    """Describe the one part of A1111's page that clients look for."""
    names = [one["name"] for one in (*list_latent_modes(), *list_upscalers(registry.upscalers))]
    props = {"elem_id": HIRES_UPSCALERS, "choices": names}
    return {"components": [{"id": 1, "type": "dropdown", "props": props}]}


_NO_QUEUE: QueueStatus = {
    "msg": "estimation",
    "rank": None,
    "queue_size": 0,
    "avg_event_process_time": None,
    "avg_event_concurrent_process_time": None,
    "rank_eta": None,
    "queue_eta": 0,
}
