"""The command line of the import: checkpoints, LoRAs and embeddings into BentoML's model store.

Exit status 0, with the entry's tag as the last line of standard output where there is one; 1 with
one sentence on standard error; 2 for a command that can't be understood. What is heavy (torch,
BentoML) is imported by the commands that need it.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.download.source import usage
from lpw_sdxl.errors import AddonError, LpwSdxlError, ModelError
from lpw_sdxl.importing.console import ImportConsole, facts, silence_output
from lpw_sdxl.schedule_types import (
    SCHEDULE_TYPE_ALIASES,
    ScheduleType,
    find_schedule_type,
)
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.dtypes import CheckpointDtype

if TYPE_CHECKING:
    from lpw_sdxl.addon.manifest import AddonManifest
    from lpw_sdxl.importing.addons import AddonImporter
    from lpw_sdxl.importing.importer import Importer, ImportOptions, ImportResult, Opened
    from lpw_sdxl.store.entries import StoreEntry
    from lpw_sdxl.store.manifest import AnyManifest, Manifest

DEMO = Path(__file__).parent / "demo" / "lpw-sdxl-demo.safetensors"
DEMO_NOTE = (
    "The demo model draws one shape on a background, such as: a small red circle on a blue "
    "background, left"
)


MAX_ALPHA = 1e9


def main(words: list[str] | None = None) -> int:
    """Run one command, by default the process's own, and return the exit status."""
    arguments = _parse(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name is too odd to be printed
    try:
        arguments.run(arguments)
    except LpwSdxlError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the list is no longer read
        silence_output()
        return 1
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    except KeyboardInterrupt:
        return _fail(
            "Stopped; the model store is as it was. Run the same command again to go on with a "
            "download."
        )
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    """Read a command; SECOND may stand behind the options, where argparse no longer expects it."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(words)
    is_pair = getattr(arguments, "kind", None) is AddonKind.EMBEDDING and len(rest) == 1
    if is_pair and arguments.second is None and not rest[0].startswith("-"):
        arguments.second = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """Describe every command and option."""
    parser = argparse.ArgumentParser(prog="model_import.py", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_checkpoint(commands)
    for kind in AddonKind:
        _add_addon(commands, kind)
    demo = commands.add_parser("demo", help="import the demo model as sdxl")
    demo.add_argument("--force", action="store_true", help="replace an import of it")
    demo.set_defaults(run=_demo)
    command = commands.add_parser("list", help="list what is imported")
    kinds = ["model", *AddonKind]
    command.add_argument(
        "kind", metavar="KIND", nargs="?", choices=kinds, help=f"{', '.join(kinds)}; default: all"
    )
    command.set_defaults(run=_list)
    for name, run, text in (
        ("remove", _remove, "remove a model, a LoRA or an embedding"),
        ("verify", _verify, "check an import's files against its manifest"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("tag", metavar="TAG", help="NAME:VERSION, or NAME for the newest")
        command.set_defaults(run=run)
    command = commands.add_parser("inspect", help="show what a file is, from its header")
    command.add_argument("file", metavar="FILE", type=Path)
    command.set_defaults(run=_inspect)
    return parser


def _add_checkpoint(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("checkpoint", help="import a single-file SDXL checkpoint")
    command.add_argument(
        "source",
        metavar="SOURCE",
        help=usage(),
    )
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
    _add_file_options(command)
    command.set_defaults(run=_checkpoint)


def _add_addon(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], kind: AddonKind
) -> None:
    command = commands.add_parser(kind, help=f"import {kind.with_article} for SDXL")
    command.add_argument(
        "source",
        metavar="SOURCE",
        help=usage(),
    )
    if kind is AddonKind.EMBEDDING:
        command.add_argument(
            "second",
            metavar="SECOND",
            nargs="?",
            help="the other file of a pair with one text encoder each, in any order",
        )
    command.add_argument("--name", help="as requests name it (default: the file's name)")
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
    command.set_defaults(run=_addon, kind=kind, alpha=None, ignore_unknown=False, second=None)


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


def _checkpoint(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.selection import Selection
    from lpw_sdxl.importing.checkpoints import CheckpointImporter

    dtype = next(dtype for dtype in CheckpointDtype if dtype.flag == arguments.dtype)
    prediction = PREDICTIONS.get(arguments.prediction_type)
    schedule_type = find_schedule_type(arguments.schedule_type or "")
    selection = Selection(
        arguments.ema, arguments.vae, prediction, schedule_type, arguments.ignore_unknown
    )
    result = _import(CheckpointImporter(_options(arguments), selection, dtype), arguments)
    _print_model(result)


def _addon(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.importing.addons import AddonImporter

    importer = AddonImporter(
        arguments.kind,
        _options(arguments),
        arguments.model,
        alpha=arguments.alpha,
        ignore_unknown=arguments.ignore_unknown,
    )
    if arguments.second is None:
        _print_addon(_import(importer, arguments))
    else:
        _print_addon(_import_pair(importer, arguments))


def _options(arguments: argparse.Namespace) -> ImportOptions:
    from lpw_sdxl.importing.importer import ImportOptions

    return ImportOptions(arguments.name, arguments.sha256, arguments.force)


def _import(importer: Importer[Opened, AnyManifest], arguments: argparse.Namespace) -> ImportResult:
    from lpw_sdxl.download.source import read_kinds
    from lpw_sdxl.importing.acquire import Acquisition
    from lpw_sdxl.settings import ImportSettings, read_settings

    downloads = read_settings(ImportSettings).downloads
    with ImportConsole() as console:
        acquisition = Acquisition(importer, read_kinds(), downloads, console)
        return acquisition.import_source(arguments.source, remove_source=arguments.remove_source)


def _import_pair(importer: AddonImporter, arguments: argparse.Namespace) -> ImportResult:
    from lpw_sdxl.download.source import read_kinds
    from lpw_sdxl.importing.pairs import PairAcquisition
    from lpw_sdxl.settings import ImportSettings, read_settings

    downloads = read_settings(ImportSettings).downloads
    with ImportConsole() as console:
        acquisition = PairAcquisition(importer, read_kinds(), downloads, console)
        return acquisition.import_sources(
            (arguments.source, arguments.second), remove_source=arguments.remove_source
        )


def _print_addon(result: ImportResult) -> None:
    from lpw_sdxl.addon.manifest import read_addon_manifest
    from lpw_sdxl.store.entries import find_entry

    manifest = read_addon_manifest(find_entry(result.tag).path)
    how = {
        AddonKind.LORA: f"Use it in a prompt: <lora:{manifest.name}:1>",
        AddonKind.EMBEDDING: f"Use it in a prompt by its name: {manifest.name}",
    }
    print(_outcome(result))
    print(how[manifest.kind])
    print(result.tag)


def _demo(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.importing.checkpoints import import_demo

    with ImportConsole() as console:
        result = import_demo(DEMO, force=arguments.force, progress=console.progress)
    print(DEMO_NOTE)
    _print_model(result)


def _print_model(result: ImportResult) -> None:
    from lpw_sdxl.store.entries import find

    print(_outcome(result))
    name = result.tag.partition(":")[0]
    if (newest := find(name).tag) != result.tag:
        print(f"{name}:latest is {newest}, which was imported later.")
    print(f"Serve it with: make serve MODEL={result.tag}")
    print(result.tag)


def _outcome(result: ImportResult) -> str:
    return "Already imported; nothing changed." if result.was_known else "Imported and verified."


def _list(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.store.entries import find_entry, list_entries

    for entry in list_entries():
        if arguments.kind not in (None, entry.kind or "model"):
            continue
        try:
            columns = _columns(entry)
            is_latest = find_entry(entry.name).tag == entry.tag
        except (ModelError, AddonError):
            is_latest, columns = False, []
        if not columns or not entry.metadata:
            print(entry.tag, "damaged: `verify` shows what is wrong", sep="  ")
            continue
        print(entry.tag, *columns, *(["latest"] if is_latest else []), sep="  ")


def _columns(entry: StoreEntry) -> list[str]:
    """Return what an entry is, in columns; its sizes are checked."""
    from lpw_sdxl.store.manifest import Manifest, verify_files

    manifest = _read_manifest(entry)
    verify_files(entry.path, manifest, contents=False)
    if isinstance(manifest, Manifest):
        size, dtype = str(manifest.native_size), manifest.dtype
        return [size, dtype, manifest.schedule_type, manifest.origin.file]
    vectors = f"{manifest.details.vectors} vectors" if manifest.details.vectors else ""
    what = ", ".join(manifest.details.kinds) or vectors
    base = manifest.origin.notes.base_model or manifest.fits_name
    return [f"{manifest.kind.noun} {manifest.name!r}", what, base, manifest.origin.file]


def _read_manifest(entry: StoreEntry) -> Manifest | AddonManifest:
    from lpw_sdxl.addon.manifest import read_addon_manifest
    from lpw_sdxl.store.manifest import read_manifest

    return read_manifest(entry.path) if entry.kind is None else read_addon_manifest(entry.path)


def _remove(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.store.publication import remove

    tag = remove(arguments.tag)
    print("Removed:")
    print(tag)


def _verify(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.store.entries import find_entry
    from lpw_sdxl.store.manifest import verify_files

    entry = find_entry(arguments.tag)
    manifest = _read_manifest(entry)
    verify_files(entry.path, manifest)
    count = len(manifest.files)
    with ImportConsole() as console:
        console.show(facts(manifest.describe()))
    print(f"All {count} files are as they were imported:" if count > 1 else "The file is whole:")
    print(entry.tag)


def _inspect(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.importing.inspection import inspect_file

    rows = inspect_file(arguments.file)
    with ImportConsole() as console:
        console.show(rows)


def _fail(sentence: str) -> int:
    print(f"model_import: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    sys.exit(main())
