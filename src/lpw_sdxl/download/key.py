"""A user's key for one source of downloads, and what its host means by refusing it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import SecretStr

from lpw_sdxl.download.urls import origin_of
from lpw_sdxl.errors import CheckpointError


@dataclass(frozen=True)
class Key:
    """A key that is sent to one origin, in a header.

    Attributes:
        value: empty where the user has none; the rest then advises how to get one.
        url: of the origin.
        variable: the environment variable that holds it.
        owner: the name of the source in a sentence.
        advice: how to get one, in a clause without a full stop.
        withheld: why a file may be refused to a valid key, in a clause likewise.
    """

    value: SecretStr
    url: str
    variable: str
    owner: str
    advice: str
    withheld: str

    @property
    def is_set(self) -> bool:
        """Return whether there is one to send."""
        return bool(self.value.get_secret_value())

    def belongs_to(self, url: str) -> bool:
        """Return whether a URL is of the key's origin."""
        return origin_of(url) == origin_of(self.url)

    def check(self) -> None:
        """Refuse a value that no header can hold; an error about the header would repeat it.

        Raises:
            CheckpointError: it has a character that no key has.
        """
        if not re.fullmatch("[!-~]*", self.value.get_secret_value()):
            raise CheckpointError(
                f"{self.variable} holds a space, a line break or another character that no key "
                "has; copy the key again."
            )
