"""Wrong requests, each with its exact answer: README's promises about errors, spelled out.

One module for each part of a request; `ALL_CASES` is all of them. The answers are a server's with
the settings `SETTINGS`, the demo model, two LoRAs (detail, texture) and an embedding (glow).
"""

from __future__ import annotations

from bad_requests.batches import CASES as BATCHES
from bad_requests.bodies import CASES as BODIES
from bad_requests.case import SETTINGS, Bad
from bad_requests.fields import CASES as FIELDS
from bad_requests.heads import CASES as HEADS
from bad_requests.loras import CASES as LORAS
from bad_requests.prompts import CASES as PROMPTS
from bad_requests.streams import CASES as STREAMS
from bad_requests.values import CASES as VALUES

__all__ = ["ALL_CASES", "SETTINGS", "Bad"]

ALL_CASES: dict[str, list[Bad]] = (
    BODIES | FIELDS | VALUES | PROMPTS | LORAS | BATCHES | STREAMS | HEADS
)
