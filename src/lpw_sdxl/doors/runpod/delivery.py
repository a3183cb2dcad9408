"""The hand-over of finished images: in base64 within the output, or as files in a bucket."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lpw_sdxl.doors.runpod.answers import DeliveryError, FinishedImage, write_output
from lpw_sdxl.doors.runpod.settings import WorkerSettings
from lpw_sdxl.imaging import MEDIA_TYPES

logger = logging.getLogger(__name__)

LINK_SECONDS = 7 * 24 * 3600  # as long as S3 signs a link for
BASE64_BYTES = 4 / 3  # of one byte
_SUFFIXES = {media_type: format_.value for format_, media_type in MEDIA_TYPES.items()}


class Delivery(Protocol):
    """A way to hand images over."""

    async def output(self, job_id: str, images: Sequence[FinishedImage]) -> Any:
        """Hand the images of a job over and return its output.

        Raises:
            DeliveryError: they can't be.
        """


class InlineDelivery:
    """Images in base64.

    Args:
        most_bytes: of an output; RunPod drops larger ones, and the job would never end.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes

    async def output(self, _job_id: str, images: Sequence[FinishedImage]) -> Any:
        """Write the images into the output; the base64 is made in a thread.

        Raises:
            DeliveryError: they are too large together.
        """
        size = int(sum(len(one.content) for one in images) * BASE64_BYTES)
        if size > self._most:
            raise DeliveryError(
                "output_too_large",
                f"the job's {len(images)} images take {size} bytes in base64, and"
                f" {self._most} are handed over (LPW_SDXL_RUNPOD_OUTPUT_BYTES); fewer images,"
                " image_format jpeg or webp, or a bucket (BUCKET_ENDPOINT_URL) would be right",
            )
        return await asyncio.to_thread(self._write, images)

    @staticmethod
    def _write(images: Sequence[FinishedImage]) -> Any:
        places = [{"image": base64.b64encode(one.content).decode()} for one in images]
        return write_output(images, places)


class BucketDelivery:
    """Images as files of a bucket, with links that are signed for a week.

    Args:
        make_client: makes boto3's S3 client; called once, in a thread.
        bucket: name; empty for one by month and year.
    """

    def __init__(self, make_client: Callable[[], Any], bucket: str) -> None:
        self._make_client = make_client
        self._bucket = bucket
        self._client: Any = None
        self._making = asyncio.Lock()

    async def output(self, job_id: str, images: Sequence[FinishedImage]) -> Any:
        """Put the images into the bucket and write their links.

        Raises:
            DeliveryError: the bucket does not take them.
        """
        bucket = self._bucket or time.strftime("%m-%y")
        try:
            async with self._making:
                self._client = self._client or await asyncio.to_thread(self._make_client)
            places = await asyncio.gather(
                *(
                    asyncio.to_thread(self._put, bucket, f"{job_id}/{index}", one)
                    for index, one in enumerate(images)
                )
            )
        except Exception as error:  # noqa: BLE001 - boto3 raises many kinds, and some as they come
            # Its text may have the address with what signs it, so that its kind is all that is
            # repeated, and S3's own code.
            reason = _reason(error)
            logger.warning("images of a job were not put into the bucket: %s", reason)
            raise DeliveryError(
                "upload_failed",
                f"the bucket {bucket} did not take the images: {reason}; BUCKET_ENDPOINT_URL,"
                " BUCKET_NAME and the key's rights are to be checked",
            ) from None
        return write_output(images, places)

    def _put(self, bucket: str, name: str, image: FinishedImage) -> dict[str, str]:
        where = {"Bucket": bucket, "Key": f"{name}.{_SUFFIXES[image.media_type]}"}
        self._client.put_object(**where, Body=image.content, ContentType=image.media_type)
        link = self._client.generate_presigned_url("get_object", where, LINK_SECONDS)
        return {"url": link}


def choose_delivery(settings: WorkerSettings) -> Delivery:
    """Return the way that the settings name."""
    if not settings.has_bucket:
        return InlineDelivery(settings.runpod_output_bytes)

    def make_client() -> Any:
        from runpod.serverless.utils.rp_upload import get_boto_client  # noqa: PLC0415 - boto3

        key = {
            "endpointUrl": settings.bucket_endpoint_url,
            "accessId": settings.bucket_access_key_id.get_secret_value(),
            "accessSecret": settings.bucket_secret_access_key.get_secret_value(),
        }
        client, _ = get_boto_client(key)
        return client

    return BucketDelivery(make_client, settings.bucket_name)


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return f"{type(error).__name__} {code}" if code else type(error).__name__
