"""A model's own defaults of requests, checked against the model before it is served."""

from __future__ import annotations

import logging

from lpw_sdxl.engine.sampling_chooser import SamplingChooser
from lpw_sdxl.errors import InvalidRequestError, ModelError
from lpw_sdxl.model_defaults import write_assignment
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.manifest import Manifest

logger = logging.getLogger(__name__)


def check_own_defaults(
    manifest: Manifest, limits: RequestLimits, sampling: SamplingChooser
) -> None:
    """Check that the model can be sampled with its own defaults, and log them.

    One that is over a limit of this server is logged; requests may say another value.

    Raises:
        ModelError: it can't; the message names the field.
    """
    if not limits.defaults:
        return
    plain = GenerationRequest(prompt="")
    try:
        sampling.choose(limits.defaults.fill(plain), manifest.native_size, seed=0)
    except InvalidRequestError as error:
        field = error.field if error.field in limits.defaults.values else "FIELD"
        command = f"set-defaults {manifest.tag} --remove {field}"
        raise ModelError(
            f"The model {manifest.tag} can't be sampled with its own defaults: {error.message};"
            f" `{import_command(command)}` removes one."
        ) from error
    written = (write_assignment(*one) for one in limits.defaults.as_json().items())
    logger.info("the model's own defaults of requests: %s", ", ".join(written))
    try:
        check_limits(plain, limits)
    except InvalidRequestError as error:
        logger.warning("a request that leaves the field out is refused: %s", error.message)
