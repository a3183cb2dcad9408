"""The requests of clients: GenerationRequest and its kin.

It knows nothing of HTTP, torch or the engine. The fields have the names that are usual for
diffusion models; a pair that is not named is height first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from lpw_sdxl.field_types import (
    LATENT_SCALE,
    MAX_IMAGE_PIXELS,
    MIN_IMAGE_PIXELS,
    AnyScheduleType,
    DeadlineSeconds,
    GuidanceScale,
    ImageSize,
    Interval,
    RequestId,
    Scheduler,
    Seed,
    SeedDelta,
    Share,
    Side,
    StepCount,
    Strength,
)
from lpw_sdxl.picture_file import PictureFile
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.sampling_options import NoiseSource, SamplerImplementation, TimestepRounding
from lpw_sdxl.second_pass import SecondPass

__all__ = ["LATENT_SCALE", "MAX_IMAGE_PIXELS", "MIN_IMAGE_PIXELS", "ImageSize"]
"""What is of `field_types` and asked for here."""

DEFAULT_STEPS = 30


class MaskedContent(StrEnum):
    """Content of the masked part of a picture before it is noised and repainted."""

    ORIGINAL = "original"
    FILL = "fill"  # its surroundings, spread and blurred
    LATENT_NOISE = "latent_noise"
    LATENT_NOTHING = "latent_nothing"


class ImageFormat(StrEnum):
    """File format of the answer."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class ResizeMode(StrEnum):
    """How a picture of another ratio is brought to a size."""

    STRETCH = "stretch"
    CROP = "crop"
    FILL = "fill"


class LoraReference(BaseModel):
    """One LoRA by the name it was imported under, and its strength."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    noun: ClassVar[str] = "a LoRA"

    # Any name that an import may have; it is looked up, and never becomes a path.
    name: Annotated[str, Field(min_length=1, max_length=100)]
    weight: Strength = 1.0
    text_encoder_weight: Strength | None = Field(
        default=None, description="Of the text encoders' part; null is the same as weight."
    )


class GenerationRequest(BaseModel):
    """One image to make; immutable and strict: unknown fields, NaN and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str = Field(
        description="What to draw, long or short; (words:1.3) strengthens, [words] weakens.",
        examples=["a lighthouse at dusk, (stormy sea:1.2)"],
    )
    negative_prompt: str = Field(default="", description="What to keep away from.")
    width: Side | None = Field(
        default=None,
        description="Pixels, a multiple of 8; the picture's by default, else the model's native.",
    )
    height: Side | None = Field(
        default=None,
        description="Pixels, a multiple of 8; the picture's by default, else the model's native.",
    )
    num_inference_steps: StepCount = Field(default=DEFAULT_STEPS, description="Denoising steps.")
    guidance_scale: GuidanceScale = Field(
        default=5.0,
        description="How hard to follow the prompt; 1 or less skips guidance and halves the cost.",
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Restores the contrast that high guidance burns, 0 to 1.",
    )
    guidance_interval: Interval | None = Field(
        default=None,
        description="The part of the steps with guidance, as shares such as [0.2, 0.8]; in the"
        " others the negative prompt has no effect, and up to half of the cost is saved. Null is"
        " all steps.",
    )
    seed: Seed = Field(
        default=None,
        description="Null or -1 draws one, which the answer states. Seeds that differ by a multiple"
        " of 2^32 start from the same noise: torch's CPU generator takes 32 bits, as in Diffusers.",
    )
    sampler_implementation: SamplerImplementation = Field(
        default=SamplerImplementation.DIFFUSERS,
        description="The family of samplers: diffusers draws what Diffusers' pipelines draw,"
        " k_diffusion what AUTOMATIC1111 and Forge draw. It decides what scheduler and"
        " schedule_type are names of.",
        strict=False,
    )
    scheduler: Scheduler = Field(
        default=None,
        description="Null is the model's own. Names of Diffusers' classes are understood too.",
    )
    schedule_type: AnyScheduleType = Field(
        default=None,
        description="At which timesteps the scheduler calls the UNet. Of diffusers: leading,"
        " trailing, linspace; null is the model's own, and few-step models need trailing. Of"
        " k_diffusion: A1111's, where null is Automatic.",
    )
    eta: Share | None = Field(
        default=None,
        description="Of k_diffusion: the share of noise that ancestral and SDE samplers and DDIM"
        " add; null is the sampler's own.",
    )
    noise_source: NoiseSource | None = Field(
        default=None,
        description="Of k_diffusion: whose noise is drawn: torch's on a CPU (cpu; null is that"
        " too), or the same numbers as an NVIDIA card's (nv), which is A1111's default.",
        strict=False,
    )
    timestep_rounding: TimestepRounding | None = Field(
        default=None,
        description="Of k_diffusion: whether the UNet sees a fraction of a timestep, as in A1111"
        " (interpolate; null is that too), or the nearest one, as in Forge and ComfyUI.",
        strict=False,
    )
    eta_noise_seed_delta: SeedDelta = Field(
        default=0,
        description="Of k_diffusion: added to the seed, but for the start's noise; A1111's ENSD.",
    )
    variation_seed: Seed = Field(
        default=None,
        description="Of k_diffusion: the seed of the noise that the start is turned towards; null"
        " or -1 draws one where variation_strength is above 0.",
    )
    variation_strength: Share = Field(
        default=0.0,
        description="Of k_diffusion: how far the start is turned, 0 to 1.",
    )
    prompt_style: PromptStyle = Field(
        default=PromptStyle.LPW, description="How the prompt is read.", strict=False
    )
    clip_skip: int | None = Field(
        default=None,
        ge=0,
        le=32,
        description="Layers left out beyond SDXL's default: k takes hidden_states[-(k+2)] of both "
        "encoders, as in Diffusers. A1111 and Civitai count otherwise: their 1 and 2 are the "
        "default of SDXL, for which this stays null.",
    )
    loras: list[LoraReference] = Field(
        default_factory=list,
        max_length=16,
        description="LoRAs by name, with their weights; those of the prompt's tags are added.",
    )
    hires: SecondPass | None = Field(
        default=None,
        description="A second pass over the image at a larger size, which A1111 calls hires fix."
        " Not with a picture.",
    )
    image_format: ImageFormat = Field(
        default=ImageFormat.PNG, description="The kind of file to answer with.", strict=False
    )
    image: PictureFile | None = Field(
        default=None,
        repr=False,
        description="A picture to start from: a PNG, JPEG or WebP as base64 or as a data URL. The"
        " size is then the picture's by default, rounded down to multiples of 8.",
    )
    strength: float = Field(
        default=0.75,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How much of the picture is made anew, 0 to 1: so large a share of the steps is"
        " taken, rounded down. At 0 none is, which is refused.",
    )
    resize_mode: ResizeMode = Field(
        default=ResizeMode.STRETCH,
        description="How a picture of another ratio is brought to the size: stretched, cropped, or"
        " made to fit with the rest filled from its edges.",
        strict=False,
    )
    mask_image: PictureFile | None = Field(
        default=None,
        repr=False,
        description="Which part of the picture is painted over, as base64 or a data URL: what is"
        " white, or what is opaque where any of it is transparent. It is stretched to the picture.",
    )
    invert_mask: bool = Field(
        default=False, description="Whether black (or transparent) is painted over instead."
    )
    mask_blur: float = Field(
        default=0.0,
        ge=0,
        le=256,
        allow_inf_nan=False,
        description="How soft the mask's edge is: a Gaussian's deviation, pixels of the picture.",
    )
    masked_content: MaskedContent = Field(
        default=MaskedContent.ORIGINAL,
        description="What the masked part is painted from: itself, its surroundings spread over it"
        " and blurred (fill), noise, or nothing.",
        strict=False,
    )
    only_masked: bool = Field(
        default=False,
        description="Whether only the part around the mask is painted, at the request's size, and"
        " put back into the picture: the answer has the picture's size.",
    )
    only_masked_padding: int = Field(
        default=32, ge=0, le=1024, description="Of that part, beyond the mask; pixels."
    )
    paste_back: bool = Field(
        default=True,
        description="Whether what the mask keeps is put back as it was, bit for bit. Without it the"
        " answer is all of what was decoded; only_masked always puts back.",
    )
    deadline_s: DeadlineSeconds | None = Field(
        default=None, description="Give up when the image is not done after so many seconds."
    )
    request_id: RequestId | None = Field(
        default=None,
        description="A name of your own, by which the job is found and cancelled: letters, digits,"
        " `_`, `-` and, not first, `.`. Null makes one. It does not change the image.",
    )

    def named(self, request_id: str) -> Self:
        """Return this request with an id, if it has none of its own."""
        if self.request_id is not None:
            return self
        return self.model_copy(update={"request_id": request_id})

    def without_pictures(self) -> Self:
        """Return this request without its pictures' files, which may have megabytes."""
        if self.image is None and self.mask_image is None:
            return self
        return self.model_copy(update={"image": None, "mask_image": None})


PreviewEvery = Annotated[
    int,
    Field(
        ge=0,
        le=1000,
        description="UNet calls from one preview to the next; 0 for none.",
    ),
]


class StreamRequest(GenerationRequest):
    """One image to make, with events until it is done."""

    preview_every: PreviewEvery = 0


class InspectionRequest(BaseModel):
    """A prompt to explain instead of drawing it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str
    negative_prompt: str = ""
    prompt_style: PromptStyle = Field(default=PromptStyle.LPW, strict=False)
    num_inference_steps: StepCount = Field(
        default=DEFAULT_STEPS,
        description="Denoising steps of the image, over which a prompt of the a1111 styles may"
        " change. The default is no more than the server takes.",
    )
    sampler_implementation: SamplerImplementation = Field(
        default=SamplerImplementation.DIFFUSERS,
        description="Of the image: the family that the scheduler is of.",
        strict=False,
    )
    scheduler: Scheduler = Field(
        default=None,
        description="Of the image: of some, a prompt counts two steps for each. Null is the"
        " model's own.",
    )

    @property
    def has_own_steps(self) -> bool:
        """Return whether it names the number of steps."""
        return "num_inference_steps" in self.model_fields_set


class InfoRequest(BaseModel):
    """An empty object: /info takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BatchRequest(BaseModel):
    """Several requests in one body; each item is read on its own, so that one fails no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    requests: list[Any] = Field(min_length=1, description="GenerationRequests, in order.")


class BatchStreamRequest(BatchRequest):
    """Several requests in one body, with events until all are done."""

    preview_every: PreviewEvery = 0
