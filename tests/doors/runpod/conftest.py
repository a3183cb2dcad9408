"""A queue of jobs, and a worker that takes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runpod_platform import Platform


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with Platform().serving() as platform:
        yield platform
