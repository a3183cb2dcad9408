"""What Civitai knows about a model version: its file, that file's SHA-256, its trained words.

The answer's shape is documented at https://developer.civitai.com/site/reference/model-versions
(`sizeKB` is a float of 1,024 bytes, `hashes.SHA256` is in capitals, `metadata.format` is
`SafeTensor`, `PickleTensor` or another word, `primary` marks the usual file).
Whoever uploads a model writes most of it, so no field is trusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lpw_sdxl.download.answers import RefusedError
from lpw_sdxl.download.filename import SUFFIX, safe_file_name
from lpw_sdxl.download.http import Client, Response
from lpw_sdxl.download.source import check_url
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.settings import ImportSettings
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.text import clean_text

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_TRAINED_WORDS = 100
MAX_TEXT_CHARACTERS = 200
MAX_FILE_BYTES = 100 * 10**9

_MODEL_FILES = frozenset({"Model", "Pruned Model"})
# Of an embedding for negative prompts, whose version may have one for both.
_NEGATIVE_FILE = "Negative"
_FILES_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class CivitaiVersion:
    """A model version and the file of it that is downloaded.

    Attributes:
        version_id: of the version, not of the model.
        model_name: one line, as its author wrote it; so are the next three.
        version_name: such as `v16.0`.
        base_model: such as `Illustrious`.
        trained_words: words that the author says bring out the style.
        file_name: a safe name that ends in `.safetensors`.
        size: bytes, to within 1,024, or None.
        sha256: lower-case hexadecimal digits, or None.
        download_url: of the file; it may choose among the version's files by its query.
    """

    version_id: int
    model_name: str
    version_name: str
    base_model: str
    trained_words: tuple[str, ...]
    file_name: str
    size: int | None
    sha256: str | None
    download_url: str = field(repr=False)

    @property
    def origin(self) -> Origin:
        """Return what an import keeps of it."""
        title = f"{self.model_name} {self.version_name}".strip()
        return Origin(f"civitai:{self.version_id}", title, self.base_model, self.trained_words)


def fetch_version(client: Client, settings: ImportSettings, version_id: int) -> CivitaiVersion:
    """Ask Civitai about a model version.

    Raises:
        TransientError: Civitai can't be reached now.
        UnsupportedCheckpointError: the version has no safetensors file.
        CheckpointError: there is no such version, a key is needed, or the answer makes no sense.
    """
    url = f"{settings.civitai_url}/api/v1/model-versions/{version_id}"
    try:
        with client.get(url, {"Accept": "application/json"}) as response:
            answer = _read(response)
    except RefusedError as error:
        if error.status == 404:
            raise CheckpointError(
                f"Civitai has no model version {version_id}; the version id is the number behind "
                "modelVersionId= in the address of the model's page (not the one behind /models/)."
            ) from error
        raise
    return parse_version(answer, version_id)


def parse_version(answer: bytes, version_id: int) -> CivitaiVersion:
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
    return CivitaiVersion(
        version_id=version_id,
        model_name=_line(model.name),
        version_name=_line(record.name),
        base_model=_line(record.base_model),
        trained_words=tuple(_line(w) for w in (record.trained_words or [])[:MAX_TRAINED_WORDS]),
        file_name=safe_file_name(file.name or "") or f"civitai-{version_id}{SUFFIX}",
        size=_size(file),
        sha256=_sha256(file),
        download_url=_download_url(file),
    )


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
        """Whether it is in safetensors; older records say so by name only."""
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
