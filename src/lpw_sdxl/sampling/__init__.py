"""k-diffusion's samplers, schedules and noise, as AUTOMATIC1111 and Forge have them."""

from lpw_sdxl.sampling.by_name import noise, sample, sigmas, variation

__all__ = ["noise", "sample", "sigmas", "variation"]
