"""The doors by name, and the setting that names those that are open."""

from __future__ import annotations

import re
from enum import StrEnum

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX

ALL, NONE = "all", "none"
_SETTING = f"{ENVIRONMENT_PREFIX}DOORS"


class DoorName(StrEnum):
    """The doors."""

    OPENAI = "openai"
    A1111 = "a1111"
    PAGE = "page"


def read_doors(text: str) -> tuple[DoorName, ...]:
    """Parse the names in the setting, with commas or blanks between them.

    Raises:
        SettingsError: one is no name of a door; the message lists the right ones.
    """
    words = [word for word in re.split(r"[,\s]+", text.lower()) if word]
    if words in ([], [NONE]):
        return ()
    if words == [ALL]:
        return tuple(DoorName)
    for word in words:
        if word not in [*DoorName]:
            raise SettingsError(
                f"{_SETTING}: {word[:40]} is no door; right are {', '.join(DoorName)}, {ALL} or"
                f" {NONE}"
            )
    return tuple(name for name in DoorName if name in words)
