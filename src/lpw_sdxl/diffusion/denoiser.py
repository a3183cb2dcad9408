"""The UNet as the engine calls it: rows of many images in, their predictions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import part_gates
from lpw_sdxl.diffusion.graphs import GraphedUnet
from lpw_sdxl.diffusion.noise import send
from lpw_sdxl.diffusion.step import Denoising, PromptSide, Row
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.patched import RowRun
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

# Longer prompts are projected in every call: their keys and values are 0.33 MB a token in float16
# at SDXL's size, for each row that keeps them.
LONGEST_KEPT_TOKENS = 308


class Denoiser:
    """Runs one UNet for groups of images.

    Args:
        unet: Diffusers' UNet2DConditionModel; its attention and gated layers are made faster.
        device: where it runs.
        adapters: give the UNet each row's LoRAs; None where there are none.
        keeps_projections: whether a prompt's keys and values are kept over its steps.
        graph_pixels: of all rows of a call that is replayed as a CUDA graph; 0 for none.
    """

    def __init__(
        self,
        unet: Any,
        device: torch.device,
        adapters: Adapters | None = None,
        *,
        keeps_projections: bool = True,
        graph_pixels: int = 0,
    ) -> None:
        self._unet = unet
        self._adapters = adapters
        self._graphed = GraphedUnet(unet, graph_pixels)  # with the model's own weights
        self._device = device
        self._dtype: torch.dtype = unet.dtype  # asked once: it walks through all modules
        self._project = PromptProjection(unet)
        part_gates(unet)
        self._longest_kept = LONGEST_KEPT_TOKENS if keeps_projections else 0
        self._fence = Fence(device)
        # Of the last call: whose rows it had, and what stays the same while they step together.
        self._sides: tuple[PromptSide, ...] = ()
        self._stacked: dict[str, Any] = {}

    @torch.inference_mode()
    def predict(
        self, group: Sequence[Denoising], calls: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """Run the UNet for one step of a group of images of one size.

        Args:
            group: the images.
            calls: the rows of each UNet call, as indexes into all rows of the group, which follow
                one another as the images do; each row is in one call.

        Returns:
            for each image the prediction of its rows, `[1 or 2, 4, h, w]`, in the UNet's dtype.
        """
        rows_of = [denoising.rows() for denoising in group]
        rows = [row for rows in rows_of for row in rows]
        predictions: dict[int, torch.Tensor] = {}
        for unsorted in calls:
            call = self._sort_by_loras(unsorted, rows)
            some = [rows[index] for index in call]
            arguments = self.arguments(some)
            run = self._prepare(some)
            self._fence.wait()
            output = run(**arguments)[0]
            self._fence.mark()
            predictions.update(zip(call, output.split(1), strict=True))
        together = torch.cat([predictions[index] for index in range(len(rows))])
        return list(together.split([len(rows) for rows in rows_of]))

    def arguments(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Stack rows into the arguments of one UNet call.

        Prompts of different lengths are padded to the longest and the padding is masked out of the
        cross-attention, which keeps each row what it is alone; where all lengths agree nothing is
        masked, and no mask is passed. (A mask costs little: 16 rows of 154 tokens took an H100
        275.4 ms with one and 274.8 without, benchmarks/results/gpu_kernels.json.)
        """
        sides = tuple(row.prompt for row in rows)
        if self._sides != sides:
            self.forget()  # frees it before its successor is made
            self._stacked = self._stack(sides, [row.time_ids for row in rows])
            self._sides = sides
        return {
            "sample": torch.cat([row.latents for row in rows]).to(self._dtype),
            "timestep": send(torch.stack([row.timestep.float() for row in rows]), self._device),
            **self._stacked,
        }

    def _sort_by_loras(self, call: Sequence[int], rows: Sequence[Row]) -> list[int]:
        """Bring the rows of one set together, and sets that change few layers."""
        if self._adapters is None:
            return [*call]
        order: dict[LoraSet, tuple[int, int]] = {}
        for index in call:
            loras = rows[index].prompt.loras
            changed = self._adapters.count_changed_layers(Component.UNET, loras)
            order.setdefault(loras, (changed, len(order)))
        return sorted(call, key=lambda index: order[rows[index].prompt.loras])

    def _prepare(self, rows: Sequence[Row]) -> Callable[..., Any]:
        """Give the UNet the rows' LoRAs, and say how it is to be called."""
        if self._adapters is None:
            return self._graphed
        runs = [
            RowRun(loras, len([*some]))
            for loras, some in groupby(rows, key=lambda row: row.prompt.loras)
        ]
        self._adapters.divide(Component.UNET, runs)
        has_loras = any(run.loras != NO_LORAS for run in runs)
        return self._unet if has_loras else self._graphed

    def forget(self) -> None:
        """Let go of the last call's prompts: nobody is under way."""
        self._sides, self._stacked = (), {}

    def make_room(self) -> None:
        """Let go of recorded calls: memory is short."""
        self._graphed.forget()

    def _stack(
        self, sides: tuple[PromptSide, ...], time_ids: Sequence[torch.Tensor]
    ) -> dict[str, Any]:
        lengths = [side.tokens for side in sides]
        longest = max(lengths)
        if longest <= self._longest_kept:
            states = [self._projected(side) for side in sides]
        else:
            states = [side.embeds for side in sides]
        arguments: dict[str, Any] = {
            "encoder_hidden_states": pad_sequence(states, batch_first=True),
            "added_cond_kwargs": {
                "text_embeds": torch.stack([side.pooled for side in sides]),
                "time_ids": torch.stack([*time_ids]).to(self._dtype),
            },
            "return_dict": False,
        }
        if min(lengths) < longest:
            positions = torch.arange(longest)
            mask = positions[None, :] < torch.tensor(lengths)[:, None]  # [rows, tokens]
            arguments["encoder_attention_mask"] = send(mask, self._device)
        return arguments

    def _projected(self, side: PromptSide) -> torch.Tensor:
        """Give a prompt's keys and values, made with its own LoRAs."""
        if self._adapters is not None and not side.is_projected:
            self._adapters.use(Component.UNET, side.loras)
        return side.projected(self._project)


class Fence:
    """Keeps the thread at most one UNet call ahead of a CUDA device.

    Unfenced it would queue every step of an image in advance, and who joins or leaves would wait
    for all of them. On a CPU nothing runs ahead.
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
        """Wait until the call before is done."""
        if self._event is not None and self._is_marked:
            self._event.synchronize()
