"""The program that wrote a text, by the text's own words, and what it leaves unsaid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lpw_sdxl.parameters.written import WrittenParameters

OWN_NAME = "LPW-SDXL"

_A1111_VERSION = re.compile(r"(?:^|v)(\d{1,3})\.(\d{1,3})")
_FORGE = re.compile(r"f\d|neo|.*forge", re.IGNORECASE)
# A1111 1.9 made two keys, sampler and schedule type, of one name such as "DPM++ 2M Karras".
_SPLIT = (1, 9)


class Program(StrEnum):
    """Programs whose texts differ in what they leave unsaid."""

    A1111 = "AUTOMATIC1111"
    FORGE = "Forge"
    SD_NEXT = "SD.Next"
    COMFY_UI = "ComfyUI"
    OWN = OWN_NAME
    OTHER = "another program"


@dataclass(frozen=True)
class Writer:
    """The writer of a text.

    Attributes:
        program: by its version.
        a1111_version: of A1111, or of what a fork is made from; None where it is not known.
    """

    program: Program
    a1111_version: tuple[int, int] | None = None

    @property
    def splits_samplers(self) -> bool:
        """Return whether a sampler without a schedule type means A1111's `Automatic`.

        Before A1111 1.9 it meant the model's own schedule, and Karras was part of the name. Texts
        without a version are from then, or from pages that keep its names.
        """
        version = self.a1111_version
        if version is None:
            return self.program is Program.FORGE
        return version >= _SPLIT


def find_writer(written: WrittenParameters) -> Writer:
    """Find out which program wrote a text; one that says nothing is taken as A1111's."""
    version, app = written.value("version"), written.value("app")
    if version.startswith(OWN_NAME):
        return Writer(Program.OWN)
    if app.casefold().replace(" ", "").startswith(("sd.next", "sdnext")):
        return Writer(Program.SD_NEXT)
    if version.casefold().startswith("comfy"):
        return Writer(Program.COMFY_UI)
    found = _A1111_VERSION.search(version[:64])
    base = (int(found[1]), int(found[2])) if found else None
    if _FORGE.match(version[:64]):
        return Writer(Program.FORGE, base)
    if not version or (found is not None and found.start() == 0):
        return Writer(Program.A1111, base)
    return Writer(Program.OTHER)
