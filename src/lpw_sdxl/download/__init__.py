"""Downloads of checkpoints: from an https URL or Civitai into a folder, resumed and verified.

`fetch.py` is the way in; `http.py` and `failures.py` alone know httpx. Nothing here knows what is
in a file.
"""

from lpw_sdxl.download.fetch import Download, fetch, remove
from lpw_sdxl.download.hooks import DownloadHooks

__all__ = ["Download", "DownloadHooks", "fetch", "remove"]
