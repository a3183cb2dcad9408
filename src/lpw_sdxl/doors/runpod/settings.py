"""The settings on RunPod that are beside the service's own: of the image's start, of a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field, SecretStr, StringConstraints

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import EnvironmentSettings, variable_of

QUEUE, HTTP = "queue", "http"
"""Kinds of endpoints."""
_BUCKET = ("bucket_endpoint_url", "bucket_access_key_id", "bucket_secret_access_key")


class StartSettings(EnvironmentSettings):
    """The settings of the image's start."""

    checkpoint: str = ""
    """model that is imported onto the volume at the first start: `civitai:VERSION_ID` (its key:
    CIVITAI_TOKEN), an https URL, a path, or `demo`; empty for the checkpoint on the volume."""
    runpod_endpoint: Literal["auto", "queue", "http"] = "auto"
    """`queue`, `http`, or `auto`: a queue worker where RunPod names a queue and PORT is not set,
    else HTTP."""
    port: Annotated[int | None, Ge(1), Le(65535), Field(validation_alias="PORT")] = None
    """port of HTTP, which load-balancing endpoints set; None is 3000."""
    get_job: Annotated[SecretStr, Field(validation_alias="RUNPOD_WEBHOOK_GET_JOB")] = SecretStr("")
    """address of the queue; RunPod sets it."""
    bentoml_home: Annotated[Path, Field(validation_alias="BENTOML_HOME")] = Path("bentoml")
    """folder of the models that the image was built with; the image sets it."""

    @property
    def kind(self) -> str:
        """Return the kind of endpoint."""
        if self.runpod_endpoint != "auto":
            return self.runpod_endpoint
        return QUEUE if self.get_job.get_secret_value() and self.port is None else HTTP


class WorkerSettings(EnvironmentSettings):
    """The settings of a worker of a queue endpoint."""

    runpod_jobs: Annotated[int, Ge(1), Le(256)] | None = None
    """jobs that a queue worker takes at once; None is as many images with guidance, of the model's
    own size, as share one UNet call."""
    runpod_output_bytes: Annotated[int, Ge(1024)] = 10_000_000
    """largest output of a job with its images in base64, bytes; RunPod loses those above some 10 to
    20 million."""
    runpod_log_level: Annotated[
        Literal["NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"],
        Field(validation_alias="RUNPOD_LOG_LEVEL"),
    ] = "INFO"
    """what RunPod's package logs; at its own default, DEBUG, it logs prompts, images and links."""
    bucket_endpoint_url: Annotated[
        str,
        StringConstraints(pattern=r"^(https?://[^/?#@\s]+/?[^?#@\s]*)?$"),
        Field(validation_alias="BUCKET_ENDPOINT_URL"),
    ] = ""
    """S3 server that images are put on, and linked to in outputs; empty for images in base64."""
    bucket_access_key_id: Annotated[SecretStr, Field(validation_alias="BUCKET_ACCESS_KEY_ID")] = (
        SecretStr("")
    )
    """its key's id."""
    bucket_secret_access_key: Annotated[
        SecretStr, Field(validation_alias="BUCKET_SECRET_ACCESS_KEY")
    ] = SecretStr("")
    """its key."""
    bucket_name: Annotated[str, Field(validation_alias="BUCKET_NAME")] = ""
    """bucket there; empty for one named by month and year, such as `12-26`, as RunPod's package
    does."""

    @property
    def has_bucket(self) -> bool:
        """Return whether images go to a bucket."""
        return bool(self.bucket_endpoint_url)

    def check_bucket(self) -> None:
        """Refuse a bucket of which a part is missing: images would go nowhere.

        Raises:
            SettingsError: one is set without the others.
        """
        parts = {variable_of(type(self), name): self._is_set(name) for name in _BUCKET}
        missing = [name for name, is_set in parts.items() if not is_set]
        if missing and len(missing) < len(parts):
            there = [name for name in parts if name not in missing]
            raise SettingsError(
                f"{' and '.join(there)} set, but not {' and '.join(missing)}; all of"
                f" {', '.join(parts)} would be right, or none, for images in base64"
            )

    def _is_set(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
