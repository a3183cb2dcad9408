"""What users' names become in the store."""

from __future__ import annotations

import re

import pytest

from lpw_sdxl.store.kind import SLUG_LENGTH, AddonKind, kind_of_store_name, slug, store_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add-detail-xl", "add-detail-xl"),
        ("Add Detail  XL!", "add-detail-xl"),
        ("unaestheticXL_v1.5", "unaestheticxl_v1.5"),
        ("../../etc/passwd", "etc-passwd"),
        ("a" * SLUG_LENGTH, "a" * SLUG_LENGTH),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_name_becomes_lower_case_with_hyphens(name: str, expected: str):
    assert slug(name) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("赤い花", "青い花"), ("style-赤", "style-青"), ("a" * 60 + "b", "a" * 60 + "c")],
)
def test_names_that_lose_letters_stay_apart(one: str, other: str):
    assert slug(one) != slug(other)
    assert slug(one) == slug(one.upper())


@pytest.mark.parametrize("name", ["x" * 1000, "赤い" * 99, "é" * 200, "A.b-C_d"])
def test_every_store_name_is_one_that_bentoml_can_keep(name: str):
    for kind in AddonKind:
        found = store_name(kind, name)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", found)
        assert kind_of_store_name(found) is kind
        assert slug(slug(name)) == slug(name)


def test_a_composed_and_a_decomposed_letter_are_one():
    assert slug("caf\u00e9") == slug("cafe\u0301")


def test_a_models_name_is_of_no_kind():
    assert [kind_of_store_name(name) for name in ("sdxl", "lora", "my-lora-x")] == [None] * 3
