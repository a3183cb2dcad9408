"""The command line of the import: checkpoints into BentoML's model store, and what is there.

Exit status 0, with the model's tag as the last line of standard output where there is one; 1 with
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

from lpw_sdxl.checkpoint.console import ImportConsole, facts, silence_output, summary_rows
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.errors import LpwSdxlError, ModelError

DEMO_NOTE = "The demo model is random: everything works with it, and its pictures are noise."


def main(words: list[str] | None = None) -> int:
    """Run one command, by default the process's own, and return the exit status."""
    arguments = build_parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name is too odd to be printed
    try:
        arguments.run(arguments)
    except LpwSdxlError as error:
        return _fail(str(error))
    except BrokenPipeError:  # nobody reads the list any more
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


def build_parser() -> argparse.ArgumentParser:
    """Describe every command and option."""
    parser = argparse.ArgumentParser(prog="model_import.py", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_checkpoint(commands)
    demo = commands.add_parser("demo", help="make and import a tiny random model as sdxl")
    demo.add_argument("--force", action="store_true", help="replace an import of it")
    demo.set_defaults(run=_demo)
    commands.add_parser("list", help="list imported models").set_defaults(run=_list)
    for name, run, text in (
        ("remove", _remove, "remove a model"),
        ("verify", _verify, "check a model's files against its manifest"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("tag", metavar="TAG", help="NAME:VERSION, or NAME for the newest")
        command.set_defaults(run=run)
    command = commands.add_parser("inspect", help="say what a file is, from its header")
    command.add_argument("file", metavar="FILE", type=Path)
    command.set_defaults(run=_inspect)
    return parser


def _add_checkpoint(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("checkpoint", help="import a single-file SDXL checkpoint")
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a .safetensors file, an https URL or civitai:VERSION_ID (its key: CIVITAI_TOKEN)",
    )
    command.add_argument("--name", default="sdxl", help="name in the model store (default: sdxl)")
    flags = [dtype.flag for dtype in CheckpointDtype]
    command.add_argument("--dtype", choices=flags, default="fp16", help="default: fp16")
    command.add_argument("--vae", metavar="FILE", type=Path, help="take the VAE from this file")
    command.add_argument("--ema", action="store_true", help="take the UNet's averaged weights")
    command.add_argument(
        "--prediction-type",
        choices=PREDICTIONS,
        help="what the UNet predicts (default: what the file says, else epsilon)",
    )
    command.add_argument(
        "--sha256", metavar="HEX", type=_sha256, help="what the file's SHA-256 must be"
    )
    command.add_argument("--force", action="store_true", help="replace an import of the file")
    command.add_argument(
        "--remove-source", action="store_true", help="remove a downloaded file after its import"
    )
    command.set_defaults(run=_checkpoint)


def _sha256(text: str) -> str:
    """Read a SHA-256."""
    if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("64 hexadecimal digits are right")
    return text.lower()


def _checkpoint(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.acquire import Acquisition
    from lpw_sdxl.checkpoint.options import ImportOptions
    from lpw_sdxl.checkpoint.selection import Selection
    from lpw_sdxl.settings import read_import_settings

    dtype = next(dtype for dtype in CheckpointDtype if dtype.flag == arguments.dtype)
    prediction = PREDICTIONS.get(arguments.prediction_type)
    selection = Selection(arguments.ema, arguments.vae, prediction)
    options = ImportOptions(arguments.name, dtype, arguments.sha256, arguments.force)
    with ImportConsole() as console:
        acquisition = Acquisition(options, selection, read_import_settings(), console)
        result = acquisition.import_source(arguments.source, remove_source=arguments.remove_source)
    _print_result(result.tag, was_known=result.was_known)


def _demo(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.importer import import_demo

    with ImportConsole() as console:
        result = import_demo(force=arguments.force, progress=console.progress)
    print(DEMO_NOTE)
    _print_result(result.tag, was_known=result.was_known)


def _print_result(tag: str, *, was_known: bool) -> None:
    from lpw_sdxl.checkpoint.store import find

    print("Already imported; nothing changed." if was_known else "Imported and verified.")
    name = tag.partition(":")[0]
    if (newest := find(name).tag) != tag:
        print(f"{name}:latest is {newest}, which was imported later.")
    print(f"Serve it with: make serve MODEL={tag}")
    print(tag)


def _list(_: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.manifest import read_manifest, verify_files
    from lpw_sdxl.checkpoint.store import find, list_entries

    for entry in list_entries():
        try:
            manifest = read_manifest(entry.path)
            verify_files(entry.path, manifest, contents=False)
            is_latest = find(entry.tag.partition(":")[0]).tag == entry.tag
        except ModelError:
            is_latest, manifest = False, None
        if manifest is None or not entry.metadata:
            print(entry.tag, "damaged: `verify` says what is wrong", sep="  ")
            continue
        columns = [manifest.native_size, manifest.dtype, manifest.source_file]
        print(entry.tag, *columns, *(["latest"] if is_latest else []), sep="  ")


def _remove(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.publication import remove

    tag = remove(arguments.tag)
    print("Removed:")
    print(tag)


def _verify(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.manifest import read_manifest, verify_files
    from lpw_sdxl.checkpoint.store import find

    entry = find(arguments.tag)
    manifest = read_manifest(entry.path)
    verify_files(entry.path, manifest)
    with ImportConsole() as console:
        console.show(facts(manifest.describe()))
    print(f"All {len(manifest.files)} files are as they were imported:")
    print(entry.tag)


def _inspect(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.header import read_header
    from lpw_sdxl.checkpoint.inspect import summarise
    from lpw_sdxl.checkpoint.layout import standardise

    header = standardise(read_header(arguments.file))
    with ImportConsole() as console:
        console.show(summary_rows(header.name, header.file_size, summarise(header)))


def _fail(sentence: str) -> int:
    print(f"model_import: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    sys.exit(main())
