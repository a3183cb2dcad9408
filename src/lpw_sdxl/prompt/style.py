"""The dialects that a prompt can be written in; what each one does is declared by later stages."""

from __future__ import annotations

from enum import StrEnum

from lpw_sdxl.errors import InvalidRequestError


class PromptStyle(StrEnum):
    """A dialect: grammar, chunking, emphasis and pooled choice together."""

    LPW = "lpw"
    A1111 = "a1111"
    A1111_ORIGINAL = "a1111-original"
    COMFY = "comfy"
    PLAIN = "plain"

    @classmethod
    def named(cls, name: str) -> PromptStyle:
        """Find a style by its name.

        Raises:
            InvalidRequestError: there is no such style.
        """
        try:
            return cls(name)
        except ValueError as cause:
            names = ", ".join(cls)
            raise InvalidRequestError(
                f"prompt_style is unknown; it must be one of: {names}", field="prompt_style"
            ) from cause
