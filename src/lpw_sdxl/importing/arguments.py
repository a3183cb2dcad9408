"""The words of the import's command line; what a command does is not known here."""

from __future__ import annotations

import argparse
from pathlib import Path

from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.download.source import usage
from lpw_sdxl.schedule_types import SCHEDULE_TYPE_ALIASES, ScheduleType
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.dtypes import CheckpointDtype

MAX_ALPHA = 1e9


def parse_arguments(words: list[str] | None, program: str, description: str) -> argparse.Namespace:
    """Read a command; SECOND and further SOURCEs may stand behind the options.

    Argparse no longer expects them there.
    """
    parser = build_parser(program, description)
    arguments, rest = parser.parse_known_args(words)
    if hasattr(arguments, "sources") and not any(word.startswith("-") for word in rest):
        arguments.sources += rest
        rest = []
    is_pair = getattr(arguments, "kind", None) is AddonKind.EMBEDDING and len(rest) == 1
    if is_pair and arguments.second is None and not rest[0].startswith("-"):
        arguments.second = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def build_parser(
    program: str = "model_import.py", description: str = ""
) -> argparse.ArgumentParser:
    """Describe every command and option."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_checkpoint(commands)
    for kind in AddonKind:
        _add_addon(commands, kind)
    demo = commands.add_parser("demo", help="import the demo model as sdxl")
    demo.add_argument("--force", action="store_true", help="replace an import of it")
    command = commands.add_parser("list", help="list what is imported")
    kinds = ["model", *AddonKind]
    command.add_argument(
        "kind", metavar="KIND", nargs="?", choices=kinds, help=f"{', '.join(kinds)}; default: all"
    )
    for name, text in (
        ("remove", "remove a model, a LoRA, an embedding or an upscaler"),
        ("verify", "check an import's files against its manifest"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("tag", metavar="TAG", help="NAME:VERSION, or NAME for the newest")
    _add_set_defaults(commands)
    command = commands.add_parser("inspect", help="show what a file is, from its header")
    command.add_argument("file", metavar="FILE", type=Path)
    return parser


def _add_checkpoint(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("checkpoint", help="import a single-file SDXL checkpoint")
    command.add_argument("source", metavar="SOURCE", help=usage())
    command.add_argument("--name", help="name in the model store (default: sdxl)")
    flags = [dtype.flag for dtype in CheckpointDtype]
    command.add_argument("--dtype", choices=flags, default="fp16", help="default: fp16")
    command.add_argument("--vae", metavar="FILE", type=Path, help="take the VAE from this file")
    command.add_argument("--ema", action="store_true", help="take the UNet's averaged weights")
    command.add_argument(
        "--prediction-type",
        choices=PREDICTIONS,
        help="what the UNet predicts (default: what the file states, else epsilon)",
    )
    command.add_argument(
        "--schedule-type",
        choices=[*ScheduleType, *SCHEDULE_TYPE_ALIASES],
        help="a request's default; few-step models need trailing (default: by what it predicts)",
    )
    command.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="leave out tensors that are under a network's own names and have no place in it",
    )
    command.add_argument(
        "--default",
        metavar="FIELD=VALUE",
        dest="defaults",
        action="append",
        default=[],
        help="what a request that leaves FIELD out has, such as guidance_scale=2; may be repeated",
    )
    _add_file_options(command)


def _add_set_defaults(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "set-defaults", help="change what a model's requests have where they leave a field out"
    )
    command.add_argument("tag", metavar="TAG", help="NAME:VERSION, or NAME for the newest")
    command.add_argument(
        "assignments",
        metavar="FIELD=VALUE",
        nargs="*",
        help="such as guidance_scale=2; without any, the defaults are shown",
    )
    command.add_argument(
        "--remove",
        metavar="FIELD",
        action="append",
        default=[],
        help="a default to remove; may be repeated",
    )


def _add_addon(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], kind: AddonKind
) -> None:
    purpose = " of ESRGAN's family" if kind is AddonKind.UPSCALER else " for SDXL"
    command = commands.add_parser(kind, help=f"import {kind.with_article}{purpose}")
    if kind is AddonKind.UPSCALER:
        command.add_argument(
            "source", metavar="SOURCE", help=f"{usage()}; .pth files are read without being run"
        )
    elif kind is AddonKind.LORA:
        command.add_argument(
            "sources", metavar="SOURCE", nargs="+", help=f"{usage()}; several are imported in turn"
        )
    else:
        command.add_argument("source", metavar="SOURCE", help=usage())
        command.add_argument(
            "second",
            metavar="SECOND",
            nargs="?",
            help="the other file of a pair with one text encoder each, in any order",
        )
    command.add_argument("--name", help="as requests name it (default: the file's name)")
    if kind is not AddonKind.UPSCALER:
        command.add_argument(
            "--model",
            metavar="TAG",
            help="the model that it must fit (default: any in the store, else SDXL's own size)",
        )
    if kind is AddonKind.LORA:
        command.add_argument(
            "--alpha",
            metavar="N",
            type=_alpha,
            help="alpha of modules whose tensors state none (default: what the file's notes state, "
            "else the rank)",
        )
        command.add_argument(
            "--ignore-unknown",
            action="store_true",
            help="leave out and list tensors under a network's names that no module has",
        )
    _add_file_options(command)
    command.set_defaults(kind=kind, model=None, alpha=None, ignore_unknown=False, second=None)


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sha256", metavar="HEX", type=_sha256, help="what the file's SHA-256 must be"
    )
    command.add_argument("--force", action="store_true", help="replace an import of the file")
    command.add_argument(
        "--remove-source", action="store_true", help="remove a downloaded file after its import"
    )


def _alpha(text: str) -> float:
    """Read an alpha."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < abs(value) < MAX_ALPHA:
        raise argparse.ArgumentTypeError("a number other than 0 is right")
    return value


def _sha256(text: str) -> str:
    """Read a SHA-256."""
    if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("64 hexadecimal digits are right")
    return text.lower()
