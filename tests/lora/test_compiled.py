"""A compiled UNet runs with whatever set is in it, and isn't compiled again for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora.conftest import CPU, networks_of
from lora.test_adapters import AB, ABC, A, unet_arguments
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

MANY_BYTES = 2**30


@pytest.mark.parametrize(
    ("backend", "begins_with"), [("eager", NO_LORAS), ("aot_eager", ABC)], ids=["base", "set"]
)
def test_sets_change_what_a_compiled_unet_gives_without_compiling_again(
    pipeline: Pipeline, library: LoraLibrary, backend: str, begins_with: LoraSet
) -> None:
    graphs = 0
    compile_graph: Any = torch._dynamo.lookup_backend(backend)

    def counting(module: Any, inputs: Any, **options: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return compile_graph(module, inputs, **options)

    torch._dynamo.reset()
    try:
        with torch.inference_mode():
            adapters = Adapters(networks_of(pipeline), library, CPU, MANY_BYTES)
            arguments = unet_arguments(2, pipeline.unet)
            compiled = torch.compile(pipeline.unet, dynamic=False, backend=counting)
            adapters.use(Component.UNET, begins_with)
            compiled(**arguments)
            once = graphs
            assert once > 0
            found = {}
            for loras in (A, NO_LORAS, AB, ABC, A, NO_LORAS):
                adapters.use(Component.UNET, loras)
                found[loras] = compiled(**arguments)[0]
                torch.testing.assert_close(
                    found[loras], pipeline.unet(**arguments)[0], rtol=1e-4, atol=1e-5
                )
            assert graphs == once
            for loras in (A, AB, ABC):
                assert (found[loras] - found[NO_LORAS]).abs().max() > 1e-2
    finally:
        torch._dynamo.reset()
