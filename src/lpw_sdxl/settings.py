"""Every setting of the service, read from environment variables: one table, one prefix.

A setting's type has its choices and limits, and the text under it is its description;
docs/tables.py writes a table of them.
Priority: environment variable, then the default below. Nothing else in the project reads the
environment, and nothing is read at import: `read_settings` reads it when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from lpw_sdxl.errors import SettingsError

ENVIRONMENT_PREFIX = "LPW_SDXL_"
DEFAULT_UPSCALED_PIXELS = 4096 * 4096
GONE = {
    "LPW_SDXL_COMPILE": "a compiled UNet gained 8 % on a GPU and kept images with different LoRAs"
    " apart",
    "LPW_SDXL_MAX_PROMPT_DEPTH": "64 nested brackets are accepted",
    "LPW_SDXL_MAX_PROMPT_WEIGHT": "weights from -100 to 100 are accepted",
    "LPW_SDXL_MIXED_LENGTHS": "prompts of all lengths share UNet calls, padded and masked; a call"
    " for each length was slower",
}
"""Variables that meant something once, and why they no longer do."""
RENAMED = {"LPW_SDXL_ADDONS": "LPW_SDXL_STORE"}
"""Variables by their former names, which still work."""


class EnvironmentSettings(BaseSettings):
    """Settings that are read from environment variables with our prefix."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


AnySettings = TypeVar("AnySettings", bound=EnvironmentSettings)
# A variable that a deployment leaves empty is none, and not the folder `.`.
OptionalFolder = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class LogSettings(EnvironmentSettings):
    """How logs are written; read before all else, so that a bad setting is logged in that form."""

    log_format: Literal["text", "json"] = "text"
    """`text` or `json`: one object a line."""


class StoreSettings(EnvironmentSettings):
    """Where models and add-ons are; the service reads there what the import writes."""

    store: OptionalFolder = Field(
        None, validation_alias=AliasChoices("LPW_SDXL_STORE", "LPW_SDXL_ADDONS")
    )
    """folder on a volume with models, LoRAs, embeddings and upscalers, NAME/VERSION/ each as in
    BentoML's store of models; a BENTOML_HOME serves as well. They are served beside what the
    service has of its own, and the import writes there."""


class Settings(LogSettings, StoreSettings):
    """The service's settings; the variable's name is the field's in capitals after `LPW_SDXL_`."""

    model: str = ""
    """tag of an imported model; empty for the one the service was built with, else sdxl:latest."""
    lora_dir: OptionalFolder = None
    """folder of LoRAs' `.safetensors` files, sub-folders too, named by their files; what comes or
    goes there counts within two seconds."""
    embedding_dir: OptionalFolder = None
    """likewise, of embeddings."""
    upscaler_dir: OptionalFolder = None
    """likewise, of upscalers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` (CUDA where there is one, else CPU), `cpu` or `cuda`; CUDA_VISIBLE_DEVICES chooses
    one."""
    workers: Annotated[int, Ge(1), Le(64)] = 1
    """processes that serve, each with a GPU of its own, by its number; on a CPU they share it. Not
    in a container, where BentoML starts no worker in the place of one that ended."""
    max_prompt_characters: Annotated[int, Ge(1), Le(10_000_000)] = 32_768
    """length limit of `prompt` and of `negative_prompt`, characters."""
    max_prompt_chunks: Annotated[int, Ge(1), Le(10_000)] = 64
    """limit of a prompt's chunks of 75 tokens; a longer one would slow every job that shares its
    UNet calls."""
    max_prompt_variants: Annotated[int, Ge(1), Le(10_000)] = 64
    """limit of the different texts that a prompt becomes by step, each of which is encoded."""
    max_steps: Annotated[int, Ge(1), Le(999)] = 150
    """largest `num_inference_steps`."""
    max_width: Annotated[int, Ge(64), Le(8192)] | None = None
    """largest image width, pixels; None is 2048, but on a CPU at most 8 times the model's own."""
    max_height: Annotated[int, Ge(64), Le(8192)] | None = None
    """largest image height, pixels; None is 2048, but on a CPU at most 8 times the model's own."""
    max_upscaled_pixels: Annotated[int, Ge(64), Le(2**26)] = DEFAULT_UPSCALED_PIXELS
    """largest answer of `/upscale`, pixels in all: 4096 x 4096 in any ratio. Its file is made in
    some 20 bytes of memory for each."""
    max_batch_items: Annotated[int, Ge(1), Le(1024)] = 64
    """largest number of requests in one call of `/generate_batch`."""
    max_loras: Annotated[int, Ge(0), Le(64)] = 10
    """largest number of different LoRAs in one request; 0 for none."""
    max_rows: Annotated[int, Ge(2), Le(256)] = 16
    """UNet rows in one call; a job with guidance is two rows, a further part one more."""
    max_queued_jobs: Annotated[int, Ge(1), Le(100_000)] = 256
    """jobs accepted and not finished before a request is refused with 429."""
    max_queued_cost: Annotated[float, Gt(0), Le(1e9)] = 20_000.0  # some 300 of 1024x1024, 30 steps
    """work accepted and not finished, in megapixel steps: an image's megapixels times its UNet
    calls times its rows (2 with guidance)."""
    time_limit_s: Annotated[float, Ge(1), Le(86_400)] = 600.0
    """any request's limit, seconds; a request's own `deadline_s` may be shorter."""
    drain_s: Annotated[float, Ge(0), Le(3600)] = 0.0
    """after SIGTERM, seconds in which requests are still taken while /readyz answers 503."""
    stall_s: Annotated[float, Ge(1), Le(86_400)] = 600.0
    """one UNet call, decode or encoding that lasts longer means a broken device, and ends the
    process; seconds."""
    offload: Literal["auto", "always", "never"] = "auto"
    """`auto` (below 20 GB of VRAM), `always` or `never`: only the component at work is on the
    device."""
    verify: Literal["contents", "heads"] = "contents"
    """how the model is verified while it is loaded: `contents` reads every byte; `heads` its
    configurations, tokenizers and the headers of its weights, for a model that was verified when it
    became a layer of an image, which no one writes to."""
    half_decode: bool = False
    """whether a half-precision model's VAE runs in that precision first: less memory, and on an
    H200 no less time. In float16 its features are scaled down, so that they don't overflow."""
    cuda_graphs: bool = True
    """whether small UNet calls are replayed as CUDA graphs, for which some memory of the device is
    set aside; one image alone takes about half the time."""
    fused_kernels: bool = False
    """whether what lies between the products of UNet and VAE is computed by kernels of our own, on
    a CUDA device with Triton that they are for; elsewhere nothing changes. No GPU has shown yet
    that they are faster: they are compiled and tried at start, and left where they are wrong."""
    precision: Literal["model", "fp8"] = "model"
    """`model` (the model's own) or `fp8`: the large products of the UNet in fp8, with a scale for
    each token and each output, on a CUDA device of compute capability 8.9 and more; other pictures,
    more memory, and not shown on a GPU yet. It needs the fused kernels, and switches them on."""
    max_body_bytes: Annotated[int, Ge(1024)] = 64 * 1024 * 1024
    """largest HTTP body; paths that need less take less. The bodies of all requests under way, what
    is read from them and their pictures take at most 8 times as much; beyond it a request is
    answered with 429."""
    max_image_bytes: Annotated[int, Ge(1024)] = 16 * 1024 * 1024
    """largest file of a picture that a request brings."""
    tokens: SecretStr | None = None
    """bearer tokens that may ask, with commas or blanks between them; None for anyone."""
    tokens_file: Path | None = None
    """file with more of them, one a line; a change of it counts without a restart."""
    open_probes: bool = True
    """whether /livez, /readyz and /healthz need no token; the probes of `deploy/` send none."""
    trust_proxy_auth: bool = False
    """whether any bearer token is taken for one that a proxy before this server has checked, where
    nothing else can reach the port: RunPod's load balancer checks its own keys in the same header.
    A request without a bearer token still needs one of this server's."""
    open_metrics: bool = False
    """whether /metrics needs no token."""
    cors_origins: str = ""
    """origins whose web pages may ask, with commas or blanks between them."""
    hosts: str = ""
    """names of this server, such as `images.example.org`, under which it shows jobs without tokens
    and its own pages may ask, with commas or blanks between them; beside addresses, names without a
    dot, and those under `.local`, `.internal`, `.lan`, `.home.arpa` and `.svc`."""
    doors: str = "all"
    """other programs' APIs that are served beside our own, and the page, with commas or blanks
    between them: `openai`, `a1111`, `page`, `all` or `none`."""
    public_url: Annotated[str, StringConstraints(pattern=r"^(https?://[!-~]+)?$")] = ""
    """where clients reach this server, such as `https://images.example.org`: the beginning of URLs
    in OpenAI's answers; empty for the host that a request names."""
    lora_weights_bytes: Annotated[int | None, Ge(1)] = None
    """for the model's weights with LoRAs, which are kept for sets that are asked for again; None is
    1 GiB on a CPU and what is left free on a CUDA device."""
    lora_files_bytes: Annotated[int, Ge(0)] = 2 * 1024 * 1024 * 1024
    """for the LoRAs themselves, in the CPU's memory."""
    conditioning_cache_bytes: Annotated[int, Ge(0)] = 256 * 1024 * 1024
    """what is remembered of encoded prompts, on the device; 0 is nothing."""


class ImportSettings(EnvironmentSettings):
    """The settings of the import; each source of downloads has its own beside them."""

    downloads: Path = Field(default_factory=lambda: _cache_home() / "lpw-sdxl" / "downloads")
    """folder that downloaded files are kept in; by default `.downloads` in LPW_SDXL_STORE where
    that is set, else in the user's cache."""

    def downloads_beside(self, store: Path | None) -> Path:
        """Return the folder of downloads; one that was not chosen is on the store's own volume.

        Args:
            store: the setting `LPW_SDXL_STORE`.
        """
        is_chosen = "downloads" in self.model_fields_set
        return self.downloads if store is None or is_chosen else store / ".downloads"


def read_settings(settings: type[AnySettings]) -> AnySettings:
    """Read one class of settings from the environment.

    Raises:
        SettingsError: a variable holds what can't be used; it is named.
    """
    try:
        return settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        variable = variable_of(settings, name) if name in settings.model_fields else name
        raise SettingsError(f"{variable}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def variable_of(settings: type[EnvironmentSettings], name: str) -> str:
    """Return the environment variable of a setting."""
    alias = settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        alias = str(alias.choices[0])
    return alias if isinstance(alias, str) else f"{ENVIRONMENT_PREFIX}{name.upper()}"


def list_gone(environment: Mapping[str, str]) -> list[str]:
    """List the variables of an environment that no longer mean anything, in a sentence each."""
    names = {name.upper() for name in environment}  # pydantic reads them in any case
    return [
        f"{name} is set and has no effect any more: {reason}"
        for name, reason in GONE.items()
        if name in names
    ]


def list_renamed(environment: Mapping[str, str]) -> list[str]:
    """List the variables of an environment that have another name by now, in a sentence each."""
    names = {name.upper() for name in environment}
    return [
        f"{old} is called {new} now; the old name still works"
        + (f", but {new} is set too and counts" if new in names else "")
        for old, new in RENAMED.items()
        if old in names
    ]


def is_in_container() -> bool:
    """Return whether this process runs in an image that BentoML made, by its own variable."""
    return os.environ.get("BENTOML_CONTAINERIZED") == "true"


def check_workers(settings: Settings) -> None:
    """Refuse several workers where one that ends would be missed for ever.

    Raises:
        SettingsError: if this is a container with more than one.
    """
    if settings.workers > 1 and is_in_container():
        raise SettingsError(
            f"LPW_SDXL_WORKERS is {settings.workers}, and this is a container, where BentoML starts"
            " no worker in the place of one that ended; a container for each GPU would be right"
        )


def _cache_home() -> Path:
    """Return where a user's caches are (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
