"""Alpha from every place that states it, against the same change worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lpw_sdxl.errors import AddonError
from lpw_sdxl.importing.addon_rows import addon_rows
from lpw_sdxl.lora.plan import LoraChoices
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import read_header
from tests.forge.stated_alpha import RANK, STATEMENTS, Module, Statement, write_statement

from .making import MODULE, header_of, pair, targets


def choices_of(statement: Statement) -> LoraChoices:
    return LoraChoices(alpha=float(statement.words[1]) if statement.words else None)


def alpha_row(path: Path, choices: LoraChoices) -> str:
    from lpw_sdxl.addon.opened import lora_details

    header = read_header(path)
    plan = examine(header, targets(), choices)
    details = lora_details(plan.summary, plan.ignored)
    rows = dict(addon_rows(header, AddonKind.LORA, details, AuthorNotes()))
    return f"alpha: {rows['alpha']}"


@pytest.mark.parametrize("name", STATEMENTS)
def test_alpha_is_read_from_where_it_is_stated(tmp_path: Path, name: str) -> None:
    statement = STATEMENTS[name]
    path = write_statement(tmp_path / "files", statement)
    plan = examine(read_header(path), targets(), choices_of(statement))
    by_place = {(alpha.component.value, alpha.path): alpha for alpha in plan.alphas}
    assert len(by_place) == len(statement.right)
    for module, scale in statement.right.items():
        alpha = by_place[place_of(module)]
        if module in statement.tensors:
            assert (alpha.value, alpha.source is None) == (None, False)
        else:
            assert alpha.value == pytest.approx(scale * RANK), module


def place_of(module: Module) -> tuple[str, str]:
    is_first = module.network == "text_encoder"  # whose paths have no wrapper's name
    return module.network, module.path.removeprefix("text_model.") if is_first else module.path


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_row_names_the_place(tmp_path: Path, name: str) -> None:
    statement = STATEMENTS[name]
    path = write_statement(tmp_path / "files", statement)
    row = alpha_row(path, choices_of(statement))
    assert statement.row in row
    if statement.row.startswith("alpha:"):
        assert row == statement.row


def test_a_tensor_that_states_another_alpha_than_the_option_is_refused(tmp_path: Path) -> None:
    path = write_statement(tmp_path / "files", STATEMENTS["tensors that agree with a note"])
    plan = examine(read_header(path), targets(), LoraChoices(alpha=16.0))
    assert (plan.summary.asked_alpha, plan.summary.alpha_note) == (None, "")
    with pytest.raises(AddonError) as caught:
        examine(read_header(path), targets(), LoraChoices(alpha=8.0))
    assert str(caught.value) == (
        "stated.safetensors: tensor lora_te1_text_model_encoder_layers_0_self_attn_v_proj.alpha "
        "states the alpha 16, and --alpha 8 is asked for; leave out --alpha, because the tensor "
        "counts."
    )


def test_an_alpha_for_a_file_without_a_scale_is_refused() -> None:
    header = header_of({f"{MODULE}.diff": (64, 64)})
    with pytest.raises(AddonError, match=r"^some\.safetensors has no module whose formula has a"):
        examine(header, targets(), LoraChoices(alpha=8.0))


def test_the_note_of_a_lora_in_a_file_of_another_form_is_refused() -> None:
    shapes = {
        f"{MODULE}.hada_w{n}_{half}": shape
        for n in (1, 2)
        for half, shape in (("a", (64, 4)), ("b", (4, 64)))
    }
    note = {"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 8})}
    with pytest.raises(AddonError, match="is no part of the LoRA that its note lora_adapter_metad"):
        examine(header_of(shapes, metadata=note), targets())
    plan = examine(header_of(shapes, metadata=note), targets(), LoraChoices(alpha=8.0))
    assert [alpha.value for alpha in plan.alphas] == [8.0]


def test_a_file_that_is_still_coming_has_the_alphas_of_its_note() -> None:
    """As a download's first bytes do: its tensors are not there yet."""
    shapes = pair(MODULE) | {f"{MODULE}.alpha": ()}
    plan = examine(header_of(shapes, metadata={"ss_network_alpha": "2"}), targets())
    assert (plan.summary.alphas, plan.summary.alpha_note) == ((2.0,), "")


UNFIT = {
    "no JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]"),
    "no rank": lambda path: path.write_text('{"lora_alpha": 16}'),
    "deep": lambda path: path.write_text("[" * 99_999),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe"),
    "huge": lambda path: path.write_text(json.dumps({"r": 4, "lora_alpha": 16, "x": "x" * 10**6})),
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT.keys())
def test_a_configuration_beside_it_that_is_unfit_changes_nothing(tmp_path: Path, make) -> None:
    path = write_statement(tmp_path / "files", STATEMENTS["nothing"])
    make(path.with_name("adapter_config.json"))
    plan = examine(read_header(path), targets())
    assert {alpha.value for alpha in plan.alphas} == {float(RANK)}
    assert plan.summary.alpha_note.startswith("not told, taken as the rank")
    assert not plan.has_config_beside


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32),
    ],
    ids=str,
)
def test_alphas_of_every_dtype_are_read_without_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    from lpw_sdxl.lora.numbers import read_numbers

    values = [1, 2, 24, -7, 0] if dtype in (torch.int64, torch.int32) else [0.5, 12, -0.75, 1e-2, 0]
    if dtype is torch.float8_e4m3fn:
        values = [value / 512 for value in range(-40, 40)] + [448, -448]
    tensors = {str(n): torch.tensor(float(value)).to(dtype) for n, value in enumerate(values)}
    path = tmp_path / "numbers.safetensors"
    save_file(tensors, path)
    infos = list(read_header(path).tensors.values())
    assert read_numbers(infos) == {name: float(tensor) for name, tensor in tensors.items()}
    path.write_bytes(path.read_bytes()[:-1])
    assert read_numbers(infos) == {}
