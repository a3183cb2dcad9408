"""The UNet as the engine calls it: rows of many images in, their predictions out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.fused_unet import Fusion, fuse_unet
from lpw_sdxl.diffusion.graphs import GraphedUnet
from lpw_sdxl.diffusion.noise import copy_to_device
from lpw_sdxl.diffusion.step import MAX_KEPT_TOKENS, Denoising, PromptSide, UnetRow
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.patched import RowRun
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

SMALLEST_CALL = 2  # rows in fp8: one image with guidance


def padded_rows(rows: int, most: int) -> int:
    """Round a number of rows up to 2, 4, 8, 16 and so on, but to no more than a call may have.

    Args:
        rows: at least 1.
        most: that a call may have; larger numbers of rows stay as they are.
    """
    round_number = max(SMALLEST_CALL, 1 << (rows - 1).bit_length())
    return max(rows, min(round_number, most))


class Denoiser:
    """The UNet for groups of images, each with its own prompts and LoRAs.

    Args:
        unet: Diffusers' UNet2DConditionModel; its attention and gated layers are made faster.
        device: where it runs.
        adapters: put each row's LoRAs into the UNet; None where there are none.
        keeps_projections: whether a prompt's keys and values are kept over its steps.
        graph_pixels: of all rows of a call that is replayed as a CUDA graph, at most; 0 for none.
        fusion: how the UNet is fused; None leaves Diffusers' blocks. In fp8 the rows of a call are
            filled up to a round number (`padded_rows`), for a product's roundings may differ by the
            number of its rows, and fp8 makes small differences large.
    """

    def __init__(
        self,
        unet: Any,
        device: torch.device,
        adapters: Adapters | None = None,
        *,
        keeps_projections: bool = True,
        graph_pixels: int = 0,
        fusion: Fusion | None = None,
    ) -> None:
        self._unet = unet
        self._adapters = adapters
        self._graphed = GraphedUnet(unet, graph_pixels)  # with the model's own weights
        self._device = device
        self._dtype: torch.dtype = unet.dtype  # read once: it walks through all modules
        self._project = PromptProjection(unet)
        split_gates(unet)
        if fusion is not None:
            fuse_unet(unet, fusion)
        self._fills_up = fusion is not None and fusion.quantises
        self._max_kept_tokens = MAX_KEPT_TOKENS if keeps_projections else 0
        self._fence = Fence(device)
        # Of the last call: its rows' prompts, and the arguments that stay while they step together.
        self._sides: tuple[PromptSide, ...] = ()
        self._prompt_arguments: dict[str, Any] = {}

    @torch.inference_mode()
    def predict(
        self,
        group: Sequence[Denoising],
        calls: Sequence[Sequence[int]],
        max_rows: int = sys.maxsize,
    ) -> list[torch.Tensor]:
        """Run the UNet for one step of a group of images of one size.

        Args:
            group: the images.
            calls: the rows of each UNet call, as indexes into all rows of the group in the order
                of the images; each row is in one call.
            max_rows: that a call has room for, where it is filled up.

        Returns:
            for each image the predictions of its rows, `[1 or 2, 4, h, w]`, in the UNet's dtype.
        """
        rows_of = [denoising.rows() for denoising in group]
        rows = [row for rows in rows_of for row in rows]
        predictions: dict[int, torch.Tensor] = {}
        for unsorted in calls:
            call = self._sort_by_loras(unsorted, rows)
            called = self._fill_up([rows[index] for index in call], max_rows)
            arguments = self.stack(called)
            unet = self._prepare(called)
            self._fence.wait()
            output = unet(**arguments)[0]
            self._fence.mark()
            predictions.update(zip(call, output[: len(call)].split(1), strict=True))
        in_order = torch.cat([predictions[index] for index in range(len(rows))])
        return list(in_order.split([len(rows) for rows in rows_of]))

    def stack(self, rows: Sequence[UnetRow]) -> dict[str, Any]:
        """Stack rows into the arguments of one UNet call.

        Prompts of different lengths are padded to the longest and the padding is masked out of the
        cross-attention, so that each row's prediction is that of the row alone; where all lengths
        are equal no mask is passed. (A mask costs little: 16 rows of 154 tokens took an H100
        275.4 ms with one and 274.8 without, benchmarks/results/gpu_kernels.json.)
        """
        sides = tuple(row.prompt for row in rows)
        if self._sides != sides:
            self.release_prompts()  # before the next arguments are made, to free their memory
            self._prompt_arguments = self._stack_prompts(sides, [row.time_ids for row in rows])
            self._sides = sides
        return {
            "sample": torch.cat([row.latents for row in rows]).to(self._dtype),
            "timestep": copy_to_device(
                torch.stack([row.timestep.float() for row in rows]), self._device
            ),
            **self._prompt_arguments,
        }

    def _fill_up(self, rows: list[UnetRow], max_rows: int) -> list[UnetRow]:
        """Repeat the last row of a call until its number of rows is a round one, in fp8."""
        if not self._fills_up:
            return rows
        return rows + rows[-1:] * (padded_rows(len(rows), max_rows) - len(rows))

    def _sort_by_loras(self, call: Sequence[int], rows: Sequence[UnetRow]) -> list[int]:
        """Sort the rows of a call by their sets of LoRAs: sets that change few layers first."""
        if self._adapters is None:
            return [*call]
        order: dict[LoraSet, tuple[int, int]] = {}
        for index in call:
            loras = rows[index].prompt.loras
            changed = self._adapters.count_changed_layers(Component.UNET, loras)
            order.setdefault(loras, (changed, len(order)))
        return sorted(call, key=lambda index: order[rows[index].prompt.loras])

    def _prepare(self, rows: Sequence[UnetRow]) -> Callable[..., Any]:
        """Put the rows' LoRAs into the UNet; return what to call: the UNet or its graphs."""
        if self._adapters is None:
            return self._graphed
        runs = [
            RowRun(loras, len([*of_set]))
            for loras, of_set in groupby(rows, key=lambda row: row.prompt.loras)
        ]
        self._adapters.divide(Component.UNET, runs)
        has_loras = any(run.loras != NO_LORAS for run in runs)
        return self._unet if has_loras else self._graphed

    def release_prompts(self) -> None:
        """Free what is kept of the last call's prompts."""
        self._sides, self._prompt_arguments = (), {}

    def release_graphs(self) -> None:
        """Free the memory of all recorded calls."""
        self._graphed.clear()

    def _stack_prompts(
        self, sides: tuple[PromptSide, ...], time_ids: Sequence[torch.Tensor]
    ) -> dict[str, Any]:
        lengths = [side.tokens for side in sides]
        longest = max(lengths)
        if longest <= self._max_kept_tokens:
            states = [self._project_once(side) for side in sides]
        else:
            states = [side.embeds for side in sides]
        arguments = prompt_arguments(
            pad_sequence(states, batch_first=True),
            torch.stack([side.pooled for side in sides]),
            torch.stack([*time_ids]).to(self._dtype),
        )
        if min(lengths) < longest:
            positions = torch.arange(longest)
            mask = positions[None, :] < torch.tensor(lengths)[:, None]  # [rows, tokens]
            arguments["encoder_attention_mask"] = copy_to_device(mask, self._device)
        return arguments

    def _project_once(self, side: PromptSide) -> torch.Tensor:
        """Compute a prompt's keys and values with its own LoRAs, or return the kept ones."""
        if self._adapters is not None and not side.is_projected:
            self._adapters.use(Component.UNET, side.loras)
        return side.project_once(self._project)


def prompt_arguments(
    states: torch.Tensor, pooled: torch.Tensor, time_ids: torch.Tensor
) -> dict[str, Any]:
    """Build the arguments of a UNet call that are the same at each of its steps.

    Args:
        states: prompts, `[rows, tokens, 2048]`, or their projections, `[rows, tokens, width]`.
        pooled: `[rows, 1280]`.
        time_ids: `[rows, 6]`.
    """
    return {
        "encoder_hidden_states": states,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
        "return_dict": False,
    }


class Fence:
    """A bound that keeps the thread at most one UNet call ahead of a CUDA device.

    Without it the thread would launch every step of an image in advance, and a job that begins or
    is cancelled would wait for all of them. On a CPU nothing runs ahead.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None
        self._is_marked = False

    def mark(self) -> None:
        """Mark the end of a call."""
        if self._event is not None:
            self._event.record()
            self._is_marked = True

    def wait(self) -> None:
        """Wait until the marked call is done."""
        if self._event is not None and self._is_marked:
            self._event.synchronize()
