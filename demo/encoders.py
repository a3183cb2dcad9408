"""Training of the demo's text encoders: tokens from which a caption's attributes can be read off.

The UNet finds words by attention: a query that matches some tokens, and a linear map of their
states. So do the probes here, one for each attribute, over all windows of a caption; what they
learn to read, the UNet can learn to read. There are three losses: for the attributes read by the
probes, for each token's label, and for the attributes in the pooled vector.
"""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from demo.captions import MEANINGS, Caption, describe
from demo.networks import ENCODER_WIDTHS
from demo.scene import SCENES, Scene
from demo.schedule import optimiser, steps
from demo.words import Vocabulary, Windows, lay_out

STEPS = 1400
BATCH = 32
RATE = 3e-3
PENULTIMATE = -2
"""The layer whose hidden states SDXL's UNet takes."""


def train_encoders(encoders: tuple[Any, Any], vocabulary: Vocabulary, seed: int) -> None:
    """Train both text encoders together."""
    chance = random.Random(seed)
    probes = _Probes(sum(ENCODER_WIDTHS), ENCODER_WIDTHS[1])
    modules = (*encoders, probes)
    adam = optimiser((p for module in modules for p in module.parameters()), RATE)
    for encoder in encoders:
        encoder.train()
    for _, report in steps("text encoders", STEPS, adam):
        captions = [describe(chance.choice(SCENES), chance) for _ in range(BATCH)]
        laid = [lay_out(caption, vocabulary) for caption in captions]
        hidden, pooled = read_windows(encoders, torch.cat([one.ids for one in laid]))
        losses, right = probes(hidden, pooled, captions, laid, vocabulary)
        adam.zero_grad()
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_([p for m in modules for p in m.parameters()], 1.0)
        adam.step()
        attributes, words = (float(loss.detach()) for loss in losses[:2])
        report |= {"loss": attributes, "right": right, "words": words}
    for encoder in encoders:
        encoder.eval()


def read_windows(encoders: tuple[Any, Any], ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode windows as the service does: `[w, 77]` to `[w, 77, 96]` and pooled `[w, 64]`."""
    outputs = [encoder(input_ids=ids, output_hidden_states=True) for encoder in encoders]
    hidden = torch.cat([output.hidden_states[PENULTIMATE] for output in outputs], dim=-1)
    return hidden, outputs[1].text_embeds


class _Probes(torch.nn.Module):
    """Probes that read attributes off hidden states; discarded after the training."""

    def __init__(self, width: int, pooled_width: int) -> None:
        super().__init__()
        self.values = {
            name: [value for other, value, _ in MEANINGS if other == name] for name in Scene._fields
        }
        self.queries = torch.nn.Parameter(torch.randn(len(self.values), width) * width**-0.5)
        kinds = [1 + len(values) for values in self.values.values()]  # the first: not stated
        self.readers = torch.nn.ModuleList(torch.nn.Linear(width, kind) for kind in kinds)
        self.labels = torch.nn.Linear(width, 1 + len(MEANINGS))
        self.pooled = torch.nn.Linear(pooled_width, len(MEANINGS))

    def forward(
        self,
        hidden: torch.Tensor,
        pooled: torch.Tensor,
        captions: list[Caption],
        laid: list[Windows],
        vocabulary: Vocabulary,
    ) -> tuple[list[torch.Tensor], float]:
        """Compute the three losses, and the share of attributes that were read right.

        Args:
            hidden: `[w, 77, 96]`, all captions' windows one after another.
            pooled: `[w, 64]`.
            captions: with the attributes that they state.
            laid: their windows.
            vocabulary: has the id of EOS, which no probe reads.
        """
        counts = [len(one.ids) for one in laid]
        states = pad_sequence([one.flatten(0, 1) for one in hidden.split(counts)], batch_first=True)
        ids = pad_sequence(
            [one.ids.flatten() for one in laid], batch_first=True, padding_value=vocabulary.eos
        )  # [b, tokens]
        scores = torch.einsum("btd,ad->bat", states, self.queries)
        scores = scores.masked_fill((ids == vocabulary.eos)[:, None], float("-inf"))
        seen = scores.softmax(-1) @ states  # [b, attributes, 96]
        attribute_loss, right = torch.zeros(()), []
        for place, (name, values) in enumerate(self.values.items()):
            truth = torch.tensor(
                [1 + values.index(c.stated[name]) if name in c.stated else 0 for c in captions]
            )
            guess = self.readers[place](seen[:, place])
            attribute_loss = attribute_loss + F.cross_entropy(guess, truth)
            right.append((guess.argmax(-1) == truth).float().mean())
        labels = torch.cat([one.labels for one in laid])  # [w, 77]
        weights = torch.ones(1 + len(MEANINGS))
        weights[0] = 0.1  # most tokens state nothing
        label_loss = F.cross_entropy(self.labels(hidden).flatten(0, 1), labels.flatten(), weights)
        present = F.one_hot(labels, 1 + len(MEANINGS)).amax(1)[:, 1:].float()
        pooled_loss = F.binary_cross_entropy_with_logits(self.pooled(pooled), present)
        return [attribute_loss, 0.5 * label_loss, pooled_loss], float(torch.stack(right).mean())
