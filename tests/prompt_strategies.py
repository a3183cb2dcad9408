"""What the prompt tests generate: text of the pieces that mean something, and trees."""

from hypothesis import strategies as st

from lpw_sdxl.prompt import Break, LoraTag, Prompt, Span

PIECES = [
    "(", ")", "[", "]", "()", ")(", "\\", "\\(", "\\)", "\\\\", "\\:", ":", "<", ">", "1", ".",
    "-", "+", ":1.3)", ":0.7)", ": 0.7 )", ":1.0)", ":-0)", ":1..2)", "(a:", " ", "\n", "\t",
    "BREAK", " BREAK ", "BREA", "K", "break", "<lora:", "lora:", "<lora:x:1>", "<lora:a b:-.5>",
    "<lora:x>", "<lyco: x :1:.5>", "<lora:x:te=2:unet=1>", "lyco:", "te=", "unet=", "=",
    "<Lora:x:1>", "<lora:x:dyn=8>", "<hypernet:", "1e1", "word",
    "b", "猫", "🐈", "\ud83d", "\x00", "\x85", "\u2028", "٣", ",",
]  # fmt: skip


def texts_of(pieces):
    """Text of these pieces and nothing else."""
    return st.lists(pieces, max_size=60).map("".join)


def prompts_of(pieces):
    """Text of these pieces and of any characters."""
    return texts_of(st.sampled_from(pieces) | st.text(max_size=3))


prompt_texts = prompts_of(PIECES)

_texts = prompts_of([piece for piece in PIECES if piece != "\ud83d"]).filter(
    lambda text: text and not any("\ud800" <= char <= "\udfff" for char in text)
)
_weights = st.sampled_from([0.0, -0.0, 1.0, 1.1, 2.0, 5e-324, 1e22, 1e-7]) | st.floats(
    allow_nan=False, allow_infinity=False
)
_names = st.text("abc ()[]\\.猫_=\u3000", min_size=1, max_size=128).filter(
    lambda name: name == name.strip()
)

spans = st.builds(Span, _texts, _weights)
lora_tags = st.builds(LoraTag, _names, _weights, _weights)


def trees(*nodes):
    """Trees made by hand: no text, no positions."""
    return st.lists(st.one_of(nodes), max_size=8).map(lambda some: Prompt("", tuple(some)))


breaks = st.builds(Break)
