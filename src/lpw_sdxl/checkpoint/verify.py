"""The written model directory, read again: every parameter that will be loaded is there, once.

Reads headers and configuration as they lie on disk, not what the conversion believed it wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

from lpw_sdxl.checkpoint.configs import Component
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.header import read_header
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.errors import CheckpointError


def verify_directory(directory: Path, dtype: CheckpointDtype) -> None:
    """Check a model directory against the modules that Diffusers and Transformers will build.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape or dtype.
    """
    configs = {
        component: json.loads((directory / component.config_file).read_bytes())
        for component in Component
    }
    for component, parameters in parameter_shapes(configs).items():
        file_name = component.weights_file
        tensors = read_header(directory / file_name).tensors
        for key in sorted(parameters.keys() ^ tensors.keys()):
            state = "is missing from" if key in parameters else "is left over in"
            raise CheckpointError(f"The conversion failed: {key} {state} {file_name}.")
        for key, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (parameters[key], dtype.code):
                raise CheckpointError(
                    f"The conversion failed: {key} in {file_name} is {tensor.dtype} "
                    f"{list(tensor.shape)}; {dtype.code} {list(parameters[key])} would be right."
                )
