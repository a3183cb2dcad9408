"""Pictures under URLs: kept for a while, and bounded."""

from __future__ import annotations

from lpw_sdxl.doors.openai.links import PictureLinks


def test_a_picture_is_found_by_its_name_alone() -> None:
    links = PictureLinks()
    first, second = links.add(b"a", "image/png"), links.add(b"b", "image/webp")
    assert first.endswith(".png")
    assert len(first) > 32
    assert (links.find(first), links.find(second)) != (None, None)
    assert links.find(second)[:2] == (b"b", "image/webp")  # type: ignore[index]
    assert links.find("x.png") is None


def test_the_oldest_goes_when_number_or_bytes_are_reached() -> None:
    links = PictureLinks(most=2, most_bytes=10)
    names = [links.add(b"abc", "image/png") for _ in range(3)]
    assert [links.find(name) is not None for name in names] == [False, True, True]
    large = links.add(b"12345678", "image/png")
    assert [links.find(name) is not None for name in (*names, large)] == [False] * 3 + [True]
    assert links.find(links.add(b"x" * 11, "image/png")) is None
    assert links.find(links.add(b"x" * 10, "image/png")) is not None


def test_a_picture_is_kept_for_its_time() -> None:
    now = [0.0]
    links = PictureLinks(seconds=60, clock=lambda: now[0])
    name = links.add(b"a", "image/png")
    now[0] = 59
    assert links.find(name) is not None
    now[0] = 60
    assert links.find(name) is None
