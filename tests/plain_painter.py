"""Pictures of k-diffusion's family by hand: Diffusers' UNet, plain loops, the engine's VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

import plain_samplers
import plain_schedules
import plain_timestep_samplers
from lpw_sdxl import sampling
from lpw_sdxl.diffusion.latents import size_embedding
from lpw_sdxl.engine import Engine
from lpw_sdxl.schema import GenerationRequest, ImageSize
from tests.forge.scenes import Pixels

Tensor = torch.Tensor
LARGEST_STRENGTH = 0.999
MOST_DRAWS = 64


@dataclass(frozen=True)
class Picture:
    """Pixels to start from, and which latent cells are repainted, `[h, w]`; None is all."""

    pixels: Pixels
    cells: np.ndarray[Any, Any] | None = None


class Drawn(NamedTuple):
    """A picture, and the timestep that the UNet saw at each call."""

    pixels: Pixels
    timesteps: list[float]


@contextmanager
def watch_timesteps(engine: Engine) -> Iterator[list[float]]:
    """List the first row's timestep of each call that the engine makes of its UNet."""
    seen: list[float] = []

    def note(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        seen.append(keywords["timestep"][0].item())

    hook = engine.pipeline.unet.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


@dataclass(frozen=True)
class PlainPainter:
    """One model's parts; the scheduler's config says what the UNet predicts."""

    engine: Engine
    unet: Any

    @torch.inference_mode()
    def draw(
        self,
        wanted: GenerationRequest,
        sampler: str,
        schedule: str = "Automatic",
        picture: Picture | None = None,
        texts: Callable[[int], str] | None = None,
    ) -> Drawn:
        """Draw a request; `texts` names the prompt of a call by its index."""
        model = _Model(self, wanted, picture, texts)
        draws = _draws(wanted, model.shape)
        start = next(draws)
        if picture is not None:
            model.keep(self._encode(picture.pixels, wanted.seed or 0))
        if sampler in plain_timestep_samplers.SAMPLERS:
            latents = _walk_timesteps(model, sampler, start, draws)
        else:
            latents = _walk_sigmas(model, sampler, schedule, start, draws)
        vae = self.engine.pipeline.vae
        decoded = vae.decode(model.put_back(latents) / vae.config.scaling_factor).sample[0]
        levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
        return Drawn(levels.permute(1, 2, 0).numpy().astype(np.uint8), model.timesteps)

    def _encode(self, pixels: Pixels, seed: int) -> Tensor:
        vae = self.engine.pipeline.vae
        images = torch.tensor(pixels).permute(2, 0, 1)[None] / 255 * 2 - 1
        found = vae.encode(images).latent_dist
        noise = torch.randn(found.mean.shape, generator=torch.Generator().manual_seed(seed))
        return (found.mean + found.std * noise) * vae.config.scaling_factor


class _Model:
    """The UNet under guidance, as one request sees it."""

    def __init__(
        self,
        painter: PlainPainter,
        wanted: GenerationRequest,
        picture: Picture | None,
        texts: Callable[[int], str] | None,
    ) -> None:
        assert wanted.height is not None
        assert wanted.width is not None
        config = painter.engine.pipeline.scheduler_config
        self.wanted, self.texts = wanted, texts or (lambda _: wanted.prompt)
        self.timesteps: list[float] = []
        self.is_v = config["prediction_type"] == "v_prediction"
        is_zero_snr = bool(config.get("rescale_betas_zero_snr", False))
        self.alphas = plain_schedules.trained_alphas(zero_snr=is_zero_snr)
        self.trained = plain_schedules.trained_sigmas(self.alphas)
        self.shape = (1, 4, wanted.height // 8, wanted.width // 8)
        self.picture: Tensor | None = None
        self.filled: Tensor | None = None
        cells = None if picture is None else picture.cells
        self.mask = None if cells is None else torch.tensor(cells)[None, None]
        self._painter = painter
        self._time_ids = size_embedding(ImageSize(wanted.height, wanted.width))

    def keep(self, latents: Tensor) -> None:
        self.picture = latents

    def put_back(self, latents: Tensor) -> Tensor:
        if self.mask is None or self.picture is None:
            return latents
        return torch.where(self.mask, latents, self.picture)

    def start_from(self, noise: Tensor) -> Tensor:
        """The picture's latents, with the masked part filled."""
        assert self.picture is not None
        fill = {"latent_noise": noise, "latent_nothing": torch.zeros(())}
        filled = fill.get(self.wanted.masked_content)
        return self.picture if filled is None else self.put_back(filled.expand(self.shape))

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        is_rounded = self.wanted.timestep_rounding == "nearest"
        timestep = plain_schedules.timestep_of(sigma, self.trained, is_rounded=is_rounded)
        size = (sigma**2 + 1).sqrt()
        found = self._guided(x / size, timestep)
        return self.put_back(x / size**2 - found * sigma / size if self.is_v else x - sigma * found)

    def predicted_noise(self, x: Tensor, timestep: Tensor) -> Tensor:
        """In A1111 a UNet sees a kept picture without noise here, and predicts noise for all."""
        seen = self.put_back(x)
        found = self._guided(seen, timestep)
        if not self.is_v:
            return found
        alpha = plain_timestep_samplers.alpha_at(timestep, self.alphas).float()
        return alpha.sqrt() * found + (1 - alpha).sqrt() * seen

    def _guided(self, scaled: Tensor, timestep: Tensor) -> Tensor:
        encoder = self._painter.engine.pipeline.prompt_encoder
        texts = self.texts(len(self.timesteps)), self.wanted.negative_prompt
        encoded = encoder.encode(*texts, self.wanted.prompt_style)
        self.timesteps.append(timestep.item())
        pooled = [encoded.negative_pooled_prompt_embeds, encoded.pooled_prompt_embeds]
        negative, positive = self._painter.unet(
            scaled.expand(2, -1, -1, -1),
            timestep,
            encoder_hidden_states=torch.stack(
                [encoded.negative_prompt_embeds, encoded.prompt_embeds]
            ),
            added_cond_kwargs={
                "text_embeds": torch.stack(pooled),
                "time_ids": self._time_ids.expand(2, -1),
            },
            return_dict=False,
        )[0].split(1)
        return negative + self.wanted.guidance_scale * (positive - negative)


def _walk_sigmas(
    model: _Model, sampler: str, schedule: str, start: Tensor, draws: Iterator[Tensor]
) -> Tensor:
    wanted = model.wanted
    steps = wanted.num_inference_steps
    sigmas = plain_schedules.make_sigmas(sampler, schedule, steps, model.trained)
    left, x = sigmas, start * sigmas[0]
    if model.picture is not None:
        left = sigmas[steps - _steps_back(wanted) - 1 :]
        x = model.start_from(start) + start * left[0]
    noise: Any = lambda *_: next(draws)  # noqa: E731
    if sampler in plain_samplers.BROWNIAN:  # over all sigmas, also for a picture
        assert wanted.seed is not None
        randn = None
        if wanted.noise_source == "nv":
            randn = lambda seed: sampling.noise("nv", seed, model.shape, 1)[0]  # noqa: E731
        noise = plain_samplers.brownian(x, sigmas, wanted.seed, randn)
    eta = {} if wanted.eta is None else {"eta": wanted.eta}
    return plain_samplers.SAMPLERS[sampler](model.denoised, x, left, noise, **eta)


def _walk_timesteps(model: _Model, sampler: str, start: Tensor, draws: Iterator[Tensor]) -> Tensor:
    wanted, x = model.wanted, start
    timesteps = plain_schedules.timesteps_of_ddim(wanted.num_inference_steps)
    if model.picture is not None:  # noised for one timestep more than is walked, as in A1111
        back = _steps_back(wanted)
        alpha = model.alphas[timesteps[back]].float()
        x = alpha.sqrt() * model.start_from(start) + (1 - alpha).sqrt() * start
        timesteps = timesteps[: max(back, 1)]
    walked: Any = timesteps
    if sampler == "UniPC":
        top = 999.0 if model.picture is None else timesteps[-1]
        walked = plain_schedules.times_of_unipc(len(timesteps), top)
    eta = {} if wanted.eta is None else {"eta": wanted.eta}
    return plain_timestep_samplers.SAMPLERS[sampler](
        model.predicted_noise, x, walked, model.alphas.float(), lambda *_: next(draws), **eta
    )


def _steps_back(wanted: GenerationRequest) -> int:
    return int(min(wanted.strength, LARGEST_STRENGTH) * wanted.num_inference_steps)


def _draws(wanted: GenerationRequest, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """The start, then what the sampler adds."""
    assert wanted.seed is not None
    first, *others = _noise(wanted, wanted.seed, shape)
    if wanted.variation_strength:
        assert wanted.variation_seed is not None
        other = next(iter(_noise(wanted, wanted.variation_seed, shape)))
        first = plain_schedules.turn(first, other, wanted.variation_strength)
    yield first
    delta = wanted.eta_noise_seed_delta
    yield from _noise(wanted, wanted.seed + delta, shape) if delta else others


def _noise(wanted: GenerationRequest, seed: int, shape: tuple[int, ...]) -> list[Tensor]:
    if wanted.noise_source == "nv":
        return [*sampling.noise("nv", seed, shape, MOST_DRAWS)]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(MOST_DRAWS)]
