"""Where a file comes from and what is said of it; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """What is known of a file besides its bytes; what nobody says is empty.

    Attributes:
        source: where it came from, without query or key, such as `civitai:128078`.
        title: what its makers call it.
        base_model: the family it belongs to or was made for, such as `Illustrious`.
        trained_words: words that it was trained to react to.
    """

    source: str
    title: str = ""
    base_model: str = ""
    trained_words: tuple[str, ...] = ()

    def or_else(self, other: Origin) -> Origin:
        """Take from another what this one doesn't say."""
        return Origin(
            self.source,
            self.title or other.title,
            self.base_model or other.base_model,
            self.trained_words or other.trained_words,
        )
