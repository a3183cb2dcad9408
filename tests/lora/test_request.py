"""The body's and the prompt's LoRAs become one set, the same in whatever order they are named."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.lora.request import LoraStrength, LoraUse, collect, refuse_in_negative
from lpw_sdxl.prompt import parse
from lpw_sdxl.schema import LoraReference
from lpw_sdxl.store.origin import Origin


@dataclass(frozen=True)
class Entry:
    """The part of a registry's entry that a request needs."""

    manifest: SimpleNamespace
    key: str


KNOWN = {
    name: Entry(SimpleNamespace(name=name, origin=Origin("", "", 1, name * 64)), name * 64)
    for name in ("a", "b", "c")
}


def resolve(name: str, field: str) -> Entry:
    """Look up a name as a registry may: ignoring case, and by a second name."""
    entry = KNOWN.get(name.lower().removeprefix("lora-"))
    if entry is None:
        raise InvalidRequestError("unknown", field=field)
    return entry


def reference(name: str, weight: float = 1.0, **fields: float) -> LoraReference:
    return LoraReference(name=name, weight=weight, **fields)


def use(name: str, unet: float, text_encoder: float) -> LoraUse:
    return LoraUse(name, name * 64, LoraStrength(unet=unet, text_encoder=text_encoder), name * 64)


def read(prompt: str, *references: LoraReference, limit: int = 10) -> tuple[LoraUse, ...]:
    return collect(references, parse(prompt).lora_tags, resolve, limit)


def test_body_and_prompt_are_one_set_in_the_order_of_names() -> None:
    assert read("<lora:c:0.2:0.3> <lora:a:2>", reference("b", -1)) == (
        use("a", 2, 2),
        use("b", -1, -1),
        use("c", 0.3, 0.2),
    )


def test_nothing_asked_is_nothing() -> None:
    assert read("a cat") == ()


def test_a_bodys_text_encoder_weight_is_its_weight_unless_told() -> None:
    assert read("", reference("a", 0.5)) == (use("a", 0.5, 0.5),)
    assert read("", reference("a", 0.5, text_encoder_weight=0)) == (use("a", 0.5, 0),)


def test_the_same_lora_more_than_once_adds_up_whatever_it_is_called() -> None:
    found = read("<lora:LORA-A:0.5:0.25> <lora:a>", reference("A", 2, text_encoder_weight=-1))
    assert found == (use("a", 3.25, 0.5),)


def test_the_order_of_writing_changes_no_bit() -> None:
    weights = (0.1, 0.2, 0.3, -0.7)
    sets = set()
    for order in itertools.permutations(weights):
        sets.add(read("".join(f"<lora:a:{weight}><lora:b:{-weight}>" for weight in order)))
        sets.add(read("".join(f"<lora:b:{-weight}><lora:a:{weight}>" for weight in order)))
    assert len(sets) == 1


@pytest.mark.parametrize("prompt", ["<lora:a:0>", "<lora:a:-0>", "<lora:a:1.5><lora:A:-1.5>"])
def test_weights_of_zero_are_not_there(prompt: str) -> None:
    assert read(prompt + "<lora:b:1>", limit=1) == (use("b", 1, 1),)


@pytest.mark.parametrize("prompt", ["<lora:a:0:1>", "<lora:a:1:0>"])
def test_one_weight_of_zero_stays(prompt: str) -> None:
    assert len(read(prompt)) == 1


def test_more_than_the_limit_are_refused() -> None:
    assert len(read("<lora:a><lora:b><lora:A>", limit=2)) == 2
    for prompt, references, field in (
        ("<lora:a><lora:b><lora:c>", (), "prompt"),
        ("<lora:a><lora:b>", (reference("c"),), "loras"),
    ):
        with pytest.raises(InvalidRequestError, match="uses 3 different LoRAs; at most 2") as error:
            read(prompt, *references, limit=2)
        assert error.value.field == field


def test_a_limit_of_zero_refuses_any() -> None:
    with pytest.raises(InvalidRequestError, match="at most 0"):
        read("<lora:a>", limit=0)


@pytest.mark.parametrize(
    ("prompt", "references", "field", "total"),
    [
        ("<lora:a:10.5>", (), "prompt", "10.5"),
        ("<lora:a:1:-11>", (), "prompt", "-11"),
        ("<lora:a:-11:1>", (), "prompt", "-11"),
        ("<lora:a:6>", (reference("b"), reference("a", 6)), "loras.1.name", "12"),
    ],
)
def test_sums_beyond_10_are_refused_by_name(
    prompt: str, references: tuple[LoraReference, ...], field: str, total: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"the LoRA a add up to {total};") as error:
        read(prompt, *references)
    assert error.value.field == field


def test_sums_within_10_are_taken_whatever_they_are_made_of() -> None:
    assert read("<lora:a:50><lora:a:-40>") == (use("a", 10, 10),)


@pytest.mark.parametrize(
    ("prompt", "references", "field"),
    [
        ("<lora:zzz:0>", (), "prompt"),
        ("", (reference("a"), reference("zzz")), "loras.1.name"),
    ],
)
def test_unknown_names_are_refused_by_field_even_at_weight_0(
    prompt: str, references: tuple[LoraReference, ...], field: str
) -> None:
    with pytest.raises(InvalidRequestError, match="unknown") as error:
        read(prompt, *references)
    assert error.value.field == field


def test_a_tag_in_the_negative_prompt_is_refused() -> None:
    refuse_in_negative(parse("ugly, <lora:a:x"))
    refuse_in_negative(parse("ugly, <hypernet:a:x>"))  # refused wherever it is read
    for tag in ("<lora:secret:1>", "<lora:secret:dyn=1> <lora:secret:1>"):
        belongs = pytest.raises(InvalidPromptError, match=r"character 6 .* belongs in the prompt")
        with belongs as error:
            refuse_in_negative(parse(f"ugly, {tag}"))
        assert error.value.field == "negative_prompt"
        assert "secret" not in error.value.message
