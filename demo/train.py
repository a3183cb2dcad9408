"""Training of the demo model from scratch, up to its checkpoint: `python -m demo.train`.

Every part is kept in the working folder, the UNet also while it is trained, so that a run that was
stopped goes on where it was. The same seed gives the same checkpoint on the same machine, stopped
or not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from demo import encoders, unet, vae
from demo.album import fill_album
from demo.export import read_checkpoint, write_checkpoint
from demo.networks import Networks, make_networks
from demo.parts import Part
from demo.schedule import add_device, training_on
from demo.words import Vocabulary

CHECKPOINT = Path(__file__).parent / "lpw-sdxl-demo.safetensors"
WORK = Path("build/demo")
SEED = 0
TITLE = "LPW-SDXL demo: one shape on a background"


def main(words: list[str] | None = None) -> None:
    """Train the parts that the working folder lacks, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="the checkpoint to write")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the parts")
    add_device(parser)
    arguments = parser.parse_args(words)
    began = time.monotonic()
    with training_on(arguments.device):
        sha256 = train(arguments.work, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}")
    print(f"Done in {(time.monotonic() - began) / 60:.0f} minutes.")


def train(work: Path, out: Path) -> str:
    """Train the parts that a folder lacks, and write the checkpoint; return its SHA-256."""
    work.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary()
    networks = make_networks(vocabulary, SEED)
    origin = train_encoders_and_vae(networks, vocabulary, work)
    for number, cycle in enumerate(unet.CYCLES, start=1):
        if number > 1:  # on with what the cycle before would ship, in its precision
            before = work / f"after-cycle-{number - 1}.safetensors"
            origin = write_checkpoint(before, networks, TITLE)
            read_checkpoint(before, networks)
        print(f"UNet, cycle {number} of {len(unet.CYCLES)}: {cycle.steps} steps.", flush=True)
        train_unet(networks, vocabulary, cycle, work / f"unet-{number}.pt", origin)
    return write_checkpoint(out, networks, TITLE)


def train_encoders_and_vae(networks: Networks, vocabulary: Vocabulary, work: Path) -> str:
    """Train text encoders and VAE, unless an earlier run has; return what they were made from."""
    both = torch.nn.ModuleList(networks.encoders)
    part = Part(work / "encoders.pt", f"seed {SEED}, {encoders.STEPS} steps")
    if not part.load(both):
        encoders.train_encoders(networks.encoders, vocabulary, SEED)
        part.keep(both)
    other = Part(work / "vae.pt", f"seed {SEED}, {vae.PHASES}")
    if not other.load(networks.vae):
        vae.train_vae(networks.vae, SEED)
        other.keep(networks.vae)
    for module in (both, networks.vae):
        module.eval()
    return f"encoders {part.sha256()}, VAE {other.sha256()}"


def train_unet(
    networks: Networks, vocabulary: Vocabulary, cycle: unet.Cycle, path: Path, origin: str
) -> None:
    """Train the UNet for a cycle, continuing an earlier run of the same origin.

    Args:
        networks: whose UNet is trained; text encoders and VAE are trained already.
        vocabulary: of the captions.
        cycle: how long, and how fast.
        path: where it is kept.
        origin: what the networks were before.
    """
    made_from = f"seed {SEED}, {cycle}, {origin}"
    part = Part(path, made_from)
    if not part.load(networks.unet):
        print("Drawing the album ...", flush=True)
        album = fill_album(networks.vae, SEED)
        so_far = Part(path.with_stem(f"{path.stem}-so-far"), made_from)
        unet.train_unet(networks, vocabulary, album, cycle, seed=SEED, so_far=so_far)
        part.keep(networks.unet)
        so_far.path.unlink()
    networks.unet.eval()


if __name__ == "__main__":
    main()
