"""Small UNet calls as CUDA graphs: recorded once for each shape, then replayed by one launch.

A call of SDXL's UNet is some 2,500 kernels. Launching them takes a CPU about 0.1 s whatever the
number of rows, and an H100 computes two rows of 1024 x 1024 in a third of that: one image alone
waits for Python (benchmarks/results/gpu_kernels.json). A replay launches all kernels at once. Large
calls keep the device busy by themselves and are called as usual.

A graph holds the addresses of the weights it was recorded with, so that it serves only rows without
LoRAs, which use the model's own weights.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

logger = logging.getLogger(__name__)

MAX_GRAPHS = 8  # each for one shape: a number of rows, a size, and a length of prompts
CALLS_BEFORE_RECORDING = 2  # of a shape; a recording takes as long as three calls
MAX_COUNTED_SHAPES = 1024  # shapes whose calls are counted

Shapes = tuple[tuple[int, ...], ...]


class GraphedUnet:
    """A UNet whose small calls of frequent shapes are replayed from recorded graphs.

    Args:
        call: the UNet, on a CUDA device.
        max_pixels: of all rows of a call that is recorded, at most; 0 records none.
    """

    def __init__(self, call: Callable[..., Any], max_pixels: int) -> None:
        self._call = call
        self._max_pixels = max_pixels
        self._recorded: OrderedDict[Shapes, Recording] = OrderedDict()
        self._seen: Counter[Shapes] = Counter()
        self._pool: Any = None

    def __call__(self, **arguments: Any) -> Any:
        """Call the UNet with its own arguments; return a tuple of its prediction."""
        rows, _, height, width = arguments["sample"].shape
        if rows * height * width * 64 > self._max_pixels:  # a latent pixel is 8 x 8 pixels
            return self._call(**arguments)
        shapes = tuple(tuple(tensor.shape) for tensor in list_tensors(arguments))
        recording = self._recorded.get(shapes) or self._record(shapes, arguments)
        if recording is None:
            return self._call(**arguments)
        self._recorded.move_to_end(shapes)
        return (recording.replay(arguments),)

    def clear(self) -> None:
        """Drop all recordings and free their memory."""
        self._recorded.clear()
        self._seen.clear()
        self._pool = None

    def _record(self, shapes: Shapes, arguments: Mapping[str, Any]) -> Recording | None:
        """Record a call if its shape is a frequent one and there is memory for it."""
        if self._seen[shapes] < CALLS_BEFORE_RECORDING:
            if len(self._seen) >= MAX_COUNTED_SHAPES:
                self._seen.clear()
            self._seen[shapes] += 1
            return None
        while len(self._recorded) >= MAX_GRAPHS:
            self._recorded.popitem(last=False)
        if self._pool is None:
            # One pool for all: recordings run one by one, and each result is copied at once.
            self._pool = torch.cuda.graph_pool_handle()
        try:
            recording = Recording(self._call, arguments, self._pool)
        except RuntimeError as error:  # an ordinary call will show what is wrong with the device
            logger.warning("UNet calls are no longer recorded as CUDA graphs: %s", error)
            self._max_pixels = 0
            self.clear()
            return None
        self._recorded[shapes] = recording
        return recording


class Recording:
    """One UNet call, recorded on tensors of its own.

    Args:
        call: the UNet.
        arguments: of the call.
        pool: memory that all recordings use, one after the other.

    Raises:
        RuntimeError: if memory is short, or the call can't be recorded.
    """

    def __init__(self, call: Callable[..., Any], arguments: Mapping[str, Any], pool: Any) -> None:
        self._arguments = _copy(arguments)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call(**self._arguments)  # libraries choose their kernels and workspaces now
        # A program that embeds the engine may use the device from other threads meanwhile.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._prediction: torch.Tensor = call(**self._arguments)[0]

    def replay(self, arguments: Mapping[str, Any]) -> torch.Tensor:
        """Run the call on other numbers of the same shapes; return the prediction as a copy."""
        for own, given in zip(list_tensors(self._arguments), list_tensors(arguments), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._prediction.clone()


def list_tensors(arguments: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """List all tensors of a call's arguments in the order of their names."""
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, Mapping):
            yield from list_tensors(value)
        elif isinstance(value, torch.Tensor):
            yield value


def _copy(value: Any) -> Any:
    """Copy all tensors of a call's arguments."""
    if isinstance(value, Mapping):
        return {name: _copy(one) for name, one in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value
