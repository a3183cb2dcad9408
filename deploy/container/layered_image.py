"""Build a bento's image with each model in a layer of its own, below the code.

`bentoml containerize` copies the model and the code in one step, so that a changed line of code is
a new layer of 7 GB to push. This is the same image from the same bento and Dockerfile:
only its last COPY is several, and file times are fixed, so that a layer changes with its content.

    python deploy/container/layered_image.py lpw_sdxl:latest

Without `--backend` it takes docker, or podman where docker's daemon does not answer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import bentoml
from bentoml._internal.container import construct_containerfile
from bentoml.container import get_backend
from bentoml.exceptions import NotFound

BACKENDS = ("docker", "podman")
ANSWER_SECONDS = 30  # for `docker info`, which waits for its daemon
COPY_ALL = "COPY --chown=bentoml:bentoml . ./"
FILE_TIME = 315_532_800  # 1980-01-01, the earliest that every archive format can hold
FILE_NAME = "Dockerfile.layered"


def main() -> None:
    """Read the command line and build."""
    arguments = read_arguments()
    builder = get_backend(arguments.backend or choose_backend())
    try:
        bento = bentoml.bentos.get(arguments.bento)
    except NotFound:
        sys.exit(f"There is no bento {arguments.bento}; `make bundle` builds lpw_sdxl:latest.")
    with construct_containerfile(bento, enable_buildkit=builder.enable_buildkit) as (folder, file):
        context = Path(folder)
        # Beside BentoML's own, which is copied into the image first and must not change.
        layered = context / FILE_NAME
        layered.write_text(split_copy(Path(file).read_text(encoding="utf-8"), context))
        fix_times(context)
        builder.build(
            file=str(layered),
            context_path=str(context),
            tag=(arguments.image or str(bento.tag),),
            **arguments.options,
        )


def read_arguments() -> argparse.Namespace:
    """Read the command line; `options` become a dictionary as `bentoml containerize` makes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bento", help="tag of a bento, such as lpw_sdxl:latest")
    parser.add_argument("--image", help="name of the image; the bento's tag by default")
    parser.add_argument(
        "--backend", help="docker, podman, buildah or buildx; the first of two that can be used"
    )
    parser.add_argument(
        "--opt", action="append", default=[], metavar="NAME=VALUE", help="option of the backend"
    )
    arguments = parser.parse_args()
    arguments.options = {}
    for option in arguments.opt:
        name, equals, value = option.partition("=")
        if not equals:
            parser.error(f"--opt {option}: NAME=VALUE is right, such as --opt network=host")
        arguments.options.setdefault(name.replace("-", "_"), []).append(value)
    return arguments


def choose_backend() -> str:
    """Choose the first program that can build images here, and print which; end if there is none.

    A machine may have docker's client alone, as in a container, and podman beside it.
    """
    reasons: list[str] = []
    for name in BACKENDS:
        reason = find_reason_against(name)
        if reason is None:
            print("; ".join([*reasons, f"building with {name}"]), flush=True)  # noqa: T201
            return name
        reasons.append(reason)
    sys.exit(f"An image needs docker or podman, and neither can be used: {'; '.join(reasons)}.")


def find_reason_against(backend: str) -> str | None:
    """Return why a program can't build images here; None if it can."""
    try:
        done = subprocess.run(  # noqa: S603 - docker or podman, from the user's own PATH
            [backend, "info"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return f"{backend} is not installed"
    except OSError as error:
        return f"{backend} can't be started ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"{backend} does not answer within {ANSWER_SECONDS} s"
    if done.returncode == 0:
        return None
    words = done.stderr.strip().splitlines()
    return f"{backend} does not answer ({words[-1].strip().rstrip('.') if words else 'no reason'})"


def split_copy(containerfile: str, context: Path) -> str:
    """Replace the step that copies everything by one for each model, then one for each other part.

    The demo model is a part of its own, below what changes with each bento.

    Args:
        containerfile: BentoML's.
        context: the folder that it builds from.
    """
    if containerfile.count(COPY_ALL) != 1:
        sys.exit(
            f"BentoML {bentoml.__version__}'s Dockerfile has no single `{COPY_ALL}` any more; "
            "this step was written for 1.4.39. `bentoml containerize` works without it."
        )
    models = sorted(path for path in (context / "models").iterdir() if path.is_dir())
    rest = {FILE_NAME, "models"} if models else {FILE_NAME}  # an empty folder is a mount point
    others = sorted(path for path in context.iterdir() if path.name not in {*rest, "src"})
    demo, sources = context / "src" / "demo", sorted((context / "src").iterdir())
    parts = [*models, demo, *others, *(path for path in sources if path != demo)]
    steps = [
        "COPY --chown=bentoml:bentoml ./{0} ./{0}".format(path.relative_to(context).as_posix())
        for path in parts
    ]
    return containerfile.replace(COPY_ALL, "\n".join(steps))


def fix_times(context: Path) -> None:
    """Set one time for all files: a copy's own time would make each layer a new one."""
    for path in [context, *context.rglob("*")]:
        os.utime(path, (FILE_TIME, FILE_TIME), follow_symlinks=False)


if __name__ == "__main__":
    main()
