"""Civitai: `civitai:VERSION_ID`, addresses of its pages, and what its API states of a version.

The answer's shape is documented at https://developer.civitai.com/site/reference/model-versions
(`sizeKB` is a float of 1,024 bytes, `hashes.SHA256` is in capitals, `metadata.format` is
`SafeTensor`, `PickleTensor` or another word, `primary` marks the usual file).
A model's uploader writes most of it, so no field is trusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import SplitResult, parse_qs

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from lpw_sdxl.download.answers import RefusedError
from lpw_sdxl.download.filename import SUFFIX, safe_file_name
from lpw_sdxl.download.key import Key
from lpw_sdxl.download.remote import MAX_FILE_BYTES, RemoteFile
from lpw_sdxl.download.source import Scheme, SourceKind
from lpw_sdxl.download.urls import check_url
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.settings import EnvironmentSettings
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.text import clean_text

if TYPE_CHECKING:
    from lpw_sdxl.download.http import Client, Response

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_TRAINED_WORDS = 100
MAX_TEXT_CHARACTERS = 200

_MODEL_FILES = frozenset({"Model", "Pruned Model"})
# Of an embedding for negative prompts, whose version may have one for both.
_NEGATIVE_FILE = "Negative"
_FILES_NAMED_AT_MOST = 5


_PAGE = re.compile(r"/models/[0-9]+(/[^/]*)?/?")
_DOWNLOAD = re.compile(r"/api/download/models/([0-9]+)/?")
# civitai.red shows what civitai.com leaves out; the API behind both is the same
# (https://github.com/Confuzu/CivitAI_Image_grabber/issues/68).
_HOSTS = frozenset({"civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red"})
_VERSION_ID_ADVICE = (
    "the version id is the number behind modelVersionId= in the address of the model's page"
)
_CLICK_ADVICE = f"{_VERSION_ID_ADVICE}, after a click on the version"


class CivitaiSettings(EnvironmentSettings):
    """Civitai's address and the user's key."""

    civitai_token: Annotated[SecretStr, Field(validation_alias="CIVITAI_TOKEN")] = SecretStr("")
    """Civitai's API key, from CIVITAI_TOKEN; sent to `civitai_url`'s origin only, in a header.
    Empty for none."""
    civitai_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#@\s]+$")] = (
        "https://civitai.com"
    )
    """where Civitai's API is; a mirror's address, or a test's."""


SETTINGS = CivitaiSettings
USAGE = "civitai:VERSION_ID (its key: CIVITAI_TOKEN)"


def make_kind(settings: CivitaiSettings) -> SourceKind:
    """Make the kind of source that stands for Civitai.

    Raises:
        CheckpointError: the address in the settings can't be asked.
    """
    try:
        own_address = check_url(settings.civitai_url).netloc
    except CheckpointError as error:
        raise CheckpointError(f"LPW_SDXL_CIVITAI_URL can't be used: {error}") from error

    def claim(parts: SplitResult) -> CivitaiSource | None:
        if parts.hostname not in _HOSTS and parts.netloc != own_address:
            return None
        version_id = _version_in_address(parts)
        return None if version_id is None else CivitaiSource(version_id, settings.civitai_url)

    return SourceKind(
        form="civitai:VERSION_ID",
        claim=claim,
        scheme=Scheme(
            "civitai", lambda rest: CivitaiSource(_version_id(rest), settings.civitai_url)
        ),
        key=Key(
            value=settings.civitai_token,
            url=settings.civitai_url,
            variable="CIVITAI_TOKEN",
            owner="Civitai",
            advice="make a key in Civitai's account settings and set CIVITAI_TOKEN to it",
            withheld="it may be in early access, removed, or kept to its creator",
        ),
    )


@dataclass(frozen=True)
class CivitaiSource:
    """A model version on Civitai.

    Attributes:
        version_id: of the version, not of the model.
        site: address of the API.
    """

    version_id: int
    site: str = "https://civitai.com"

    @property
    def public(self) -> str:
        """Return what may be stored and printed."""
        return f"civitai:{self.version_id}"

    @property
    def folder_name(self) -> str:
        """Return the name of its folder among the downloads."""
        return f"civitai-{self.version_id}"

    def describe(self, client: Client) -> RemoteFile:
        """Request the version's record from Civitai.

        Raises:
            TransientError: Civitai can't be reached now.
            UnsupportedCheckpointError: the version has no safetensors file.
            CheckpointError: there is no such version, a key is needed, or the answer makes no
                sense.
        """
        url = f"{self.site}/api/v1/model-versions/{self.version_id}"
        try:
            with client.get(url, {"Accept": "application/json"}) as response:
                answer = _read(response)
        except RefusedError as error:
            if error.status == 404:
                raise CheckpointError(
                    f"Civitai has no model version {self.version_id}; {_VERSION_ID_ADVICE} (not "
                    "the one behind /models/)."
                ) from error
            raise
        return parse_version(answer, self.version_id)


def parse_version(answer: bytes, version_id: int) -> RemoteFile:
    """Read Civitai's answer about a model version.

    Raises:
        UnsupportedCheckpointError: the version has no safetensors file.
        CheckpointError: the answer is not what it should be.
    """
    try:
        record = _Version.model_validate_json(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise CheckpointError(
            f"Civitai answered something that is not a model version ({clean_text(where)[:80]}: "
            f"{first['type']}); try again later, or download the file yourself."
        ) from None
    if record.id != version_id:
        raise CheckpointError(
            f"Civitai answered something that is not model version {version_id} but {record.id}."
        )
    file = _choose_file(record)
    model = record.model or _Model()
    return RemoteFile(
        url=_download_url(file),
        file_name=safe_file_name(file.name or "") or f"civitai-{version_id}{SUFFIX}",
        size=_size(file),
        sha256=_sha256(file),
        notes=AuthorNotes(
            title=f"{_line(model.name)} {_line(record.name)}".strip(),
            base_model=_line(record.base_model),
            trained_words=tuple(
                _line(word) for word in (record.trained_words or [])[:MAX_TRAINED_WORDS]
            ),
        ),
    )


def _version_id(text: str) -> int:
    # What stands there is not repeated: it may be a whole URL with a key in it.
    if not re.fullmatch("[0-9]{1,15}", text) or int(text) == 0:
        raise CheckpointError(
            "civitai: goes with the id of a model version, such as civitai:2514310; "
            f"{_CLICK_ADVICE}."
        )
    return int(text)


def _version_in_address(parts: SplitResult) -> int | None:
    """Return the version that a Civitai address means, or None if it is an address of a file."""
    if _PAGE.fullmatch(parts.path):
        version_id = parse_qs(parts.query).get("modelVersionId", [""])[0]
        if re.fullmatch("[0-9]{1,15}", version_id) and int(version_id):
            return int(version_id)
        raise CheckpointError(
            "This is the page of a model with all its versions; choose one, as civitai:VERSION_ID: "
            f"{_CLICK_ADVICE}."
        )
    download = _DOWNLOAD.fullmatch(parts.path)
    # Options such as type, format, size, fp and fileId choose another file than the usual one.
    if download and all(name.startswith("utm_") for name in parse_qs(parts.query)):
        return _version_id(download[1])
    return None


class _Record(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", alias_generator=to_camel, allow_inf_nan=False
    )


class _FileMetadata(_Record):
    format: str | None = None


class _Hashes(_Record):
    sha256: str | None = Field(None, alias="SHA256")


class _File(_Record):
    name: str | None = None
    type: str | None = None
    size_kib: float | None = Field(None, alias="sizeKB")
    metadata: _FileMetadata | None = None
    hashes: _Hashes | None = None
    primary: bool | None = None
    download_url: str | None = None

    @property
    def format(self) -> str:
        return (self.metadata and self.metadata.format) or "unknown"

    @property
    def is_safetensors(self) -> bool:
        """Return whether it is in safetensors; older records state that by name only."""
        return self.format == "SafeTensor" or (self.name or "").lower().endswith(SUFFIX)


class _Model(_Record):
    name: str | None = None


class _Version(_Record):
    id: int
    name: str | None = None
    base_model: str | None = None
    trained_words: list[str] | None = None
    model: _Model | None = None
    files: list[_File]


def _read(response: Response) -> bytes:
    answer = bytearray()
    for chunk in response.chunks():
        answer += chunk
        if len(answer) > MAX_ANSWER_BYTES:
            raise _nonsense(f"is not short: over {MAX_ANSWER_BYTES:,} bytes about a model version")
    return bytes(answer)


def _choose_file(record: _Version) -> _File:
    models = [file for file in record.files if file.type in _MODEL_FILES]
    # A negative embedding beside another one is never taken for it, whatever its format.
    models = models or [file for file in record.files if file.type == _NEGATIVE_FILE]
    models = [file for file in models if file.is_safetensors]
    if models:
        return next((file for file in models if file.primary), models[0])
    named = [
        f"{_line(file.name)[:80]} ({_line(file.type)[:40]}, format {_line(file.format)[:40]})"
        for file in record.files[:_FILES_NAMED_AT_MOST]
    ]
    more = len(record.files) - len(named)
    listed = ", ".join([*named, *([f"{more} more"] if more else [])]) or "no files at all"
    raise UnsupportedCheckpointError(
        f"Civitai's model version {record.id} has no model file in safetensors; it has {listed}."
    )


def _size(file: _File) -> int | None:
    if file.size_kib is None:
        return None
    size = round(file.size_kib * 1024)
    if not 0 < size <= MAX_FILE_BYTES:
        raise _nonsense(f"is not a file's size ({file.size_kib:g} KiB)")
    return size


def _sha256(file: _File) -> str | None:
    sha256 = file.hashes.sha256 if file.hashes else None
    if sha256 is not None and not re.fullmatch("[0-9A-Fa-f]{64}", sha256):
        raise _nonsense(f"is not a SHA-256 ({clean_text(sha256)[:70]})")
    return sha256.lower() if sha256 else None


def _download_url(file: _File) -> str:
    try:
        return check_url(file.download_url or "").geturl()
    except CheckpointError as error:
        raise _nonsense(f"is not an address to download from ({error})") from error


def _line(text: str | None) -> str:
    return clean_text((text or "")[: 2 * MAX_TEXT_CHARACTERS])[:MAX_TEXT_CHARACTERS]


def _nonsense(what: str) -> CheckpointError:
    return CheckpointError(f"Civitai answered something that {what.rstrip('.')}.")
