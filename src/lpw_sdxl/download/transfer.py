"""The bytes of one file, from a server into its folder, however often the connection is lost.

Received bytes are kept in FILE.part and continued, as long as the server states that its file is
the same (RFC 9110 sections 13.1.5 and 14.2). The whole file's size and SHA-256 are checked before
it gets its name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from lpw_sdxl.download.answers import TransientError
from lpw_sdxl.download.filename import name_download
from lpw_sdxl.download.hooks import DownloadHooks
from lpw_sdxl.download.http import Client, Response
from lpw_sdxl.download.partial import PartialFile, size_by_header
from lpw_sdxl.download.remote import MAX_FILE_BYTES, RemoteFile
from lpw_sdxl.download.retries import Retries
from lpw_sdxl.download.state import (
    PARTIAL_SUFFIX,
    DownloadState,
    clear_folder,
    read_state,
    sync_folder,
    write_state,
)
from lpw_sdxl.errors import CheckpointError

_ROUNDING_BYTES = 1024  # of a size that a source states


@dataclass(frozen=True)
class DownloadRequest:
    """A file to be fetched.

    Attributes:
        source: its public form, which may be stored and printed.
        remote: the file as its source describes it.
        expected_sha256: what the user asked for, or None.
    """

    source: str
    remote: RemoteFile
    expected_sha256: str | None


class Transfer:
    """One download into a folder whose lock is held."""

    def __init__(
        self,
        client: Client,
        request: DownloadRequest,
        folder: Path,
        hooks: DownloadHooks,
        retries: Retries,
    ) -> None:
        self._client = client
        self._request = request
        self._folder = folder
        self._hooks = hooks
        self._retries = retries
        self._state = self._new_state("")
        self._part = PartialFile(folder / PARTIAL_SUFFIX)
        self._best_position = 0
        self._space_is_checked = False
        self._header_is_checked = False
        self._checked_header = b""
        self._size_by_header = 0

    def run(self) -> DownloadState:
        """Fetch the file and return its state.

        Raises:
            CheckpointError: it can't be had, or is not the expected one.
            OSError: the folder can't be written to.
        """
        try:
            self._resume()
            self._retries.run(self._attempt, self._where)
            return self._finish()
        finally:
            self._part.close()

    def _resume(self) -> None:
        """Continue what an earlier process left, if it is a beginning of the same file."""
        state = read_state(self._folder)
        if state is None or not self._can_resume(state):
            clear_folder(self._folder)
            return
        self._state = replace(state, remote=self._request.remote)
        self._part = PartialFile(self._folder / f"{state.file_name}{PARTIAL_SUFFIX}")
        self._part.resume(self._hooks.progress)
        self._best_position = self._part.position
        self._check_header()

    def _can_resume(self, state: DownloadState) -> bool:
        path = self._folder / f"{state.file_name}{PARTIAL_SUFFIX}"
        position = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        is_requested = state.source == self._request.source and (
            state.remote.is_same_as(self._request.remote)
        )
        is_complete = position == state.size
        fits = state.size is None or position <= state.size
        return is_requested and position > 0 and fits and (is_complete or bool(state.validator))

    def _attempt(self) -> None:
        """Request the missing bytes and receive them."""
        state, position = self._state, self._part.position
        if not position or position != state.size:
            headers = {}
            if state.validator and position:
                headers = {"Range": f"bytes={position}-", "If-Range": state.validator}
            with self._client.get(self._request.remote.url, headers) as response:
                if response.status == 200:
                    self._begin(response)
                    self._receive(response)
                elif not headers:
                    raise CheckpointError(
                        f"{response.host} answered {response.status} to a request for the whole "
                        "file; download it yourself and pass its path."
                    )
                elif response.status == 206:
                    self._continue(response)
                    self._receive(response)
                elif state.size or response.content_range.size != position:
                    self._start_over(f"{response.host} does not have the rest of the file")
        self._check_end()

    def _begin(self, response: Response) -> None:
        """Take an answer that starts at the first byte."""
        size = response.length
        self._check_size(size, response.host)
        if self._part.position:
            self._retries.note(f"{response.host} starts at the beginning of the file again.")
        self._forget()
        self._check_space(size)
        remote = self._request.remote
        disposition = response.headers.get("content-disposition", "")
        name = remote.file_name or name_download(remote.url, disposition)
        self._state = self._new_state(name, size, response.validator)
        self._part = PartialFile(self._folder / f"{name}{PARTIAL_SUFFIX}")
        self._part.start()
        write_state(self._folder, self._state)

    def _continue(self, response: Response) -> None:
        """Take an answer that starts behind the bytes that are there."""
        position, size = self._part.position, self._state.size
        found = response.content_range
        if found.start != position or response.contradicts(self._state.validator):
            self._start_over(f"{response.host} sent another part of the file than was asked for")
        if found.size is not None and size is not None and found.size != size:
            self._start_over(f"{response.host} has a file of another size now")
        if found.size is not None and size is None:
            size = found.size
            self._check_size(size, response.host)
            self._state = replace(self._state, size=size)
            write_state(self._folder, self._state)
        if not self._space_is_checked:
            self._check_space(None if size is None else size - position)

    def _receive(self, response: Response) -> None:
        part, size = self._part, self._state.size
        self._hooks.progress("download", part.position, size or 0)
        for chunk in response.chunks():
            end = part.position + len(chunk)
            if size is not None and end > size:
                self._start_over(f"{response.host} sent more than it declared")
            self._check_cap(end, response.host)
            part.append(chunk)
            if part.position > self._best_position:
                self._best_position = part.position
                self._retries.progressed()
            self._check_header()
            self._hooks.progress("download", part.position, size or 0)

    def _check_end(self) -> None:
        """Check that what came ends where the file does."""
        size = self._state.size if self._state.size is not None else self._size_by_header
        if self._part.position < size:
            raise TransientError("The server ended the file early.")
        self._check_header(is_whole=True)

    def _check_header(self, *, is_whole: bool = False) -> None:
        """Check the header once, as soon as it is there."""
        size = self._state.size
        if self._header_is_checked or not (is_whole or self._part.has_header(size)):
            return
        self._header_is_checked = True
        header = self._part.header()
        digest = hashlib.sha256(header + str(size).encode()).digest()
        is_known = bool(header) and digest == self._checked_header
        self._checked_header = digest
        self._size_by_header = size_by_header(header)
        whole = size if size is not None else self._size_by_header or self._part.position
        try:
            if not is_known:
                self._hooks.check_header(self._part.path, whole)
            if size is not None and size < self._size_by_header:
                raise CheckpointError(
                    f"The file of {self._request.source} is damaged: it has {size:,} bytes and its "
                    f"own header asks for {self._size_by_header:,}; another source is needed."
                )
        except CheckpointError:
            self._forget()
            raise

    def _check_size(self, size: int | None, host: str) -> None:
        """Check what is declared against what is allowed and what the source states."""
        if size is None:
            return
        self._check_cap(size, host)
        stated = self._request.remote.size
        if stated and abs(stated - size) > _ROUNDING_BYTES:
            self._forget()
            raise CheckpointError(
                f"{host} has a file of {size:,} bytes and the record of {self._request.source} "
                f"says {stated:,}; it is not the file that was asked for."
            )

    def _check_cap(self, size: int, host: str) -> None:
        if size > MAX_FILE_BYTES:
            self._forget()
            raise CheckpointError(
                f"{host} sends {size:,} bytes; a checkpoint has {MAX_FILE_BYTES:,} at most."
            )

    def _check_space(self, size: int | None) -> None:
        self._hooks.check_space(size)
        self._space_is_checked = True

    def _start_over(self, reason: str) -> None:
        """Throw away what has come; the next attempt starts at the first byte."""
        self._forget()
        raise TransientError(f"{reason}, so it is fetched from the beginning.")

    def _forget(self) -> None:
        self._part.close()
        self._part = PartialFile(self._folder / PARTIAL_SUFFIX)
        self._state = self._new_state("")
        self._header_is_checked = False
        self._size_by_header = 0
        clear_folder(self._folder)

    def _new_state(
        self, name: str, size: int | None = None, validator: str | None = None
    ) -> DownloadState:
        return DownloadState(self._request.source, name, self._request.remote, size, validator)

    def _finish(self) -> DownloadState:
        """Check the whole file and give it its name."""
        size, sha256 = self._part.position, self._part.sha256
        self._check_size(size, self._request.source)
        self._check_sha256(sha256)
        state = replace(self._state, size=size, sha256=sha256)
        # The notes first: a process that dies before the rename leaves a .part that is complete.
        write_state(self._folder, state)
        self._part.finish(self._folder / state.file_name)
        sync_folder(self._folder)
        return state

    def _check_sha256(self, found: str) -> None:
        for predicate, sha256 in (
            ("was asked for", self._request.expected_sha256),
            ("is in its record", self._request.remote.sha256),
        ):
            if sha256 and sha256 != found:
                self._forget()
                raise CheckpointError(
                    f"The file of {self._request.source} has the SHA-256 {found}, and {sha256} "
                    f"{predicate}; what came was removed."
                )

    def _where(self) -> str:
        position = self._part.position
        return f", at {position / 1e6:,.1f} MB" if position else ""
