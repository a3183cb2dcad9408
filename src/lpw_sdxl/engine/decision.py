"""What an image will be: a request held against every limit, and all decided that it left open.

Knows the model's pipeline and the addons, but no queue, no device's memory and no thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.conditioning.chunking import ChunkedPair
from lpw_sdxl.conditioning.explain import ExplainedPrompt, PromptExplanation
from lpw_sdxl.conditioning.windows import WINDOW_TOKENS
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.scheduler_rules import check_scheduler
from lpw_sdxl.diffusion.schedulers import own_scheduler, unet_calls
from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.engine.job import JobSpec, PromptTexts, TextCount, TextCounts
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError, RequestError
from lpw_sdxl.imaging import EmbeddingUse, ImageRecord, check_fits, check_texts
from lpw_sdxl.lora.request import collect, refuse_in_negative
from lpw_sdxl.lora.sets import sets_of
from lpw_sdxl.prompt import PromptLimits, PromptStyle, parse
from lpw_sdxl.request_limits import RequestLimits, check_limits, check_prompt_lengths
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings

DRAWN_SEED_BITS = 32  # a seed that JavaScript and every A1111 tool can hold


class Decider:
    """Turns requests into specifications of jobs, or refuses them.

    Args:
        pipeline: the loaded model.
        addons: the LoRAs and embeddings that requests may name.
        settings: where the limits stand.
    """

    def __init__(self, pipeline: Pipeline, addons: Registry, settings: Settings) -> None:
        self._pipeline = pipeline
        self._addons = addons
        self.limits = RequestLimits.from_settings(settings)
        self._settings = settings
        self._prompt_limits = PromptLimits(settings.max_prompt_characters)
        self.own_scheduler = own_scheduler(pipeline.scheduler_config)

    def decide(self, request: GenerationRequest) -> JobSpec:
        """Hold a request against every limit and decide all that it left open.

        Raises:
            RequestError: naming the field at fault.
        """
        check_limits(request, self.limits)
        self._check_clip_skip(request.clip_skip)
        scheduler = request.scheduler or self.own_scheduler
        check_scheduler(scheduler, self._pipeline.scheduler_config, request.num_inference_steps)
        prompts = self._read_prompts(request)
        refuse_in_negative(prompts.negative_prompt)
        loras = collect(
            request.loras, prompts.prompt.lora_tags, self._addons.lora, self.limits.max_loras
        )
        chunked = self._chunk(prompts, request.prompt_style)
        manifest = self._pipeline.manifest
        record = ImageRecord(
            request=request,
            seed=secrets.randbits(DRAWN_SEED_BITS) if request.seed is None else request.seed,
            size=ImageSize(
                height=request.height or manifest.native_size.height,
                width=request.width or manifest.native_size.width,
            ),
            scheduler=scheduler,
            model_name=manifest.name,
            model_sha256=manifest.origin.sha256,
            loras=loras,
            embeddings=self._embedding_uses(chunked),
        )
        self._check_native_size(record)
        check_fits(record)
        spec = JobSpec(
            record,
            prompts,
            _count(chunked),
            unet_calls(record.scheduler, request.num_inference_steps),
            sets_of(loras, self._addons.changed_networks),
        )
        self._check_cost(spec)
        return spec

    def explain(self, request: InspectionRequest) -> PromptExplanation:
        """Say what is made of two prompts.

        Raises:
            RequestError: if a prompt breaks a limit.
        """
        check_prompt_lengths(request, self.limits)
        check_texts(request)
        prompts = self._read_prompts(request)
        self._chunk(prompts, request.prompt_style)
        explanation = self._pipeline.prompt_encoder.explain(*prompts, request.prompt_style)
        limit = self.limits.max_loras
        positive = partial(collect, (), prompts.prompt.lora_tags, self._addons.lora, limit)
        negative = partial(refuse_in_negative, prompts.negative_prompt)
        return replace(
            explanation,
            prompt=_tell_obstacle(explanation.prompt, positive),
            negative_prompt=_tell_obstacle(explanation.negative_prompt, negative),
        )

    def _check_clip_skip(self, clip_skip: int | None) -> None:
        deepest = self._pipeline.prompt_encoder.max_clip_skip
        if clip_skip is not None and clip_skip > deepest:
            raise InvalidRequestError(
                f"clip_skip is {clip_skip}; this model's text encoders have layers for at"
                f" most {deepest}",
                field="clip_skip",
            )

    def _read_prompts(self, request: GenerationRequest | InspectionRequest) -> PromptTexts:
        read = partial(parse, limits=self._prompt_limits, style=request.prompt_style)
        return PromptTexts(
            read(request.prompt, field="prompt"),
            read(request.negative_prompt, field="negative_prompt"),
        )

    def _chunk(self, prompts: PromptTexts, style: PromptStyle) -> ChunkedPair:
        """Chunk both prompts; refuse one of too many chunks, by its field."""
        encoder = self._pipeline.prompt_encoder
        for field, prompt in prompts._asdict().items():
            # Few characters of embeddings are many tokens: refused before they are made.
            self._check_chunks(field, -(-encoder.count_vectors(prompt, style) // WINDOW_TOKENS))
        chunked = encoder.chunk(*prompts, style)
        for field, chunks in chunked._asdict().items():
            self._check_chunks(field, chunks.own_windows)
        return chunked

    def _check_chunks(self, field: str, count: int) -> None:
        """Refuse a prompt of so many chunks, or more, if they are too many."""
        if count > self._settings.max_prompt_chunks:
            raise InvalidPromptError(
                f"{field} fills {count} chunks of 75 tokens; at most"
                f" {self._settings.max_prompt_chunks} are accepted here",
                field=field,
            )

    def _embedding_uses(self, chunked: ChunkedPair) -> tuple[EmbeddingUse, ...]:
        names = self._pipeline.prompt_encoder.named_embeddings(chunked)
        return tuple(EmbeddingUse(name, self._addons.embedding_sha256(name)) for name in names)

    def _check_native_size(self, record: ImageRecord) -> None:
        """Refuse a model's native size, where a request names none, if it is over the limit."""
        for field, side in record.size._asdict().items():
            most = getattr(self.limits.max_size, field)
            if side > most:
                raise InvalidRequestError(
                    f"{field} is {side}, the model's native; at most {most} is accepted here",
                    field=field,
                )

    def _check_cost(self, spec: JobSpec) -> None:
        """Refuse one image that is more than the whole queue may hold."""
        cost = step_cost(spec.record.size, spec.rows) * spec.unet_calls
        if cost > (most := self._settings.max_queued_cost):
            raise InvalidRequestError(
                f"an image of {spec.record.size} in {spec.unet_calls} steps is {cost:.0f} megapixel"
                f" steps; at most {most:.0f} are accepted here; fewer steps or a smaller size would"
                " be right",
                field="num_inference_steps",
            )


def _tell_obstacle(prompt: ExplainedPrompt, check: Callable[[], object]) -> ExplainedPrompt:
    """Put before a prompt's warnings why no image would be made of it, if a check refuses it."""
    try:
        check()
    except RequestError as error:
        obstacle = f"no image is made of it: {error.message}"
        return replace(prompt, warnings=(obstacle, *prompt.warnings))
    return prompt


def _count(chunked: ChunkedPair) -> TextCounts:
    """Count both prompts' tokens and chunks."""
    return TextCounts(*(TextCount(one.token_count, len(one.windows)) for one in chunked))
