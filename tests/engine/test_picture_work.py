"""What goes wrong in a thread with a job's picture is an error of ours, and holds no picture."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lpw_sdxl.engine.picture_work import work_on_pictures
from lpw_sdxl.errors import (
    GenerationError,
    InvalidRequestError,
    LpwSdxlError,
    OutOfMemoryError,
)


async def test_the_result_of_the_work_is_returned() -> None:
    assert await work_on_pictures(lambda: 5) == 5
    with ThreadPoolExecutor(1) as threads:
        assert await work_on_pictures(lambda: 6, threads) == 6


REFUSAL = InvalidRequestError("image is no picture", field="image")


def lack_memory() -> None:
    [0] * 2**60


def raises(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (raises(RuntimeError("odd")), GenerationError),
        (raises(ValueError("odd")), GenerationError),
        (lack_memory, OutOfMemoryError),
        (raises(REFUSAL), InvalidRequestError),
    ],
    ids=["odd", "a wrong value", "no memory", "one of ours"],
)
async def test_an_error_becomes_one_of_ours(
    work: Callable[[], None], expected: type[LpwSdxlError]
) -> None:
    with pytest.raises(LpwSdxlError) as caught:
        await work_on_pictures(work)
    assert type(caught.value) is expected
    assert "odd" not in str(caught.value)  # a foreign error's words are for the log
    assert (caught.value is REFUSAL) == (expected is InvalidRequestError)


async def test_what_went_wrong_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GenerationError):
        await work_on_pictures(raises(RuntimeError("odd")))
    assert "RuntimeError: odd" in caplog.text


async def test_an_error_holds_no_picture(caplog: pytest.LogCaptureFixture) -> None:
    # What pytest keeps of a warning holds its traceback, and so the arrays of its frames.
    caplog.set_level(logging.ERROR, logger="lpw_sdxl.engine.picture_work")
    held: list[weakref.ref[object]] = []

    def fail() -> None:
        pixels = np.zeros((64, 64, 3), np.uint8)
        held.append(weakref.ref(pixels))
        raise RuntimeError("odd")

    with pytest.raises(GenerationError) as caught:
        await work_on_pictures(fail)
    await asyncio.sleep(0.01)  # the event loop's own turn holds the thread's result
    gc.collect()
    assert caught.value.__context__ is caught.value.__cause__ is None
    assert held[0]() is None
