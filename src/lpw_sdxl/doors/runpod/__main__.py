"""`python -m lpw_sdxl.doors.runpod`: the worker of a queue endpoint."""

from __future__ import annotations

from lpw_sdxl.doors.runpod.worker import main

if __name__ == "__main__":
    main()
