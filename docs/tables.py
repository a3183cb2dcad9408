"""Write the tables of docs/operations.md from the code: `make docs`. A test compares them."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings

from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.settings import ENVIRONMENT_PREFIX, ImportSettings, Settings

PAGE = Path(__file__).with_name("operations.md")


def with_tables(page: str) -> str:
    """Replace what stands between a table's two comments."""
    for name, table in (("settings", settings_table()), ("metrics", metrics_table())):
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def settings_table() -> str:
    """Write each setting's variable, default and meaning."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for settings in (Settings, ImportSettings):
        meanings = _meanings(settings)
        for name, field in settings.model_fields.items():
            alias = field.validation_alias
            variable = alias if isinstance(alias, str) else f"{ENVIRONMENT_PREFIX}{name.upper()}"
            default = "in the user's cache" if name == "downloads" else _shown(field.default)
            rows.append(f"| `{variable}` | {default} | {meanings[name]} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """Write each metric's name, kind, labels and meaning."""
    registry = CollectorRegistry()
    EngineMetrics(registry)
    rows = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for metric in sorted(registry.collect(), key=lambda one: one.name):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {metric.type} | {shown} | {metric.documentation} |")
    return "\n".join(rows)


def _meanings(settings: type[BaseSettings]) -> dict[str, str]:
    """Read what stands under each setting of a class, and of the classes that it extends."""
    classes = [one for one in settings.__mro__ if one.__module__ == settings.__module__]
    return {
        field.target.id: " ".join(meaning.value.value.split())
        for one in classes
        for definition in ast.parse(inspect.getsource(one)).body
        if isinstance(definition, ast.ClassDef)
        for field, meaning in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(meaning, ast.Expr) and isinstance(meaning.value, ast.Constant)
        if isinstance(meaning.value.value, str)
    }


def _shown(default: object) -> str:
    if default in (None, "") or str(default) == "":
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
