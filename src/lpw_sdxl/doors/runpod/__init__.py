"""RunPod's queue as a door: jobs to requests, images to outputs, and the loop that takes jobs.

`python -m lpw_sdxl.doors.runpod` is the worker. It needs the package `runpod`
(deploy/runpod/requirements.txt), which only the modules of that loop import.
"""
