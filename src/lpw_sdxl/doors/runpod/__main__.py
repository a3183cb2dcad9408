"""`python -m lpw_sdxl.doors.runpod`: the worker of a queue endpoint.

The process that sends RunPod signs of life imports this file again, and needs nothing of it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from lpw_sdxl.doors.runpod.worker import main

    main()
