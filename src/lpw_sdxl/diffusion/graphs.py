"""Small UNet calls as CUDA graphs: recorded once a shape, then replayed by one launch.

A call of SDXL's UNet is some 2,500 kernels. Launching them takes a CPU about 0.1 s whatever the
number of rows, and an H100 computes two rows of 1024 x 1024 in a third of that: one image alone
waits for Python (benchmarks/results/gpu_kernels.json). A replay launches them all at once. Large
calls keep the device busy by themselves and are left as they are.

A graph holds the addresses of the weights it was recorded with: it is for the model's own only.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

logger = logging.getLogger(__name__)

MOST_GRAPHS = 8  # each is a shape: so many rows, of a size, with prompts of a length
SEEN_BEFORE = 2  # calls of a shape before it is recorded, for recording takes as long as three
MOST_SHAPES = 1024  # whose calls are counted

Shapes = tuple[tuple[int, ...], ...]


class GraphedUnet:
    """Calls a UNet, by a recorded graph where the call is small and its shape is a usual one.

    Args:
        call: the UNet, on a CUDA device.
        most_pixels: of all rows of a call that is recorded; 0 records none.
    """

    def __init__(self, call: Callable[..., Any], most_pixels: int) -> None:
        self._call = call
        self._most_pixels = most_pixels
        self._recorded: OrderedDict[Shapes, Recording] = OrderedDict()
        self._seen: Counter[Shapes] = Counter()
        self._pool: Any = None

    def __call__(self, **arguments: Any) -> Any:
        """Call the UNet; takes what it does, and gives a tuple of its prediction."""
        rows, _, height, width = arguments["sample"].shape
        if rows * height * width * 64 > self._most_pixels:  # a latent pixel is 8 x 8 pixels
            return self._call(**arguments)
        shapes = tuple(tuple(tensor.shape) for tensor in tensors_of(arguments))
        recording = self._recorded.get(shapes) or self._record(shapes, arguments)
        if recording is None:
            return self._call(**arguments)
        self._recorded.move_to_end(shapes)
        return (recording.replay(arguments),)

    def forget(self) -> None:
        """Let go of all recordings and their memory."""
        self._recorded.clear()
        self._seen.clear()
        self._pool = None

    def _record(self, shapes: Shapes, arguments: Mapping[str, Any]) -> Recording | None:
        """Record a call if its shape is a usual one and there is memory for it."""
        if self._seen[shapes] < SEEN_BEFORE:
            if len(self._seen) >= MOST_SHAPES:
                self._seen.clear()
            self._seen[shapes] += 1
            return None
        while len(self._recorded) >= MOST_GRAPHS:
            self._recorded.popitem(last=False)
        if self._pool is None:
            # One for all: their calls follow each other, and what they give is copied at once.
            self._pool = torch.cuda.graph_pool_handle()
        try:
            recording = Recording(self._call, arguments, self._pool)
        except RuntimeError as error:  # what is wrong with the device, an ordinary call will show
            logger.warning("UNet calls are no longer recorded as CUDA graphs: %s", error)
            self._most_pixels = 0
            self.forget()
            return None
        self._recorded[shapes] = recording
        return recording


class Recording:
    """One UNet call on tensors of its own.

    Args:
        call: as GraphedUnet's.
        arguments: of this call.
        pool: memory that all recordings use, one after the other.

    Raises:
        RuntimeError: if memory is short, or the call can't be recorded.
    """

    def __init__(self, call: Callable[..., Any], arguments: Mapping[str, Any], pool: Any) -> None:
        self._arguments = _copied(arguments)
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
        """Run the call on other numbers of the same shapes; the result is the caller's own."""
        for own, given in zip(tensors_of(self._arguments), tensors_of(arguments), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._prediction.clone()


def tensors_of(arguments: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Give all tensors of a call in the order of their names."""
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, Mapping):
            yield from tensors_of(value)
        elif isinstance(value, torch.Tensor):
            yield value


def _copied(value: Any) -> Any:
    """Copy all tensors of a call."""
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value
