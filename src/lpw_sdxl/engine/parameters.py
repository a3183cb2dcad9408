"""An A1111 text to a request of this engine: its names looked up, its limits held."""

from __future__ import annotations

from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.errors import AddonNotReadError, RequestError
from lpw_sdxl.parameters.offered import Offered
from lpw_sdxl.parameters.request import (
    ParametersAnswer,
    ParametersRequest,
    answer,
    read_parameters,
)
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.manifest import Manifest


def answer_reading(
    request: ParametersRequest, manifest: Manifest, resolver: RequestResolver, offer: Offer
) -> ParametersAnswer:
    """Read a text as a request, which the resolver checks as it checks an image's.

    Args:
        request: with a text or a picture.
        manifest: of the served model.
        resolver: of the engine's requests.
        offer: the LoRAs and embeddings that they may name.

    Raises:
        RequestError: there is no text, or it is another program's.
    """
    offered = offered_by(manifest, offer.registry)
    defaults = resolver.limits.defaults
    translation = read_parameters(request, offered, resolver.limits).stated_beside(defaults)
    try:
        resolver.resolve(translation.request, offer)
    except AddonNotReadError:  # an image waits for it
        pass
    except RequestError as error:
        translation = translation.with_refusal(error)
    return answer(translation, defaults)


def offered_by(manifest: Manifest, registry: Registry) -> Offered:
    """Collect the names that requests may use now; a file that is being read has no hash yet."""
    prefix = AddonKind.LORA.prefix
    loras = {
        stored.removeprefix(prefix): "" for stored in registry.pending if stored.startswith(prefix)
    }
    for label in registry.labels:
        if label.key in registry.loras:
            loras[label.text] = registry.loras[label.key].manifest.origin.sha256
    manifests = [lora.manifest for lora in registry.loras.values()]
    return Offered(
        model_name=manifest.name,
        model_sha256=manifest.origin.sha256,
        loras=loras | {one.name: one.origin.sha256 for one in manifests},
        embeddings={
            one.manifest.name: one.manifest.origin.sha256 for one in registry.embeddings.values()
        },
        model_file=manifest.origin.file,
        upscalers=tuple(one.manifest.name for one in registry.upscalers.values()),
    )
