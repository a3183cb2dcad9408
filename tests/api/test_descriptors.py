from __future__ import annotations

import resource

import pytest

from lpw_sdxl.api.connections import ConnectionLimits
from lpw_sdxl.api.descriptors import connection_limits, raise_descriptor_limit

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("descriptors", "limits"),
    [
        (1, (32, 24)),
        (256, (32, 24)),
        (512, (256, 224)),
        (1024, (768, 672)),
        (4096, (3840, 3584)),
        (65_536, (10_000, 9_744)),
        (1_000_000_000, (10_000, 9_744)),
    ],
)
def test_connections_leave_descriptors_for_files(descriptors: int, limits: tuple[int, int]) -> None:
    assert connection_limits(descriptors) == ConnectionLimits(*limits)


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 1024, 1024),
        (1024, 4096, 4096),
        (1024, 1_000_000_000, 10_256),
        (1024, INFINITE, 10_256),
        (65_536, 65_536, 65_536),
        (INFINITE, INFINITE, INFINITE),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_is_of_use(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, new: limits.append(new))
    useful = raise_descriptor_limit()
    assert limits[-1] == (raised, hard)
    assert connection_limits(useful) == connection_limits(10_256 if raised == INFINITE else raised)


def test_a_limit_that_cannot_be_raised_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_kind: int, _new: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, INFINITE))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256
