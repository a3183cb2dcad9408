"""Images that several modules run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import store_environment
from container_images import build_bento, containerize_in_layers
from containers import podman

EMPTY = "localhost/lpw-sdxl-test:empty"


@pytest.fixture(scope="session")
def empty_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of a bento without a model."""
    environment = store_environment(tmp_path_factory.mktemp("empty"))
    containerize_in_layers(build_bento({"model": "mounted"}, environment), EMPTY, environment)
    yield EMPTY
    podman("image", "rm", "--force", EMPTY)
