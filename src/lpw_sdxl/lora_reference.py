"""One LoRA as a request's body names it; what else a prompt's tags name is added by `lora.request`.

It stands beside the schema that it is a part of, below the package `lora`, which knows the schema.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_STRENGTH = 10.0  # a LoRA's, absolute value; people use -2 to 2

Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]


class LoraReference(BaseModel):
    """One LoRA by the name it was imported under, and its strength."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Any name that an import may have; it is looked up, and never becomes a path.
    name: Annotated[str, Field(min_length=1, max_length=100)]
    weight: Strength = 1.0
    text_encoder_weight: Strength | None = Field(
        default=None, description="Of the text encoders' part; null is the same as weight."
    )
