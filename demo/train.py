"""Trains the demo model from nothing and writes its checkpoint: `python -m demo.train`.

Every part is kept in the working folder when it is done, so that a run that was stopped goes on
with the next. The same seed gives the same checkpoint on the same machine.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from demo.album import fill_album
from demo.encoders import train_encoders
from demo.export import read_checkpoint, write_checkpoint
from demo.networks import Networks, make_networks
from demo.unet import train_unet
from demo.vae import train_vae
from demo.words import Vocabulary

CHECKPOINT = Path(__file__).parent / "lpw-sdxl-demo.safetensors"
WORK = Path("build/demo")
SEED = 0
TITLE = "LPW-SDXL demo: one shape on a background"


def main() -> None:
    """Train what the working folder lacks, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="the checkpoint to write")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the parts")
    parser.add_argument(
        "--resume", metavar="CHECKPOINT", type=Path, help="go on with this one's UNet"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    arguments.work.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary()
    networks = make_networks(vocabulary, SEED)
    if arguments.resume:
        read_checkpoint(arguments.resume, networks)
    else:
        train_encoders_and_vae(networks, vocabulary, arguments.work)
    if not _load(networks.unet, arguments.work / "unet.pt"):
        print("Drawing the album ...", flush=True)
        album = fill_album(networks.vae, SEED)
        show = partial(_keep, path=arguments.work / "unet-so-far.pt")
        train_unet(networks, vocabulary, album, SEED, lambda _, unet: show(unet))
        _keep(networks.unet, arguments.work / "unet.pt")
    sha256 = write_checkpoint(arguments.out, networks, TITLE)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}")
    print(f"Done in {(time.monotonic() - began) / 60:.0f} minutes.")


def train_encoders_and_vae(networks: Networks, vocabulary: Vocabulary, work: Path) -> None:
    """Train text encoders and VAE, but for what an earlier run has left."""
    encoders = torch.nn.ModuleList(networks.encoders)
    if not _load(encoders, work / "encoders.pt"):
        train_encoders(networks.encoders, vocabulary, SEED)
        _keep(encoders, work / "encoders.pt")
    if not _load(networks.vae, work / "vae.pt"):
        train_vae(networks.vae, SEED)
        _keep(networks.vae, work / "vae.pt")


def _load(module: Any, path: Path) -> bool:
    if not path.exists():
        return False
    module.load_state_dict(torch.load(path, weights_only=True))
    module.eval()
    print(f"Using {path} of an earlier run.", flush=True)
    return True


def _keep(module: Any, path: Path) -> None:
    new = path.with_suffix(".new")
    torch.save(module.state_dict(), new)
    new.replace(path)


if __name__ == "__main__":
    main()
