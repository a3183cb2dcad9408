"""Prompt text to a tree of weighted spans, breaks and LoRA tags; it imports without torch."""

from lpw_sdxl.prompt.excerpt import Excerpt, Run
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.lora_tag import write_tag
from lpw_sdxl.prompt.parser import parse
from lpw_sdxl.prompt.prompt_schedule import (
    PromptSchedule,
    SchedulePart,
    Stage,
    StepSpan,
    Variant,
    WeightedVariant,
)
from lpw_sdxl.prompt.schedule_parser import PromptField, parse_schedule
from lpw_sdxl.prompt.steps import Steps
from lpw_sdxl.prompt.syntax import Break, LoraTag, Node, Prompt, RefusedTag, Span
from lpw_sdxl.prompt.warning import PromptWarning, WarningKind

__all__ = [
    "DEFAULT_LIMITS",
    "Break",
    "Excerpt",
    "LoraTag",
    "Node",
    "Prompt",
    "PromptField",
    "PromptLimits",
    "PromptSchedule",
    "PromptStyle",
    "PromptWarning",
    "RefusedTag",
    "Run",
    "SchedulePart",
    "Span",
    "Stage",
    "StepSpan",
    "Steps",
    "Variant",
    "WarningKind",
    "WeightedVariant",
    "parse",
    "parse_schedule",
    "write_tag",
]
