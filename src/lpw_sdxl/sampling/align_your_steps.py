"""The tables of sigmas that were optimised for SDXL, and sigmas between their entries.

"Align Your Steps" is NVIDIA's (Sabour et al., arXiv 2404.14507), "GITS" that of Chen et al. (arXiv
2405.11326), both as AUTOMATIC1111 and Forge have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lpw_sdxl.sampling_options import SigmaScheduleType

_ELEVEN = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
TABLES: Mapping[SigmaScheduleType, Sequence[float]] = {
    SigmaScheduleType.ALIGN_YOUR_STEPS: _ELEVEN,
    SigmaScheduleType.ALIGN_YOUR_STEPS_11: _ELEVEN,
    SigmaScheduleType.ALIGN_YOUR_STEPS_GITS: (
        *(14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029),
    ),
    SigmaScheduleType.ALIGN_YOUR_STEPS_32: (
        *(14.615, 11.1491618, 8.50522127, 6.48827151, 5.43707402, 4.60398619, 3.89854704),
        *(3.27407457, 2.74396527, 2.29968659, 1.95448514, 1.67108715, 1.42878152, 1.23181009),
        *(1.06789649, 0.92579443, 0.80290886, 0.69660121, 0.60436903, 0.52852552, 0.46773344),
        *(0.41393379, 0.36258186, 0.31008517, 0.26518925, 0.22326461, 0.17653877, 0.13959192),
        *(0.10587381, 0.05519369, 0.02877334, 0.015),
    ),
}
"""Descending sigmas; the 0 at the end is left out."""


def read_table(schedule_type: SigmaScheduleType, count: int) -> torch.Tensor:
    """Read a number of sigmas off a table, log-linearly between its entries.

    Args:
        schedule_type: one that has a table.
        count: of sigmas; of one alone it is the smallest.

    Returns:
        Descending, float32, `[count]`.
    """
    table = TABLES[schedule_type]
    places = np.linspace(0, 1, count)
    logarithms = np.interp(places, np.linspace(0, 1, len(table)), np.log(table[::-1]))
    return torch.from_numpy(np.exp(logarithms)[::-1].astype(np.float32))
