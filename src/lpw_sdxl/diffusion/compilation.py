"""A compiled UNet that takes over from the eager one, shape by shape, when it is ready.

Compiling takes a minute a shape, so it happens in a thread of its own while the eager UNet serves.
Rows are padded to a bucket and height and width are fixed, so that the number of shapes is small;
only the prompt's length is left open. What is compiled is kept by torch on the disk
(TORCHINDUCTOR_CACHE_DIR) and is there at the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

logger = logging.getLogger(__name__)

ROW_BUCKETS = (2, 4, 8, 16)
MOST_PADDING = 1.15  # times the rows: more costs what compiling gains
RECOMPILE_LIMIT = 64  # shapes that torch keeps; its own 8 would be used up by ours
PROMPT = "encoder_hidden_states"
MASK = "encoder_attention_mask"
Arguments = dict[str, Any]


class Shape(NamedTuple):
    """What one compiled form of the UNet is for."""

    rows: int
    height: int  # of the latents
    width: int
    columns: int  # of the prompt: its embeddings', or those of its keys and values
    is_masked: bool


def shape_of(arguments: Arguments) -> Shape:
    """Say which shape a call has."""
    rows, _, height, width = arguments["sample"].shape
    return Shape(rows, height, width, arguments[PROMPT].shape[-1], MASK in arguments)


class CompiledUnet:
    """Calls a UNet, compiled where that is ready for the call's shape.

    Args:
        unet: Diffusers' UNet2DConditionModel, with our attention processors.
        backend: torch.compile's.
    """

    def __init__(self, unet: Any, backend: str = "inductor") -> None:
        self._eager = unet
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        self._compiled: Callable[..., Any] = torch.compile(unet, dynamic=False, backend=backend)
        self._ready: frozenset[Shape] = frozenset()  # replaced whole: two threads look at it
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def __call__(self, **arguments: Any) -> Any:
        """Call the UNet; takes and gives what it does."""
        shape = shape_of(arguments)
        bucket = next((rows for rows in ROW_BUCKETS if rows >= shape.rows), shape.rows)
        is_ready = shape._replace(rows=bucket) in self._ready
        if not is_ready or bucket > MOST_PADDING * shape.rows:
            return self._eager(**arguments)
        output = self._run(pad_rows(arguments, bucket))
        return (output[0][: shape.rows], *output[1:])

    @property
    def ready(self) -> frozenset[Shape]:
        """Give the shapes that run compiled."""
        return self._ready

    def warm_up(self, examples: Sequence[Callable[[], Arguments]]) -> None:
        """Compile in a thread of its own.

        Args:
            examples: make arguments of calls, one after the other; each shape is taken over when
                its call has run twice, with its prompt as long as it is and half as long.
        """
        self._thread = threading.Thread(
            target=self._warm, args=(examples,), name="lpw-sdxl-compiler", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Compile nothing more after the shape at hand."""
        self._is_stopping = True

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until all is compiled."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _warm(self, examples: Sequence[Callable[[], Arguments]]) -> None:
        for make_example in examples:
            if self._is_stopping:
                return
            try:
                with torch.inference_mode():
                    self._compile(make_example())
            except torch.OutOfMemoryError:
                logger.warning("no memory to compile the UNet for one more shape; it stays eager")
            except Exception:  # the eager UNet goes on serving
                logger.exception("the UNet could not be compiled; it stays eager")
                return

    def _compile(self, example: Arguments) -> None:
        shape = shape_of(example)
        started = time.monotonic()
        for tokens in (example[PROMPT].shape[1], example[PROMPT].shape[1] // 2):
            self._run(_shorten(example, tokens))
        self._ready |= {shape}
        logger.info("UNet compiled for %s in %.1f s", shape, time.monotonic() - started)

    def _run(self, arguments: Arguments) -> Any:
        torch._dynamo.maybe_mark_dynamic(arguments[PROMPT], 1)
        if MASK in arguments:
            torch._dynamo.maybe_mark_dynamic(arguments[MASK], 1)
        return self._compiled(**arguments)


def pad_rows(arguments: Arguments, rows: int) -> Arguments:
    """Repeat the last row of every tensor until there are `rows`."""

    def pad(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: pad(inner) for name, inner in value.items()}
        if not isinstance(value, torch.Tensor) or len(value) == rows:
            return value
        return torch.cat([value, value[-1:].expand(rows - len(value), *value.shape[1:])])

    return {name: pad(value) for name, value in arguments.items()}


def _shorten(arguments: Arguments, tokens: int) -> Arguments:
    """Cut the prompt to so many tokens."""
    cut = {
        name: arguments[name][:, :tokens].contiguous()  # as the engine stacks it
        for name in (PROMPT, MASK)
        if name in arguments
    }
    return arguments | cut
