"""Previews for clients: JPEGs in base64, drawn in a thread of their own."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.errors import OverloadedError

if TYPE_CHECKING:
    from lpw_sdxl.engine.progress import PreviewPicture

logger = logging.getLogger(__name__)

MOST = 256  # drawn or waiting; beyond it a client gets none


class PreviewMaker:
    """The drawing of previews; one that fails or has to wait too long is left out."""

    def __init__(self) -> None:
        self._pool = BoundedPool("previews", most=MOST)

    async def make(self, picture: PreviewPicture | None) -> str | None:
        """Draw a preview, as a JPEG in base64; None if there is none."""
        if picture is None:
            return None
        try:
            content = await self._pool.run(picture.encode)
        except OverloadedError:
            return None
        except Exception:
            logger.exception("a preview could not be drawn")
            return None
        return base64.b64encode(content).decode()
