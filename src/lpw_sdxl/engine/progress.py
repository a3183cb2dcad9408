"""The progress of an image, its previews as files, and its listener."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from lpw_sdxl.diffusion.preview import UndrawnPreview
from lpw_sdxl.imaging import encode_preview


class PreviewPicture:
    """A preview as a JPEG, made once, when it is first wanted; for any number of threads.

    Args:
        undrawn: what it is made of.
    """

    def __init__(self, undrawn: UndrawnPreview) -> None:
        self.byte_count = undrawn.byte_count  # at most: a JPEG is smaller
        self._undrawn: UndrawnPreview | None = undrawn
        self._file = b""
        self._making = threading.Lock()

    def encode(self) -> bytes:
        """Draw and encode it, an eighth of the image on each side; CPU work for a worker thread."""
        with self._making:
            if self._undrawn is not None:
                self._file = encode_preview(self._undrawn.draw())
                self._undrawn = None
            return self._file


@dataclass(frozen=True)
class ImageProgress:
    """The progress of one image.

    Attributes:
        unet_calls_done: so far.
        unet_calls: in all; some schedulers make nearly two a step.
        preview: a small picture of the expected image; None where none is wanted or it could not
            be made.
    """

    unet_calls_done: int
    unet_calls: int
    preview: PreviewPicture | None = None


def wants_none(_calls_done: int) -> bool:
    """Want no previews."""
    return False


def ignore() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Listener:
    """A listener to the progress of one image.

    Attributes:
        on_progress: called in the engine's thread after each of the image's UNet calls. It must
            return at once; an error of its own is logged, and it is not called again.
        wants_preview: called before that, in the same thread, with the UNet calls done: whether
            there is to be a preview of this one. The engine only copies latents for it.
        on_accepted: called once, in the thread of the request, when nothing can refuse it any more.
    """

    on_progress: Callable[[ImageProgress], None]
    wants_preview: Callable[[int], bool] = wants_none
    on_accepted: Callable[[], None] = ignore
