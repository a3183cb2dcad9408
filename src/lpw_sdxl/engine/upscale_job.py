"""A picture to enlarge inside the engine."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from lpw_sdxl.engine.cost import Work
from lpw_sdxl.engine.enlarging import Enlarging, largest_pixels
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.engine.queued_job import QueuedJob, TimeLimits
from lpw_sdxl.engine.upscaled_image import UpscaledImage
from lpw_sdxl.engine.upscalers import NetworkUpscaling, UpscalerNetworks
from lpw_sdxl.imaging.resizing import Pixels
from lpw_sdxl.second_pass import Enlargement, Upscaler
from lpw_sdxl.upscale_request import UpscaleRequest


@dataclass(frozen=True)
class UpscaleSpec:
    """A request to enlarge a picture, with everything decided that it left open.

    Attributes:
        request: without the picture's file.
        enlargement: the sizes to reach.
        network: an imported upscaler's work; None for none.
        parameters: the text of A1111's that the picture's file has; empty for none.
    """

    request: UpscaleRequest
    enlargement: Enlargement
    network: NetworkUpscaling | None = None
    parameters: str = ""

    @property
    def cost(self) -> float:
        """Compute the cost of all tiles, megapixels of UNet rows."""
        return 0.0 if self.network is None else self.network.cost

    @property
    def largest_pixels(self) -> int:
        """Count the pixels of the largest picture on the way."""
        return largest_pixels(self.enlargement, self.network)


class UpscaleJob(QueuedJob[UpscaledImage]):
    """One picture from its request's acceptance to its larger pixels.

    Args:
        spec: of it.
        pixels: of the picture, `[h, w, 3]`.
        limits: of its time.
        listener: of its progress.

    Attributes:
        enlarging: of the picture.
    """

    def __init__(
        self,
        spec: UpscaleSpec,
        pixels: Pixels,
        limits: TimeLimits,
        listener: Listener | None = None,
    ) -> None:
        super().__init__(limits, listener)
        self.spec = spec
        upscaler = spec.request.built_in or Upscaler.LANCZOS
        self.enlarging = Enlarging(pixels, spec.enlargement, upscaler, spec.network)

    @property
    def calls(self) -> int:
        """Count the tiles of its network in all; 0 where it has none."""
        return 0 if self.spec.network is None else self.spec.network.tiles

    @property
    def steps(self) -> int:
        """Count its tiles in all: it has no other steps."""
        return self.calls

    @property
    def most_rows(self) -> int:
        """Count the rows of its UNet calls: it makes none."""
        return 0

    @property
    def first_cost(self) -> float:
        """Compute the cost of a tile, megapixels of UNet rows."""
        return 0.0 if self.spec.network is None else self.spec.network.cost_per_tile

    @property
    def work(self) -> Work:
        """Compute the work that is left."""
        return Work(0.0, 0.0, self.enlarging.tile_cost)

    def shared_work(self, max_rows: int) -> Work:  # noqa: ARG002 - of UNet calls
        """Compute the work that is left, of which nothing is shared."""
        return self.work

    @property
    def is_resizing(self) -> bool:
        """Return whether all that it waits for is its resizing in a thread."""
        return self.enlarging.is_resizing

    def begin(self, threads: Executor) -> None:
        """Leave to threads what needs no network."""
        if not self.enlarging.wants_tile:
            self.enlarging.resize(threads)

    def advance(
        self, networks: UpscalerNetworks, threads: Executor, *, in_small_tiles: bool = False
    ) -> None:
        """Enlarge a tile; after the last one, leave the rest to threads.

        Raises:
            GenerationError: the network gave numbers that are not finite.
        """
        self.enlarging.advance(networks, in_small_tiles=in_small_tiles)
        self.begin(threads)

    def report_tiles(self) -> None:
        """Report to the listener how many tiles are done."""
        self.report(ImageProgress(round(self.enlarging.tiles_done), self.calls))

    @property
    def image(self) -> UpscaledImage:
        """Return the enlarged picture, or raise what its resizing raised."""
        return UpscaledImage(self.enlarging.result, self.spec.request, self.spec.parameters)

    def release(self) -> None:
        """Drop a picture that is to be resized in a thread."""
        self.enlarging.release()
