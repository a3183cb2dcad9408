from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from lpw_sdxl.api.process import without_collection


class Knot:
    """An object in a reference cycle, which only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_nothing_is_collected_meanwhile() -> None:
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_there_at_the_end_stays_and_what_comes_later_does_not() -> None:
    with without_collection():
        early = weakref.ref(Knot())
    late = weakref.ref(Knot())
    gc.collect()
    assert early() is not None
    assert late() is None


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()
