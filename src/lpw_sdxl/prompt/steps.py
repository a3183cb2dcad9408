"""The steps that a prompt's schedule counts, as AUTOMATIC1111 counts them: calls of the UNet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one pass over an image, counted from 1.

    A scheduler that calls the UNet twice a step has twice as many, the last call that most of them
    leave out included. A second pass counts on: its first step is one more than the first pass's
    last, and its shares are from 1 to 2.

    Attributes:
        count: of this pass; at least 1.
        before: of the first pass, if this is the second; else None.
    """

    count: int
    before: int | None = None

    def last_before(self, when: str) -> int:
        """Find the last step of this pass that is not behind a moment, 0 to `count`.

        Args:
            when: a number as it is written. With a decimal point it is a share of all steps,
                without one a number of steps.
        """
        moment = float(when)
        if "." in when:
            moment = (moment - (0.0 if self.before is None else 1.0)) * self.count
        else:
            moment -= self.before or 0
        return int(min(max(moment, 0.0), self.count))
