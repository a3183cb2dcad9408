"""Odd pictures over HTTP: each is the right picture, or a 400 that names field and reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import httpx
import pytest

from serving import Server
from tests.forge.odd_pictures import OddRequest, cut_pictures, refused_pictures, right_pictures

pytestmark = pytest.mark.processes

FEW_KINDS = ("png-grey-alpha-16", "jpeg-cmyk", "webp-lossless-alpha")


def faults(server: Server, requests: Iterator[OddRequest]) -> Sequence[str]:
    """Send all requests; return what is wrong with the answers."""
    found = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for request in requests:
            answer = client.post("/generate", json=request.fields)
            error = None if answer.is_success else answer.json()["error"]
            fault = request.fault(answer.status_code, answer.content, error)
            found += [f"{request.name}: {fault}"] if fault else []
    return found


def test_pictures_of_every_kind_come_back_as_they_are(plain_server: Server) -> None:
    assert not faults(plain_server, right_pictures([(17, 33)]))


def test_pictures_of_every_size_come_back_as_they_are(plain_server: Server) -> None:
    assert not faults(plain_server, right_pictures(kinds=["png-colour", "jpeg-turned-6"]))


def test_what_is_no_picture_is_refused_by_field_and_reason(plain_server: Server) -> None:
    assert not faults(plain_server, refused_pictures(most_bytes=100_000))


def test_a_picture_that_is_cut_off_is_refused(plain_server: Server) -> None:
    assert not faults(plain_server, cut_pictures(640, FEW_KINDS))


def test_the_comparison_would_notice_one_wrong_pixel(plain_server: Server) -> None:
    [request] = right_pictures([(17, 33)], ["png-colour"])
    assert request.picture is not None
    pixels = request.picture.pixels.copy()
    pixels[16, 32, 0] ^= 1
    wrong = request._replace(picture=request.picture._replace(pixels=pixels))
    assert faults(plain_server, iter([wrong])) == ["png-colour of 33x17: differs by 1 levels"]
