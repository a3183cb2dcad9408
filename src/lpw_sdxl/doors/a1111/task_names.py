"""Names of jobs for the names that clients give their tasks (`force_task_id`)."""

from __future__ import annotations

import hashlib
import re

from lpw_sdxl.field_types import REQUEST_ID

LONGEST = 120  # characters; an index may follow
_DIGITS = 32


def name_job(task_id: str) -> str:
    """Return the job's name for a task's: the same where it can be one, else a digest of it.

    A1111's own page names its tasks `task(abc)`, which no job can be named. Of several images of a
    request each has this name, `-` and its index (`Call.item_id`).
    """
    if re.fullmatch(REQUEST_ID, task_id) and len(task_id) <= LONGEST:
        return task_id
    return hashlib.sha256(task_id.encode(errors="replace")).hexdigest()[:_DIGITS]
