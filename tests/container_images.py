"""Bentos and images, built as users build them, for the tests that run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from conftest import ROOT
from containers import podman

PACKAGES = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
CHUNK_BYTES = 16 * 1024 * 1024
BUILD_SECONDS = 900


def build_bento(arguments: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Build a bento of this checkout; return its tag."""
    words = [f"--arg={name}={value}" for name, value in arguments.items()]
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", *words, "--output", "tag"],
        cwd=ROOT,
        env={**environment, "UV_FIND_LINKS": PACKAGES},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=BUILD_SECONDS,
    )
    return done.stdout.strip().splitlines()[-1].removeprefix("__tag__:")


def containerize(bento: str, image: str, environment: Mapping[str, str]) -> None:
    """Run `bentoml containerize`, far from the checkout: the bento is all it has."""
    command = [sys.executable, "-m", "bentoml", "containerize", bento, "--image-tag", image]
    _build(command, image, environment, Path("/"))


def containerize_in_layers(bento: str, image: str, environment: Mapping[str, str]) -> None:
    """Build the image whose models have layers of their own."""
    script = ROOT / "deploy" / "container" / "layered_image.py"
    command = [sys.executable, str(script), bento, "--image", image]
    _build(command, image, environment, Path("/"))


def _build(command: list[str], image: str, environment: Mapping[str, str], folder: Path) -> None:
    options = ["--backend", "podman", "--opt", "network=host"]
    if PACKAGES.startswith("/"):  # a folder that pip was told of, which the bento's list names too
        options += ["--opt", f"volume={PACKAGES}:{PACKAGES}:ro"]
    log = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**environment, "BUILDAH_ISOLATION": "chroot"},  # needs no more than root
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert log.returncode == 0, log.stdout
    done = subprocess.run(["podman", "image", "exists", image], check=False)
    assert done.returncode == 0, log.stdout


def layers(image: str) -> list[str]:
    """Digests of an image's layers, the lowest first."""
    found: list[str] = json.loads(
        podman("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
    )
    return found


def layer_sizes(image: str, earlier: str) -> tuple[list[int], list[int]]:
    """Return the bytes of the layers that an image has from an earlier one, and of its others.

    Those that it has from the earlier one are the lowest of both.
    """
    before, after = layers(earlier), layers(image)
    kept = [layer for layer in before if layer in after]
    assert kept == before[: len(kept)]
    steps = json.loads(podman("history", "--format", "json", image))
    sizes = [step["size"] for step in reversed(steps) if step["size"]]
    assert len(sizes) == len(after)
    return sizes[: len(kept)], sizes[len(kept) :]


def search(image: str, words: Iterable[str]) -> set[str]:
    """Return the words that stand anywhere in an image: in its files, configuration or history."""
    command = ["podman", "save", "--quiet", "--format", "docker-archive", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        found = _search_stream(saving.stdout, {word: word.encode() for word in words})
    assert saving.returncode == 0
    return found


def _search_stream(stream: IO[bytes], patterns: Mapping[str, bytes]) -> set[str]:
    overlap = max(len(pattern) for pattern in patterns.values()) - 1
    found: set[str] = set()
    before = b""
    while chunk := stream.read(CHUNK_BYTES):
        window = before + chunk
        found |= {word for word, pattern in patterns.items() if pattern in window}
        before = window[-overlap:]
    return found
