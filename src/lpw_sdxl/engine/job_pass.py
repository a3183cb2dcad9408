"""The passes of jobs whose prompts are encoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.job_spec import PassSpec
from lpw_sdxl.lora.sets import LoraSet


class JobPass(NamedTuple):
    """A pass of a job."""

    job: Job
    number: int  # from 0

    @property
    def spec(self) -> PassSpec:
        """Return what was decided for it."""
        return self.job.spec.passes[self.number]


def group_by_text_loras(jobs: Sequence[Job]) -> dict[LoraSet, list[JobPass]]:
    """Group the passes of jobs by the LoRAs of their text encoders."""
    groups: dict[LoraSet, list[JobPass]] = {}
    for job in jobs:
        for index, one in enumerate(job.spec.passes):
            groups.setdefault(one.loras.text_encoders, []).append(JobPass(job, index))
    return groups
