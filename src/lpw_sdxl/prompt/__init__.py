"""Prompt text to a tree of weighted spans, breaks and LoRA tags; it imports without torch."""

from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.lora_tag import write_tag
from lpw_sdxl.prompt.parser import parse
from lpw_sdxl.prompt.syntax import Break, LoraTag, Node, Prompt, RefusedTag, Span
from lpw_sdxl.prompt.warning import PromptWarning, WarningKind

__all__ = [
    "DEFAULT_LIMITS",
    "Break",
    "LoraTag",
    "Node",
    "Prompt",
    "PromptLimits",
    "PromptStyle",
    "PromptWarning",
    "RefusedTag",
    "Span",
    "WarningKind",
    "parse",
    "write_tag",
]
