"""Run as a process of its own: imports on small file systems, each filled at one moment.

    unshare --mount --map-root-user python small_disk.py

It takes orders as fork_server.py does, whose words are FOLDER MEGABYTES MOMENT WORDS... FOLDER gets
a tmpfs of MEGABYTES with BENTOML_HOME, LPW_SDXL_DOWNLOADS and TMPDIR in it. When MOMENT comes (a
stage of the import, `publish`, or `-` for never), a real file takes all room that is left. The last
line of standard output is JSON: the exit status, and what is on the disk afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fork_server import Command, load_command, serve

FILLER = "filler"


def fill(disk: Path) -> None:
    """Take all room of a disk with real writes, until a new file of one byte gets none either.

    The kernel counts a tmpfs's room for each processor apart, so one refusal is not the end.
    """
    refusals = number = 0
    while refusals < 50:
        number += 1
        try:
            with (disk / f"{FILLER}-{number}").open("wb", buffering=0) as file:
                file.write(b"1")  # a page of its own
                while file.write(bytes(1 << 20)):
                    pass
        except OSError:
            refusals += 1


def main() -> None:
    command = load_command()
    serve(lambda words: import_on_disk(command, *words))


def import_on_disk(command: Command, folder: str, megabytes: str, moment: str, *words: str) -> int:
    disk = Path(folder)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True
    )
    os.environ["BENTOML_HOME"] = str(disk / "home")
    os.environ["LPW_SDXL_DOWNLOADS"] = str(disk / "downloads")
    os.environ["TMPDIR"] = tempfile.tempdir = str(disk)

    from lpw_sdxl.importing import console
    from lpw_sdxl.store import publication

    progress = console.ImportConsole.progress
    publish = publication.Publication.publish
    seen: list[str] = []

    def watch(self: object, stage: str, done: int, total: int) -> None:
        # At the stage's second report something has been written already.
        seen.append(stage)
        if stage == moment and seen.count(stage) == 2:
            fill(disk)
        progress(self, stage, done, total)

    def publish_on_a_full_disk(self: object) -> object:
        if moment == "publish":
            fill(disk)
        return publish(self)

    console.ImportConsole.progress = watch
    publication.Publication.publish = publish_on_a_full_disk
    status = command(list(words))
    left = sorted(
        str(path.relative_to(disk))
        for path in disk.rglob("*")
        if path.is_file()
        and not path.name.startswith((FILLER, "client_id"))
        and path.suffix != ".lock"
    )
    was_filled = (disk / f"{FILLER}-1").exists()
    sys.stdout.write(json.dumps({"status": status, "left": left, "filled": was_filled}) + "\n")
    subprocess.run(["umount", "--lazy", folder], check=True)
    return 0


if __name__ == "__main__":
    main()
