"""Training of the demo model's LoRAs, and its embedding: `python -m demo.addons`.

Each LoRA learns pictures of another style under the same captions, on the UNet's attention,
feed-forward layers and convolutions. Files are in kohya's format. The embedding is a phrase: its
vectors are the token embeddings of the phrase's words.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.func import functional_call

from demo.album import Album, fill_album
from demo.batches import caption_batches
from demo.export import read_checkpoint, write_tensors
from demo.networks import Networks, make_networks
from demo.scene import Style
from demo.schedule import add_device, optimiser, seeded, steps, training_on
from demo.train import CHECKPOINT, SEED
from demo.unet import velocity_loss
from demo.words import Vocabulary
from lpw_sdxl.checkpoint.keys import sources_of
from lpw_sdxl.checkpoint.kinds import UNET
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import record_file

FOLDER = Path(__file__).parent / "addons"
STYLES: dict[str, Style] = {"demo-frame": "framed", "demo-pastel": "pastel"}
EMBEDDING = "demo-midnight-sun"
PHRASE = "a large yellow circle on a black background , top"
RANK = 8
STEPS = 1000
RATE = 3e-3
CHECKPOINT_KEY = "ss_new_sd_model_hash"
"""The metadata key under which kohya's trainer notes the SHA-256 of the checkpoint."""


def main(words: list[str] | None = None) -> None:
    """Make the files, except LoRAs that exist already and were trained for this checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the files")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="what they are for")
    add_device(parser)
    arguments = parser.parse_args(words)
    with training_on(arguments.device):
        make_addons(arguments.checkpoint, arguments.out)


def make_addons(checkpoint: Path, folder: Path) -> None:
    """Make the files in a folder that are not there, or are for another checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary()
    networks = make_networks(vocabulary, SEED)
    read_checkpoint(checkpoint, networks)
    sha256 = record_file(checkpoint).sha256
    vectors = phrase_vectors(networks, vocabulary)
    title = {"modelspec.title": EMBEDDING, "modelspec.license": "Apache-2.0"}
    write_tensors(folder / f"{EMBEDDING}.safetensors", vectors, title)
    for name, style in STYLES.items():
        path = folder / f"{name}.safetensors"
        if path.exists() and _metadata(path).get(CHECKPOINT_KEY) == sha256:
            print(f"{path} is there, for this checkpoint.", flush=True)
            continue
        print(f"Drawing the album of {name} ...", flush=True)
        album = fill_album(networks.vae, SEED, drawings=1, accents=0, style=style)
        write_tensors(path, train_lora(networks, vocabulary, album, name), notes(name, sha256))


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def phrase_vectors(networks: Networks, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """Return the token embeddings of PHRASE's words, by the names of SDXL's embeddings."""
    ids = [id_ for word in PHRASE.split() for id_ in vocabulary.tokens(word)]
    tables = (encoder.get_input_embeddings() for encoder in networks.encoders)
    return {
        name: table(torch.tensor(ids)).detach().half()
        for name, table in zip(("clip_l", "clip_g"), tables, strict=True)
    }


def train_lora(
    networks: Networks, vocabulary: Vocabulary, album: Album, name: str
) -> dict[str, torch.Tensor]:
    """Train one LoRA on an album of its style; return its tensors by kohya's names."""
    generator = seeded(SEED)
    lora = TrainedLora(networks.unet, generator)
    batches = caption_batches(networks, vocabulary, album, random.Random(SEED))
    adam = optimiser(lora.parameters(), RATE)
    for _, report in steps(name, STEPS, adam):
        loss, noisiest = velocity_loss(lora, next(batches), album, generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
        report |= {"loss": float(loss.detach()), "noisiest": noisiest}
    return lora.tensors()


class TrainedLora(torch.nn.Module):
    """A UNet with a product of two small matrices added to the weight of each layer."""

    def __init__(self, unet: Any, generator: torch.Generator) -> None:
        super().__init__()
        self._unet = [
            unet
        ]  # in a list, so that its weights are not registered as parameters of this module
        self._names = [
            f"{name}.weight"
            for name, module in unet.named_modules()
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
            and (".attentions." in f".{name}" or ".resnets." in f".{name}")
            and not name.endswith("time_emb_proj")
        ]
        weights = dict(unet.named_parameters())
        shapes = [weights[name].shape for name in self._names]
        self.downs = torch.nn.ParameterList(
            torch.randn(RANK, *shape[1:], generator=generator) / shape[1:].numel() ** 0.5
            for shape in shapes
        )
        self.ups = torch.nn.ParameterList(
            torch.zeros(shape[0], RANK, *(1 for _ in shape[2:])) for shape in shapes
        )

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Call the UNet with the changed weights."""
        [unet] = self._unet
        weights = {name: weight.detach() for name, weight in unet.named_parameters()}
        changed = weights | {
            name: weights[name] + (up.flatten(1) @ down.flatten(1)).view_as(weights[name])
            for name, down, up in zip(self._names, self.downs, self.ups, strict=True)
        }
        return functional_call(unet, changed, arguments, named)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return both factors of each layer, and alpha, which equals the rank."""
        found: dict[str, torch.Tensor] = {}
        for name, down, up in zip(self._names, self.downs, self.ups, strict=True):
            source = sources_of(Component.UNET, name)[0].key
            path = source.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
            found[f"lora_unet_{path}.lora_down.weight"] = down.detach().half()
            found[f"lora_unet_{path}.lora_up.weight"] = up.detach().half()
            found[f"lora_unet_{path}.alpha"] = torch.tensor(float(RANK)).half()
        return found


def notes(name: str, checkpoint_sha256: str) -> dict[str, str]:
    """Return the metadata of a LoRA's file."""
    return {
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": name,
        "modelspec.license": "Apache-2.0",
        "ss_base_model_version": "sdxl_base_v1-0",
        CHECKPOINT_KEY: checkpoint_sha256,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(RANK),
        "ss_output_name": name,
    }


if __name__ == "__main__":
    main()
