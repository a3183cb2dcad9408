"""Every kind of LoRA file, from its bytes to the networks' outputs, against float64 by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.test_engine_loras import request
from lora import by_hand
from lora.conftest import CPU, CanonicalFile, networks_of
from lora.test_adapters import row, unet_arguments
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.convert import convert
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.patched import RowRun
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.lora.request import collect
from lpw_sdxl.lora.sets import LoraSet, LoraSets, sets_of
from lpw_sdxl.lora.targets import LORA_COMPONENTS, TargetModules, read_targets
from lpw_sdxl.schema import LoraReference
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import record_file
from lpw_sdxl.weights.header import read_header
from stored_loras import store_lora
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_factors import SyntheticKind as Kind
from tests.forge.lora_names import SyntheticNaming as Naming

pytestmark = pytest.mark.thorough

TOLERANCE = 1e-4
EFFECT = 1e-2
MANY_BYTES = 2**30
KOHYA = (Naming.KOHYA, Naming.KOHYA_DIFFUSERS)


class Case(NamedTuple):
    """A kind of file."""

    kind: Kind
    naming: Naming = Naming.KOHYA
    conv: bool = True
    tucker: bool = False
    alpha: float = 2.0

    @property
    def name(self) -> str:
        parts = (self.kind, self.naming, "conv" * self.conv, "tucker" * self.tucker)
        return "_".join(part for part in parts if part)


CASES = [
    *(Case(kind) for kind in Kind),
    *(Case(kind, Naming.KOHYA_DIFFUSERS, alpha=3.0) for kind in Kind),
    *(Case(kind, tucker=True) for kind in (Kind.LOCON, Kind.LOHA, Kind.LOKR, Kind.DORA)),
    *(Case(kind, Naming.DIFFUSERS) for kind in (Kind.LORA, Kind.LOCON, Kind.DORA)),
    *(Case(kind, Naming.PEFT) for kind in (Kind.LORA, Kind.LOCON, Kind.DORA, Kind.LOHA, Kind.LOKR)),
    *(Case(kind, Naming.DIFFUSERS_OLD) for kind in (Kind.LORA, Kind.LOCON)),
    Case(Kind.LORA, Naming.DIFFUSERS_PROCESSOR, conv=False),
]
LORA, LOHA, LOKR, FULL, DORA, COLUMNS = (
    Case(Kind.LORA, Naming.DIFFUSERS),
    Case(Kind.LOHA, tucker=True),
    Case(Kind.LOKR, Naming.PEFT),
    Case(Kind.FULL),
    Case(Kind.DORA, Naming.KOHYA_DIFFUSERS),
    Case(Kind.DORA_COLUMNS),
)


@pytest.fixture(scope="module")
def model(model_directory: Path) -> Pipeline:
    return Pipeline.load(model_directory, CPU, Settings())


@pytest.fixture(scope="module")
def targets(model_directory: Path) -> TargetModules:
    return read_targets(model_directory)


@pytest.fixture(scope="module")
def without(model: Pipeline) -> dict[str, Tensor]:
    """Return the model's outputs without any LoRA."""
    return outputs_of(networks_of(model), torch.float32)


class Files:
    """The files of all cases, each written and converted once."""

    def __init__(self, folder: Path, targets: TargetModules) -> None:
        self._folder = folder
        self._targets = targets
        self._known: dict[Case, by_hand.Modules] = {}
        self.canonical: dict[str, CanonicalFile] = {}

    def get(self, case: Case) -> by_hand.Modules:
        """Return a file's factors as they are read by hand."""
        if case not in self._known:
            self._known[case] = self._make(case)
        return self._known[case]

    def _make(self, case: Case) -> by_hand.Modules:
        name = f"{case.name}_{case.alpha}"
        source = self._folder / f"{name}.source.safetensors"
        seed = 1 + list(Kind).index(case.kind)  # one LoRA under all namings
        options = LoraOptions(
            kind=case.kind,
            naming=case.naming,
            has_convolutions=case.conv,
            is_tucker=case.tucker,
            alpha=case.alpha,
            seed=seed,
        )
        write_lora(source, self._targets, options)
        file = self._folder / f"{name}.safetensors"
        convert(examine(read_header(source), self._targets), file, lambda *_: None)
        self.canonical[case_key(case)] = CanonicalFile(case_key(case), file)
        return by_hand.read(source, self._targets, case.naming)


def case_key(case: Case) -> str:
    """Return the case's stand-in for SHA-256 and name."""
    return f"{case.name}_{case.alpha}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, targets: TargetModules) -> Files:
    return Files(tmp_path_factory.mktemp("effects"), targets)


@pytest.fixture
def adapters(model: Pipeline, files: Files) -> Iterator[Adapters]:
    made = Adapters(networks_of(model), LoraLibrary(files.canonical, MANY_BYTES), CPU, MANY_BYTES)
    yield made
    made.reset()


def run_text_encoder(network: Any, like: torch.dtype) -> dict[str, Tensor]:
    ids = torch.randint(0, 400, (2, 77), generator=torch.Generator().manual_seed(1))
    output = network(input_ids=ids, output_hidden_states=True, return_dict=True)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    states = {f"hidden {index}": state for index, state in enumerate(output.hidden_states)}
    outputs = states | {"pooled": pooled}
    assert all(tensor.dtype == like for tensor in outputs.values())
    return outputs


def run_unet(network: Any, dtype: torch.dtype, rows: int = 2) -> dict[str, Tensor]:
    def cast(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cast(inner) for name, inner in value.items()}
        return value.to(dtype) if isinstance(value, Tensor) else value

    return {"prediction": network(**cast(unet_arguments(rows, network)))[0]}


@torch.inference_mode()
def outputs_of(networks: Mapping[Component, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Run all three networks on the same inputs."""
    return {
        f"{component}: {name}": tensor
        for component, network in networks.items()
        for name, tensor in (
            run_unet(network, dtype)
            if component is Component.UNET
            else run_text_encoder(network, dtype)
        ).items()
    }


def distance(found: Tensor, expected: Tensor) -> float:
    """Compute the largest difference as a share of the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


Weighted = Sequence[tuple[float, Case]]


@dataclasses.dataclass(frozen=True)
class Exactness:
    """A comparison of the effect of LoRA sets with what is computed by hand."""

    model: Pipeline
    adapters: Adapters
    files: Files
    without: Mapping[str, Tensor]

    def check(self, sets: LoraSets, unet: Weighted, text: Weighted) -> None:
        """Compare with the sets in place; and without, in which every output must differ."""
        networks = networks_of(self.model)
        self.adapters.reset()
        weighted = {
            component: [
                (strength, self.files.get(case))
                for strength, case in (unet if component is Component.UNET else text)
            ]
            for component in LORA_COMPONENTS
        }
        expected = outputs_of(by_hand.merged(networks, weighted), torch.float64)
        self.adapters.use(Component.UNET, sets.unet)
        self.adapters.use_in_encoders(sets.text_encoders)
        found = outputs_of(networks, torch.float32)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert distance(found[name], tensor) <= TOLERANCE, name
            if not name.endswith("hidden 0"):  # the embeddings, which no LoRA changes
                assert distance(self.without[name], tensor) > EFFECT, name


@pytest.fixture
def exactness(
    model: Pipeline, adapters: Adapters, files: Files, without: dict[str, Tensor]
) -> Exactness:
    return Exactness(model, adapters, files, without)


def one_set(*parts: tuple[float, Case]) -> LoraSet:
    return tuple(sorted((case_key(case), strength) for strength, case in parts))


@pytest.mark.parametrize("case", CASES, ids=case_key)
def test_a_file_of_any_kind_and_naming_does_what_its_formula_says(
    exactness: Exactness, files: Files, case: Case
) -> None:
    files.get(case)
    sets = LoraSets(one_set((0.9, case)), one_set((0.9, case)))
    exactness.check(sets, [(0.9, case)], [(0.9, case)])


def test_the_files_have_all_that_a_kind_may_hold(files: Files) -> None:
    def forms(case: Case) -> set[frozenset[str]]:
        return {frozenset(factors) - {"alpha"} for factors in files.get(case).values()}

    loose, tucker = forms(Case(Kind.LOKR)), forms(Case(Kind.LOKR, tucker=True))
    sides = {frozenset(name[:7] for name in form) | {str(len(form))} for form in loose}
    assert len(sides) == 3  # both whole, one whole, none
    assert any("lokr_t2" in form for form in tucker)
    assert any("hada_t1" in form for form in forms(LOHA))
    assert any("lora_mid" in form for form in forms(Case(Kind.LOCON, tucker=True)))
    assert {frozenset({"w_norm", "b_norm"}), frozenset({"diff", "diff_b"})} <= forms(FULL)
    kernels = {
        factors["diff"].shape[2:] for factors in files.get(FULL).values() if "diff" in factors
    }
    assert kernels == {(), (1, 1), (3, 3)}


def references(*parts: tuple[Case, float, float | None]) -> list[LoraReference]:
    return [
        LoraReference(name=case_key(case), weight=weight, text_encoder_weight=text)
        for case, weight, text in parts
    ]


def asked(files: Files, references: Sequence[LoraReference]) -> LoraSets:
    """Turn a request's LoRAs into sets, as the engine does."""
    uses = collect(references, [], lambda name, _: files.canonical[name], 8)
    return sets_of(uses, lambda _: LORA_COMPONENTS)


@pytest.mark.parametrize(
    "cases",
    [(LORA, LOHA, LOKR), (FULL, DORA, COLUMNS), (LOKR, COLUMNS, FULL)],
    ids=lambda cases: "-".join(case.kind for case in cases),
)
def test_three_kinds_add_up_with_negative_weights_and_zeros(
    exactness: Exactness, files: Files, cases: tuple[Case, Case, Case]
) -> None:
    first, second, third = cases
    for case in cases:
        files.get(case)
    sets = asked(files, references((first, 0.8, None), (second, -0.6, None), (third, 0.4, -0.5)))
    unet = [(0.8, first), (-0.6, second), (0.4, third)]
    text = [(0.8, first), (-0.6, second), (-0.5, third)]
    exactness.check(sets, unet, text)

    with_zero = asked(files, references((first, 0.8, None), (second, -0.6, None), (third, 0, 0)))
    assert with_zero == asked(files, references((first, 0.8, None), (second, -0.6, None)))
    exactness.check(with_zero, unet[:2], text[:2])

    half_zero = asked(files, references((second, -0.6, 0), (first, 0, 0.8), (third, 0, 0)))
    assert half_zero == LoraSets(one_set((-0.6, second)), one_set((0.8, first)))
    exactness.check(half_zero, [(-0.6, second)], [(0.8, first)])


def test_a_lora_that_is_named_twice_has_the_sum_of_its_weights(
    exactness: Exactness, files: Files
) -> None:
    files.get(DORA)
    twice = asked(files, references((DORA, 0.25, None), (DORA, 0.5, -1.0)))
    assert twice == LoraSets(one_set((0.75, DORA)), one_set((-0.75, DORA)))
    exactness.check(twice, [(0.75, DORA)], [(-0.75, DORA)])
    nothing = asked(files, references((DORA, 0.5, None), (DORA, -0.5, None)))
    assert nothing == LoraSets((), ())


@torch.inference_mode()
def test_rows_of_different_kinds_share_a_call_and_stay_what_they_are_alone(
    model: Pipeline, adapters: Adapters, files: Files
) -> None:
    for case in (LORA, LOHA, LOKR, FULL, DORA, COLUMNS):
        files.get(case)
    runs = [
        RowRun(one_set((1.0, FULL)), 1),
        RowRun((), 2),
        RowRun(one_set((0.8, LOHA), (-0.5, COLUMNS)), 2),
        RowRun(one_set((0.7, FULL), (1.0, LOKR)), 1),
        RowRun(one_set((-1.0, DORA), (0.3, LORA)), 1),
    ]
    rows = sum(run.rows for run in runs)
    arguments = unet_arguments(rows, model.unet)
    adapters.reset()
    plain = model.unet(**arguments)[0]
    adapters.divide(Component.UNET, runs)
    together = model.unet(**arguments)[0]
    start = 0
    for run in runs:
        stop = start + run.rows
        adapters.use(Component.UNET, run.loras)
        alone = model.unet(**row(arguments, start, stop))[0]
        assert distance(together[start:stop], alone.double()) <= TOLERANCE
        changed = distance(plain[start:stop], alone.double())
        assert changed > EFFECT if run.loras else changed <= TOLERANCE
        start = stop


@pytest.mark.parametrize("case", [LORA, LOKR, FULL, DORA, COLUMNS], ids=case_key)
def test_half_precision_weights_are_the_exact_sum_rounded_once(
    model_directory: Path, files: Files, case: Case
) -> None:
    half = Pipeline.load(model_directory, CPU, Settings())
    networks = {component: module.half() for component, module in networks_of(half).items()}
    weighted = [(0.7, files.get(case)), (-0.4, files.get(LOHA))]
    expected = by_hand.merged(networks, dict.fromkeys(LORA_COMPONENTS, weighted))
    adapters = Adapters(networks, LoraLibrary(files.canonical, MANY_BYTES), CPU, MANY_BYTES)
    sets = one_set((0.7, case), (-0.4, LOHA))
    adapters.use(Component.UNET, sets)
    adapters.use_in_encoders(sets)
    changed = 0
    for component, network in networks.items():
        exact = dict(expected[component].named_parameters())
        for name, parameter in network.named_parameters():
            assert parameter.dtype == torch.float16
            rounded = exact[name].half()
            above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
            below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
            assert torch.all((parameter >= below) & (parameter <= above)), (component, name)
            # Nearly always the sum in float32 is rounded to the same number as the exact one.
            assert (parameter != rounded).float().mean() < 0.01, (component, name)
            changed += 1
    assert changed > 100


def test_a_kohya_file_and_the_diffusers_file_of_one_lora_are_one(files: Files) -> None:
    for kind in (Kind.LORA, Kind.LOCON, Kind.DORA):
        cases = [Case(kind, naming) for naming in (*KOHYA, Naming.DIFFUSERS)]
        for case in cases:
            files.get(case)
        first, *others = [load_file(files.canonical[case_key(case)].file) for case in cases]
        assert first
        for other in others:
            assert other.keys() == first.keys()
            assert all(torch.equal(other[name], tensor) for name, tensor in first.items())


async def test_a_kohya_file_and_the_diffusers_file_give_the_same_image(
    model: Pipeline, model_directory: Path, files: Files, tmp_path: Path
) -> None:
    cases = {"kohya": Case(Kind.DORA), "diffusers": Case(Kind.DORA, Naming.DIFFUSERS)}
    addons = {}
    for seed, (name, case) in enumerate(cases.items()):
        files.get(case)
        addon = store_lora(tmp_path, name, model, seed)
        copyfile(files.canonical[case_key(case)].file, addon.file)
        record = {addon.file.name: record_file(addon.file)}
        manifest = dataclasses.replace(addon.manifest, files=record)
        addons[name] = dataclasses.replace(addon, manifest=manifest)
    engine = Engine.load(model_directory, Settings(device="cpu"), addons=Registry(addons, {}, {}))
    try:
        images = [
            (await engine.generate(request(loras=loras))).pixels.astype(int)
            for loras in ([{"name": "kohya"}], [{"name": "diffusers"}], [])
        ]
    finally:
        engine.close()
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 8
