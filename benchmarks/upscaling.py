"""How long does an upscaler take, in how much memory, and how far do its tiles differ from one?

A part of a picture is enlarged whole, then in two by two tiles of each overlap: seconds, and the
largest difference in levels of 255. On a GPU a larger part is then enlarged as a service would do
it, in float16: seconds, and the most memory that was in use. Bar: no more than 2 levels with the
usual overlap. Random weights see less far than trained ones, so the file matters.

    python benchmarks/upscaling.py FILE PICTURE [--side 200] [--overlaps 64 144] [--large 1024]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import surroundings, write_result
from PIL import Image

from lpw_sdxl.addon.opened import open_addon
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.tiles import Pixels, upscale
from lpw_sdxl.upscaling.tiling import Tiling, usual_tiling

MAX_DIFFERENCE = 2
WHOLE = Tiling(1 << 16, 0)


def main() -> None:
    """Measure, and write the result."""
    options = read_options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tensors = open_addon(AddonKind.UPSCALER, options.file).load()
    network = UpscalerNetwork(tensors, options.file.stem, device, torch.float32)
    pixels = np.asarray(Image.open(options.picture).convert("RGB"))
    part = pixels[: options.side, : options.side]
    upscale(network, part[:32, :32])  # warms up
    whole, whole_s = timed(network, part, WHOLE)
    rows = [compare(network, part, whole, overlap) for overlap in options.overlaps]
    usual = usual_tiling(network.design)
    result = surroundings(device) | {
        "upscaler": f"{options.file.name}, {network.design}",
        "part": f"{part.shape[1]} x {part.shape[0]} pixels",
        "whole_s": whole_s,
        "tiles": rows,
        "usual": f"tiles of {usual.tile} pixels, overlap {usual.overlap}",
    }
    if device.type == "cuda":
        half = UpscalerNetwork(tensors, options.file.stem, device, torch.float16)
        result["large"] = measure_large(half, pixels, options.large)
    write_result(f"upscaling_{options.file.stem}", result)
    seams = [row["largest_difference"] for row in rows if row["overlap"] >= usual.overlap]
    sys.exit(int(max(seams, default=0) > MAX_DIFFERENCE))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("picture", metavar="PICTURE", type=Path)
    parser.add_argument("--side", type=int, default=200)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[64, 96, 128, 144])
    parser.add_argument("--large", type=int, default=1024)
    return parser.parse_args()


def timed(network: UpscalerNetwork, pixels: Pixels, tiling: Tiling | None) -> tuple[Pixels, float]:
    """Enlarge a picture, and measure the seconds."""
    started = time.perf_counter()
    enlarged = upscale(network, pixels, tiling)
    return enlarged, round(time.perf_counter() - started, 2)


def compare(
    network: UpscalerNetwork, pixels: Pixels, whole: Pixels, overlap: int
) -> dict[str, float]:
    """Enlarge in two by two tiles, and compare with the whole, levels of 255."""
    side = max(pixels.shape[:2]) // network.design.unshuffle
    tiled, seconds = timed(network, pixels, Tiling(-(-(side + overlap) // 2), overlap))
    difference = np.abs(tiled.astype(int) - whole.astype(int))
    return {
        "overlap": overlap,
        "seconds": seconds,
        "largest_difference": int(difference.max()),
        "share_above_two": float((difference > MAX_DIFFERENCE).mean()),
    }


def measure_large(network: UpscalerNetwork, pixels: Pixels, side: int) -> dict[str, object]:
    """Enlarge a square of this side as a service does."""
    square = np.asarray(Image.fromarray(pixels).resize((side, side)))
    timed(network, square, None)
    torch.cuda.reset_peak_memory_stats()
    enlarged, seconds = timed(network, square, None)
    return {
        "from": side,
        "to": enlarged.shape[0],
        "seconds": seconds,
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "dtype": str(network.dtype),
    }


if __name__ == "__main__":
    main()
