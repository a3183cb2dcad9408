"""The body of /read_parameters, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.json_bounds import JsonText
from lpw_sdxl.model_defaults import NO_DEFAULTS, ModelDefaults
from lpw_sdxl.parameters.draft import NotHonoured
from lpw_sdxl.parameters.offered import Offered
from lpw_sdxl.parameters.picture_reader import read_picture
from lpw_sdxl.parameters.text_reader import read_text
from lpw_sdxl.parameters.translation import Translation, to_request
from lpw_sdxl.picture_file import PictureFile
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.request_reading import read_with_pictures

OTHER_CHARACTERS = 65_536  # of a text, beside its prompts


class ParametersRequest(BaseModel):
    """A text, or a picture that holds one, to read as a request: exactly one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    parameters: str | None = Field(
        default=None,
        description="What A1111 writes into a picture: prompt, negative prompt, and a last line"
        " such as `Steps: 20, Sampler: Euler a, ...`; as a program wrote it or as a page shows it.",
    )
    image: PictureFile | None = Field(
        default=None,
        repr=False,
        description="A PNG, JPEG or WebP that holds such a text, as base64 or as a data URL.",
    )


@dataclass(frozen=True)
class ParametersAnswer:
    """The request that makes a picture again, and what of its text that can't honour."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    request: Annotated[
        dict[str, Any],
        Field(
            description="A GenerationRequest: the prompt, and the fields that differ from their"
            " defaults."
        ),
    ]
    not_honoured: list[NotHonoured]


def most_characters(limits: RequestLimits) -> int:
    """Compute the characters of the longest text that is read."""
    return 2 * limits.max_prompt_characters + OTHER_CHARACTERS


def parse_parameters(body: JsonText, limits: RequestLimits) -> ParametersRequest:
    """Read a ParametersRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: a field is wrong, or there are two, or none.
    """
    request = read_with_pictures(ParametersRequest, body, limits)
    if (request.parameters is None) == (request.image is None):
        both = "both are" if request.image is not None else "none is"
        raise InvalidRequestError(
            f"{both} given of parameters and image; exactly one would be right",
            field="parameters",
        )
    _check_length(request.parameters or "", "parameters", limits)
    return request


def read_parameters(
    request: ParametersRequest, offered: Offered, limits: RequestLimits
) -> Translation:
    """Read a text, or that of a picture, as a request of this server; CPU work for a thread.

    Args:
        request: with a text or a picture.
        offered: the server's names.
        limits: of the server.

    Raises:
        InvalidRequestError: there is no text, it is another program's, or too long.
    """
    field, text = "parameters", request.parameters
    if text is None:
        assert request.image is not None
        field, text = "image", read_picture(request.image)
        _check_length(text, field, limits)
    return to_request(read_text(text, field), offered, limits, field)


def answer(translation: Translation, defaults: ModelDefaults = NO_DEFAULTS) -> ParametersAnswer:
    """Build the answer of a server whose model has defaults of its own."""
    return ParametersAnswer(translation.fields_beside(defaults), [*translation.not_honoured])


def _check_length(text: str, field: str, limits: RequestLimits) -> None:
    """Check a text's length.

    Raises:
        InvalidRequestError: it is too long.
    """
    most = most_characters(limits)
    if len(text) > most:
        raise InvalidRequestError(
            f"{field} has a text of {len(text)} characters; at most {most} are accepted here",
            field=field,
        )
