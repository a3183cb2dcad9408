"""Compiles every kernel that SDXL's widths launch, for GPUs that are not here; prints JSON.

The launchers run on tensors of a CPU, and note what they would launch. Each different kernel is
compiled once for each target: its argument types, constants, and what Triton assumes of a multiple
of 16.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lpw_sdxl.diffusion.kernels import group_norm, pointwise, token_norm
from lpw_sdxl.diffusion.kernels.triton_operations import TritonOperations

# Channels and pixels of the UNet's and the VAE's group norms, channels of the layer norms.
FEATURES = [(320, 1024), (640, 256), (960, 256), (1280, 64), (1920, 64), (2560, 64), (128, 4096)]
TOKENS = [640, 1280]
FLOAT8_CAPABILITY = 89
TYPES = {
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float8_e4m3fn: "*fp8e4nv",
}
Launch = tuple[Any, dict[str, str], dict[str, Any], list[str], dict[str, Any]]


class Noted:
    """A kernel that notes its launches."""

    def __init__(self, kernel: Any, launches: dict[str, Launch]) -> None:
        self._kernel, self._launches = kernel, launches

    def __getitem__(self, _: object) -> Any:
        return self._note

    def _note(self, *arguments: Any, **options: Any) -> None:
        signature, constants, multiples = {}, {}, set()
        for parameter, value in zip(self._kernel.params, arguments, strict=True):
            name = parameter.name
            if parameter.is_constexpr:
                signature[name], constants[name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
                multiples.add(name)  # the allocator's addresses are
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
                if isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize:
                    multiples.add(name)
        launch = (self._kernel, signature, constants, sorted(multiples), options)
        self._launches[f"{self._kernel.__name__} {launch[1:]}"] = launch


def launch_all(*, quantises: bool) -> dict[str, Launch]:
    """Note all launches of a UNet and a VAE in float16."""
    launches: dict[str, Launch] = {}
    for module in (group_norm, pointwise, token_norm):
        for name, kernel in vars(module).items():
            is_entry = isinstance(kernel, triton.JITFunction) and name not in (
                "_gated",
                "_store_quantised",
            )
            if is_entry:
                setattr(module, name, Noted(kernel, launches))
    operations = TritonOperations()
    for rows in (1, 2, 3, 16):
        for channels, pixels in FEATURES:
            norm = nn.GroupNorm(32, channels).half()
            states = torch.empty(rows, channels, pixels // 8, 8, dtype=torch.float16)
            shift = torch.empty(rows, channels)
            operations.group_norm(states, norm, has_silu=True, shift=shift)
            operations.group_norm(states, norm, has_silu=False)
            operations.add_residual(states, states)
            operations.add_residual(states, states, norm.bias)
            operations.add_residual(states, states, norm.bias.float())
        for channels in TOKENS:
            norm = nn.LayerNorm(channels).half()
            states = torch.empty(rows, 64, channels, dtype=torch.float16)
            wide = torch.empty(rows, 64, 8 * channels, dtype=torch.float16)
            for is_float8 in (False, True) if quantises else (False,):
                operations.add_layer_norm(None, states, norm, quantises=is_float8)
                operations.add_layer_norm(states, states, norm, quantises=is_float8)
                operations.gate(wide, quantises=is_float8)
            if quantises:
                operations.quantise(states)
    return launches


def compile_for(capability: int, launch: Launch) -> dict[str, int]:
    """Compile one kernel; return its size, and the bytes of registers that it spills."""
    kernel, signature, constants, multiples, options = launch
    names = [*signature]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in multiples},
    )
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {"bytes": len(built.asm["cubin"]), "spilled": count_spilled(built.asm["cubin"])}


def count_spilled(cubin: bytes) -> int:
    """Read how many bytes of registers a kernel spills, with the tool in Triton's wheel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"LOCAL:(\d+)", shown.stdout)
    assert found, shown.stdout
    return int(found[1])


def main() -> None:
    found = {}
    everything = launch_all(quantises=True)
    for capability in map(int, sys.argv[1:]):
        launches = everything
        if capability < FLOAT8_CAPABILITY:
            launches = {
                name: launch
                for name, launch in everything.items()
                if "*fp8e4nv" not in launch[1].values()
            }
        found[capability] = {
            name: compile_for(capability, launch) for name, launch in launches.items()
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
