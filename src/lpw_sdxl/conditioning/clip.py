"""One CLIP text encoder: windows of ids to hidden states and a pooled vector; no emphasis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lpw_sdxl.conditioning.token_rows import ExtendedTokenEmbedding
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer

WINDOWS_PER_CALL = 32
"""Windows in one forward pass: bounds its memory (all layers' hidden states are kept)."""

NO_VECTORS: Mapping[int, Tensor] = MappingProxyType({})


class EncodedWindow(NamedTuple):
    """One window, encoded by one encoder.

    Attributes:
        hidden: [tokens, dim], of the layer that clip_skip names, without the final norm.
        pooled: [projection], or None from an encoder without projection.
    """

    hidden: Tensor
    pooled: Tensor | None


class ClipTextEncoder:
    """A tokenizer and its text model; the model's dtype and device are the results'."""

    def __init__(
        self, tokenizer: ClipTokenizer, model: CLIPTextModel | CLIPTextModelWithProjection
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval().requires_grad_(requires_grad=False)
        self._table = ExtendedTokenEmbedding(self.model.get_input_embeddings())
        self.model.set_input_embeddings(self._table)
        # With the old `eos_token_id: 2` the model pools at the largest id, which an embedding's
        # is, and no longer that of EOS.
        inner = getattr(self.model, "text_model", self.model)
        inner.eos_token_id = tokenizer.special.eos

    @property
    def weight_bytes(self) -> int:
        """Count the bytes of the model's weights."""
        return sum(parameter.nbytes for parameter in self.model.parameters())

    @property
    def max_clip_skip(self) -> int:
        """Return the largest clip_skip, which takes the token embeddings, before any layer."""
        return int(self.model.config.num_hidden_layers) - 1

    @property
    def token_table(self) -> Tensor:
        """Return the model's own token embeddings: [vocabulary, dim]."""
        return self._table.weight

    @torch.inference_mode()
    def encode(
        self,
        windows: Sequence[tuple[int, ...]],
        clip_skip: int = 0,
        vectors: Mapping[int, Tensor] = NO_VECTORS,
    ) -> list[EncodedWindow]:
        """Encode windows of any lengths, in few calls.

        Args:
            windows: ids with BOS and EOS, at most 77 each.
            clip_skip: k takes `hidden_states[-(k + 2)]`; 0 to `max_clip_skip`.
            vectors: the token embedding, [dim], of every id above the vocabulary's.

        Returns:
            One for each window, in the order given.
        """
        by_length = sorted(range(len(windows)), key=lambda index: len(windows[index]))
        encoded: dict[int, EncodedWindow] = {}
        size = len(self._table.weight)
        rows = {id_: size + index for index, id_ in enumerate(vectors)}
        with self._table.rows([*vectors.values()]):
            for start in range(0, len(by_length), WINDOWS_PER_CALL):
                indexes = by_length[start : start + WINDOWS_PER_CALL]
                some = [tuple(rows.get(id_, id_) for id_ in windows[index]) for index in indexes]
                encoded.update(zip(indexes, self._encode_batch(some, clip_skip), strict=True))
        return [encoded[index] for index in range(len(windows))]

    def _encode_batch(
        self, windows: list[tuple[int, ...]], clip_skip: int
    ) -> Iterator[EncodedWindow]:
        # Padding on the right with EOS changes nothing: attention is causal, so no position sees
        # it, and the model pools at the first EOS (or, with the old `eos_token_id: 2`, at the
        # first largest id), which each window already has.
        length = max(map(len, windows))
        eos = self.tokenizer.special.eos
        padded = [ids + (eos,) * (length - len(ids)) for ids in windows]
        output = self.model(
            input_ids=torch.tensor(padded, device=self.model.device),  # [windows, length]
            output_hidden_states=True,
        )
        hidden = output.hidden_states[-(clip_skip + 2)]  # [windows, length, dim]
        pooled = getattr(output, "text_embeds", None)  # [windows, projection]
        for index, ids in enumerate(windows):
            yield EncodedWindow(
                hidden[index, : len(ids)], None if pooled is None else pooled[index]
            )


def count_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Count the bytes that tensors take on their device."""
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
