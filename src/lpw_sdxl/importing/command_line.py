"""The command line of the import: models, LoRAs, embeddings and upscalers into the model store.

Exit status 0, with the entry's tag as the last line of standard output where there is one; 1 with
one sentence on standard error; 2 for a command that can't be understood. What is heavy (torch,
BentoML) is imported by the commands that need it.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.errors import AddonError, CheckpointError, LpwSdxlError
from lpw_sdxl.importing import store_commands
from lpw_sdxl.importing.arguments import parse_arguments
from lpw_sdxl.importing.console import ImportConsole, silence_output
from lpw_sdxl.importing.defaults import read_defaults, set_defaults, suggestion
from lpw_sdxl.schedule_types import find_schedule_type
from lpw_sdxl.settings import is_in_container
from lpw_sdxl.store.command import SCRIPT, import_command, serve_command
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.dtypes import CheckpointDtype

if TYPE_CHECKING:
    from lpw_sdxl.importing.addons import AddonImporter
    from lpw_sdxl.importing.importer import Importer, ImportOptions, ImportResult, Opened
    from lpw_sdxl.importing.taking import FileTaker
    from lpw_sdxl.store.manifest import AnyManifest

DEMO = Path("demo") / "lpw-sdxl-demo.safetensors"
"""In a checkout and in a bento; an installed package is without it."""
IMPORTS = ("checkpoint", *AddonKind, "demo")
READS = ("list", "verify")
"""Commands that write nothing."""
DEMO_NOTE = (
    "The demo model draws one shape on a background, such as: a small red circle on a blue "
    "background, left"
)


def run(program: str) -> NoReturn:
    """Run the process's own command and end the process.

    Args:
        program: how the command was called.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    sys.exit(main(program=program))


def main(words: list[str] | None = None, program: str = SCRIPT) -> int:
    """Run one command, by default the process's own, and return the exit status."""
    arguments = parse_arguments(words, program, __doc__.partition("\n")[0])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name is too odd to be printed
    fail = partial(_fail, "model_import" if program == SCRIPT else "lpw-sdxl")
    try:
        with _store_for(arguments.command):
            COMMANDS[arguments.command](arguments)
    except LpwSdxlError as error:
        return fail(str(error))
    except BrokenPipeError:  # the list is no longer read
        silence_output()
        return 1
    except OSError as error:
        return fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    except KeyboardInterrupt:
        return fail(
            "Stopped; the model store is as it was. Run the same command again to go on with a "
            "download."
        )
    return 0


def _store_for(command: str) -> AbstractContextManager[object]:
    """Return what makes the folder that `LPW_SDXL_STORE` names the store of a command."""
    if command == "inspect":
        return nullcontext()
    from lpw_sdxl.settings import StoreSettings, list_renamed, read_settings

    folder = read_settings(StoreSettings).store
    if folder is None and not is_in_container():
        return nullcontext()
    from lpw_sdxl.store.writing import check_kept, volume_store

    for sentence in list_renamed(os.environ):
        print(sentence, file=sys.stderr)
    if folder is None:
        if command in IMPORTS:
            check_kept()
        return nullcontext()
    return volume_store(folder, makes=command in IMPORTS, writes=command not in READS)


def _checkpoint(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.checkpoint.selection import Selection
    from lpw_sdxl.importing.checkpoints import CheckpointImporter

    dtype = next(dtype for dtype in CheckpointDtype if dtype.flag == arguments.dtype)
    prediction = PREDICTIONS.get(arguments.prediction_type)
    schedule_type = find_schedule_type(arguments.schedule_type or "")
    selection = Selection(
        arguments.ema, arguments.vae, prediction, schedule_type, arguments.ignore_unknown
    )
    defaults = read_defaults(arguments.defaults)
    importer = CheckpointImporter(_options(arguments), selection, dtype, defaults)
    result = _import(importer, arguments, arguments.source)
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
    if arguments.kind is AddonKind.LORA:
        _import_each(importer, arguments)
    elif arguments.second is None:
        _print_addon(_import(importer, arguments, arguments.source))
    else:
        _print_addon(_import_pair(importer, arguments))


def _import_each(importer: AddonImporter, arguments: argparse.Namespace) -> None:
    """Import files in turn; one that can't be imported keeps no other from it.

    Raises:
        AddonError: one could not be imported, or an option is for one file alone.
    """
    sources: list[str] = arguments.sources
    if len(sources) == 1:
        _print_addon(_import(importer, arguments, sources[0]))
        return
    for option in ("name", "sha256"):
        if getattr(arguments, option) is not None:
            raise AddonError(
                f"--{option} is for one file, and {len(sources)} are named; a command for each that"
                " needs it would be right."
            )
    failed = 0
    for source in sources:
        try:
            _print_addon(_import(importer, arguments, source))
        except (AddonError, CheckpointError) as error:
            failed += 1
            print(f"{source}: {error}", file=sys.stderr)
    if failed:
        rest = "." if failed == len(sources) else "; the others are."
        raise AddonError(
            f"{failed} of {len(sources)} files could not be imported, for the reasons above{rest}"
        )


def _options(arguments: argparse.Namespace) -> ImportOptions:
    from lpw_sdxl.importing.importer import ImportOptions

    return ImportOptions(arguments.name, arguments.sha256, arguments.force)


def _import(
    importer: Importer[Opened, AnyManifest], arguments: argparse.Namespace, source: str
) -> ImportResult:
    from lpw_sdxl.importing.acquire import Acquisition

    with ImportConsole() as console:
        acquisition = Acquisition(importer, _taker(console))
        return acquisition.import_source(source, remove_source=arguments.remove_source)


def _import_pair(importer: AddonImporter, arguments: argparse.Namespace) -> ImportResult:
    from lpw_sdxl.importing.pairs import import_pair

    sources = (arguments.source, arguments.second)
    with ImportConsole() as console:
        return import_pair(
            importer, _taker(console), sources, remove_source=arguments.remove_source
        )


def _taker(console: ImportConsole) -> FileTaker:
    from lpw_sdxl.download.source import read_kinds
    from lpw_sdxl.importing.taking import FileTaker
    from lpw_sdxl.settings import ImportSettings, StoreSettings, read_settings

    store = read_settings(StoreSettings).store
    downloads = read_settings(ImportSettings).downloads_beside(store)
    return FileTaker(read_kinds(), downloads, console)


def _print_addon(result: ImportResult) -> None:
    from lpw_sdxl.addon.manifest import read_addon_manifest
    from lpw_sdxl.store.entries import find_entry

    manifest = read_addon_manifest(find_entry(result.tag).path)
    how = {
        AddonKind.LORA: f"Use it in a prompt: <lora:{manifest.name}:1>",
        AddonKind.EMBEDDING: f"Use it in a prompt by its name: {manifest.name}",
        AddonKind.UPSCALER: f"Requests name it: {manifest.name}",
    }
    print(_outcome(result))
    print(how[manifest.kind])
    print(result.tag)


def _demo(arguments: argparse.Namespace) -> None:
    from lpw_sdxl.importing.checkpoints import import_demo

    with ImportConsole() as console:
        result = import_demo(_find_demo(), force=arguments.force, progress=console.progress)
    print(DEMO_NOTE)
    _print_model(result)


def _find_demo() -> Path:
    """Return the demo model's file.

    Raises:
        CheckpointError: this is a package without it.
    """
    sources = Path(__file__).parents[2]  # in a checkout its folder `src`, in a bento all it has
    for folder in (sources, sources.parent):
        if (folder / DEMO).is_file():
            return folder / DEMO
    raise CheckpointError(
        f"{DEMO} is not beside this package; a clone of the repository has it, and "
        f"`{import_command('checkpoint FILE')}` imports any other model."
    )


def _print_model(result: ImportResult) -> None:
    from lpw_sdxl.store.entries import find
    from lpw_sdxl.store.manifest import read_manifest

    print(_outcome(result))
    name = result.tag.partition(":")[0]
    if (newest := find(name).tag) != result.tag:
        print(f"{name}:latest is {newest}, which was imported later.")
    for line in suggestion(read_manifest(find(result.tag).path)):
        print(line)
    print(f"Serve it with: {serve_command(result.tag)}")
    print(result.tag)


def _outcome(result: ImportResult) -> str:
    return "Already imported; nothing changed." if result.was_known else "Imported and verified."


def _fail(program: str, sentence: str) -> int:
    print(f"{program}: {sentence}", file=sys.stderr)
    return 1


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "checkpoint": _checkpoint,
    **dict.fromkeys(AddonKind, _addon),
    "demo": _demo,
    "list": store_commands.list_entries,
    "remove": store_commands.remove,
    "verify": store_commands.verify,
    "inspect": store_commands.inspect,
    "set-defaults": set_defaults,
}
