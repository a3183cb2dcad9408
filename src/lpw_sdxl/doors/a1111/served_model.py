"""The served model by A1111's names for it: its title, its file, its hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.store.kind import slug

SHORT_DIGITS = 10  # of a file's SHA-256, in titles and texts
_ENDINGS = (".safetensors", ".ckpt")
_WITH_HASH = re.compile(r"(.+?)\s*\[([0-9a-f]{6,64})\]", re.IGNORECASE)
_HASH = re.compile(r"[0-9a-f]{10,64}", re.IGNORECASE)
_LONGEST = 300  # characters; a longer text is no name


@dataclass(frozen=True)
class ServedModel:
    """The served model.

    Attributes:
        name: in the store; A1111's `model_name`.
        tag: in the store, `name:version`.
        file: name of the checkpoint's file; empty if it is not known.
        sha256: of that file, hex.
    """

    name: str
    tag: str
    file: str
    sha256: str

    @property
    def short_hash(self) -> str:
        """Return the hash that titles and texts have."""
        return self.sha256[:SHORT_DIGITS]

    @property
    def filename(self) -> str:
        """Return the name of its file, as lists have it: no folder of the server is shown."""
        return f"{self.name}{_ENDINGS[0]}"

    @property
    def title(self) -> str:
        """Return the name by which A1111 chooses a model, `name.safetensors [hash]`."""
        return f"{self.filename} [{self.short_hash}]"

    def is_named(self, text: str) -> bool:
        """Return whether a text is one of its names in A1111: of those with a hash, that counts.

        Title, file's name with or without its ending and folder, name, tag, short or whole hash.
        """
        text = text.strip()
        if not text or len(text) > _LONGEST:
            return False
        if found := _WITH_HASH.fullmatch(text):
            return self._has_hash(found[2])
        if _HASH.fullmatch(text) and self._has_hash(text):
            return True
        known = {slug(_stem(one)) for one in (self.name, self.tag, self.file) if one}
        return slug(_stem(text)) in known

    def _has_hash(self, digits: str) -> bool:
        """Return whether it has a hash; those of 8 digits, of older versions, are of a part."""
        return self.sha256.startswith(digits.lower())


@dataclass(frozen=True)
class ServedHere:
    """The server whose requests are read.

    Attributes:
        limits: on requests.
        native_size: of the model, the size of a request that names none.
        model: that is served.
    """

    limits: RequestLimits
    native_size: ImageSize
    model: ServedModel


def _stem(name: str) -> str:
    name = name.replace("\\", "/").rpartition("/")[2]
    ending = next((end for end in _ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]
