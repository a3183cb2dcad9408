"""Write the tables of the pages in this folder from the code: `make docs`. A test compares them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from lpw_sdxl.api.openapi_errors import answered_codes
from lpw_sdxl.doors.runpod.settings import StartSettings, WorkerSettings
from lpw_sdxl.download.source import source_modules
from lpw_sdxl.engine.description import HardwareDescription
from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.engine.offload import OffloadRule
from lpw_sdxl.errors import STATUS_ANSWERS, LpwSdxlError
from lpw_sdxl.importing.known_families import FAMILIES, V_PREDICTION
from lpw_sdxl.model_defaults import write_assignment
from lpw_sdxl.prompt import Break, LoraTag, PromptStyle, Span, Steps, parse_schedule
from lpw_sdxl.prompt.grammar import GRAMMARS
from lpw_sdxl.sampler_table import SAMPLERS, SamplerNoise
from lpw_sdxl.scheduler_table import SCHEDULERS
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import EnvironmentSettings, ImportSettings, Settings, variable_of
from lpw_sdxl.upscale_request import UpscaleRequest

FOLDER = Path(__file__).parent
PLACE = re.compile(
    r"(<!-- (?P<name>\w+): written by make docs -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL
)
LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "multipleOf": "in steps of",
    "maxItems": "of at most",
}
"""Words for what a JSON schema says of a number or a list."""
SHOWN_STEPS = 10
WEIGHTED = (
    "a (red) fox",
    "a ((red)) fox",
    "a (red:1.3) fox",
    "a (red : 1.3) fox",
    "(a (red:2) fox:1.5)",
    "a [red] fox",
    r"a \(red\) fox",
    "a BREAK b",
    "(a BREAK b:1.5)",
    "[a BREAK b]",
    "(a BREAK b:1)",
    "a <lora:ink:0.8> fox",
    "a [red:blue:0.4] fox",
    "a [red|blue] fox",
    "a fox AND snow :0.7",
    "a fox # red",
)
"""Prompts that show what each style makes of brackets, BREAK, tags and other syntax."""
CHANGING = (
    "a [red:blue:0.4] fox",
    "a [red:blue:4] fox",
    "a [blue:0.4] fox",
    "a [red::0.4] fox",
    "a [red:blue:1.0] fox",
    "a [red:blue:1] fox",
    "[a (red:1.2) fox:a cat:0.5]",
    "a ([red:blue:0.4] fox:1.2)",
    "a [red:[blue:gold:8]:4] fox",
    "a [red|blue] fox",
    "a [red|] fox",
    "a [red|blue|[pink:gold:5]] fox",
    "a fox AND snow :0.7",
    "a fox AND [rain|snow] :-0.5",
    "a fox :0.7",
    "a fox # red",
    "a [red:blue] fox",
    "a [red|blue] fox | snow",
    r"a \[red:blue:4\] fox",
)
"""Prompts that show what a text becomes by step."""
NOISES: Mapping[SamplerNoise, str] = {
    SamplerNoise.NONE: "none",
    SamplerNoise.DRAWS: "drawn anew",
    SamplerNoise.BROWNIAN: "a Brownian path",
}
RUNPOD_SETTINGS: tuple[type[EnvironmentSettings], ...] = (StartSettings, WorkerSettings)
"""Those of the image for RunPod alone."""
SHOWN_CHOICES = 5  # more of them are a table of their own


def with_tables(page: str) -> str:
    """Replace what stands between each table's two comments."""
    return PLACE.sub(lambda place: f"{place[1]}{TABLES[place['name']]()}\n{place[3]}", page)


def settings_classes() -> list[type[EnvironmentSettings]]:
    """List the classes of all settings: the service's, the import's, and each source's own."""
    of_sources = [module.SETTINGS for module in source_modules()]
    return list(dict.fromkeys([Settings, ImportSettings, *of_sources, *RUNPOD_SETTINGS]))


def settings_table(*, of_runpod: bool = False) -> str:
    """Write each setting's variable, default and meaning."""
    rows = []
    for settings in settings_classes():
        if (settings in RUNPOD_SETTINGS) != of_runpod:
            continue
        for name, field in settings.model_fields.items():
            default = "in the user's cache" if name == "downloads" else _shown(field.default)
            meaning = " ".join((field.description or "").split())
            rows.append((f"`{variable_of(settings, name)}`", default, meaning))
    return _table(("variable", "default", "what it is"), rows)


def metrics_table() -> str:
    """Write each metric's name, kind, labels and meaning."""
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    hardware = HardwareDescription("cpu", "CPU", 0)  # any: only its labels' names are written
    metrics.set_device(hardware, OffloadRule.CPU, is_offloading=False)
    rows = []
    for metric in sorted(registry.collect(), key=lambda one: one.name):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        rows.append((f"`{name}`", metric.type, _codes(labels), metric.documentation))
    return _table(("metric", "kind", "labels", "what it is"), rows)


def fields_table(model: type[BaseModel] = GenerationRequest) -> str:
    """Write each field of a request: its default, what it takes, and its meaning."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    rows = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        rows.append(
            (
                f"`{name}`",
                "required" if field.is_required() else f"`{json.dumps(default)}`",
                _takes(schema["properties"][name], definitions),
                field.description or "",
            )
        )
    return _table(("field", "default", "takes", "what it is"), rows)


def schedulers_table() -> str:
    """Write each scheduler's class, UNet calls, most steps and schedule types."""
    rows = [
        (
            f"`{name}`",
            f"`{recipe.class_name}`",
            "two a step, one in the last" if recipe.is_second_order else "one a step",
            str(recipe.max_steps),
            _codes([*([] if recipe.follows_model else ["null"]), *recipe.schedules]),
        )
        for name, recipe in SCHEDULERS.items()
    ]
    columns = ("scheduler", "class of Diffusers", "UNet calls", "most steps", "`schedule_type`")
    return _table(columns, rows)


def samplers_table() -> str:
    """Write each sampler of k-diffusion's: `Automatic`, UNet calls, noise, measured error."""
    results = FOLDER.parent / "benchmarks" / "results" / "samplers.json"
    errors = json.loads(results.read_text(encoding="utf-8"))["largest_difference"]
    rows = [
        (
            f"`{name}`",
            "its own timesteps" if recipe.walks_timesteps else f"`{recipe.automatic}`",
            "two a step, one in the last" if recipe.is_second_order else "one a step",
            NOISES[recipe.noise],
            "none" if recipe.eta is None else f"{recipe.eta:g}",
            f"{errors[name]:.0e}" if name in errors else "unproven",
        )
        for name, recipe in SAMPLERS.items()
    ]
    columns = ("sampler", "`Automatic`", "UNet calls", "its noise", "`eta`", "difference")
    return _table(columns, rows)


def errors_table() -> str:
    """Write each error's status, code and meaning."""
    meanings = {(status, code): text for status, (code, text) in STATUS_ANSWERS.items()}
    for error in _errors(LpwSdxlError):
        if code := getattr(error, "code", None):
            summary = (inspect.getdoc(error) or "").partition("\n")[0]
            meanings[getattr(error, "status", 0), code] = summary
    rows = [
        (str(status), f"`{code}`", _sentence(meanings[status, code]))
        for status, codes in answered_codes().items()
        for code in codes
    ]
    return _table(("status", "code", "what it means"), rows)


def weights_table() -> str:
    """Write what each style makes of some prompts: texts with their weights, chunks and LoRAs."""
    columns: dict[int, list[PromptStyle]] = {}
    for style in PromptStyle:
        columns.setdefault(id(GRAMMARS[style]), []).append(style)
    alike = columns.values()
    rows = [(_code(one), *(_reading(one, styles[0]) for styles in alike)) for one in WEIGHTED]
    return _table(("prompt", *map(_codes, alike)), rows)


def steps_table() -> str:
    """Write what some prompts are in each step, in the styles whose prompts change."""
    rows = [(_code(prompt), _by_step(prompt)) for prompt in CHANGING]
    return _table(("prompt", f"its text in each of {SHOWN_STEPS} steps"), rows)


def families_table() -> str:
    """Write the families that an import knows, and the settings that it suggests."""
    rows = (
        (
            family.name,
            ", ".join(_code(write_assignment(*one)) for one in family.defaults.items()),
            family.source,
        )
        for family in (*FAMILIES, V_PREDICTION)
    )
    return _table(("family", "suggested", "by"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "runpod": partial(settings_table, of_runpod=True),
    "metrics": metrics_table,
    "fields": fields_table,
    "upscale": partial(fields_table, UpscaleRequest),
    "schedulers": schedulers_table,
    "samplers": samplers_table,
    "errors": errors_table,
    "weights": weights_table,
    "steps": steps_table,
    "families": families_table,
}
"""Each table by the name that its comments have."""


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _reading(prompt: str, style: PromptStyle) -> str:
    """Write the texts of a prompt, joined where their weights are equal."""
    schedule = parse_schedule(prompt, Steps(SHOWN_STEPS), style=style)
    if GRAMMARS[style].has_schedules and (len(schedule.variants) > 1 or len(schedule.parts) > 1):
        return "see the next table"
    nodes = [*schedule.variants[0].prompt.nodes, *schedule.tags]
    pieces: list[str] = []
    for node in dict.fromkeys(nodes):
        match node:
            case Break():
                pieces.append("a new chunk")
            case LoraTag(name, weight):
                pieces.append(f"the LoRA `{name}` at {weight:g}")
            case Span(text, weight):
                at = "" if weight == 1 else f" at {weight:.3g}"
                pieces.append(f"{_code(text)}{at}")
    return ", ".join(pieces)


def _by_step(prompt: str) -> str:
    """Write each text of a prompt with its steps, part by part."""
    parts = []
    for part in parse_schedule(prompt, Steps(SHOWN_STEPS), style=PromptStyle.A1111).parts:
        steps: dict[str, list[int]] = {}
        before = 0
        for span in part.spans:
            steps.setdefault(span.variant.text, []).extend(range(before + 1, span.until_step + 1))
            before = span.until_step
        weight = "" if part.weight == 1 else f"{part.weight:g} times "
        shown = ", ".join(
            _code(text) + ("" if len(steps) == 1 else f" in {_ranges(numbers)}")
            for text, numbers in steps.items()
        )
        parts.append(weight + shown)
    return "; beside it ".join(parts)


def _ranges(numbers: Sequence[int]) -> str:
    """Write numbers in rising order; those without a gap as a range."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _code(text: str) -> str:
    """Write a text as code in a cell; in quotes where blanks at its ends would be lost."""
    shown = text if text == text.strip() else f'"{text}"'
    return f"`{shown}`".replace("|", r"\|")


def _takes(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Describe what a field's JSON schema takes, beside null."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    names = [one["$ref"].rpartition("/")[2] for one in kinds if "$ref" in one]
    fields = [[*definitions[name].get("properties", ())] for name in names]
    if any(fields):
        return f"object of {_codes(chain(*fields))}"
    if names:
        return _choices([*dict.fromkeys(chain(*(definitions[name]["enum"] for name in names)))])
    (schema,) = kinds
    limits = [f"{text} {schema[limit]}" for limit, text in LIMITS.items() if limit in schema]
    return " ".join([schema["type"], *limits])


def _choices(values: Sequence[str]) -> str:
    return _codes(values) if len(values) <= SHOWN_CHOICES else "a name of the tables below"


def _shown(default: object) -> str:
    if default in (None, "") or str(default) == "":
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _errors(error: type[LpwSdxlError]) -> Iterator[type[LpwSdxlError]]:
    """Yield an error and all that are made from it, the more exact ones later."""
    yield error
    for kind in error.__subclasses__():
        yield from _errors(kind)


def _codes(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].removesuffix('.')}."


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.md")):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
