"""Captions of scenes, in many orders and styles, as the tokens that CLIP's text encoders read.

A caption states some attributes of a scene. It may be one word, a sentence or a list of tags, and
may stand between several hundred tokens that mean nothing. Words outside this file's few are alike
to the demo model: their token embeddings are zero. Silence has a meaning too: see `complete`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from demo.scene import COLOURS, PLACES, SHAPES, SIZES, Scene

BREAK = "BREAK"
FILLER = "…"
"""Placeholder among a caption's words for one token without meaning."""
WORDS = {
    *COLOURS,
    *SHAPES,
    *("small", "little", "large", "big"),
    *("left", "right", "top", "bottom", "center", "centre", "middle", "side", "upper", "lower"),
    *("a", "an", "the", "one", "it", "is", "and", "on", "of", "in", "at", "to", "with", "behind"),
    *("background", "backdrop", "shape", "picture", "image", "part", "simple", "flat"),
    *("coloured", "colored", "color", "colour"),
    *",.:;!-",
}
"""Words that the text encoders learn; each is tokenised as in running text."""
GLUE = ["a", "the", "of", "with", "in", "and", ",", ",", ",", ","]
WINDOW_TOKENS = 75
MAX_WINDOWS = 5

_SYNONYMS = {
    "small": ("small", "small", "little"),
    "large": ("large", "large", "big"),
    "center": ("center", "centre", "middle"),
}
MEANINGS: list[tuple[str, str, tuple[str, ...]]] = [
    (name, value, tuple({value, *_SYNONYMS.get(value, ())}))
    for name, values in {
        "colour": COLOURS, "background": COLOURS, "shape": SHAPES, "size": SIZES, "place": PLACES,
    }.items()
    for value in values
]  # fmt: skip
"""Every value of every attribute, with the words that state it."""
Attributes = dict[str, str]
"""The attributes that a caption states, by the names of Scene's fields."""
IMPLIED: Attributes = {"size": "large", "place": "center"}
"""Size and place that a caption implies if it states a shape and its colour, but not these."""


@dataclass(frozen=True)
class Caption:
    """A caption's words and the attributes that they state.

    Attributes:
        words: of WORDS, FILLER and BREAK.
        stated: the attributes that they state.
    """

    words: tuple[str, ...]
    stated: Attributes


def describe(scene: Scene, chance: random.Random) -> Caption:
    """Write a caption of a scene: all of its attributes, some or none."""
    stated = _choose(scene._asdict(), chance)
    if not stated:
        return Caption(_filler(chance.choice((0, 0, 0, chance.randrange(1, 200))), chance), {})
    words = _sentence(stated, chance) if chance.random() < 0.5 else _tags(stated, chance)
    surrounded = _surround(words, chance)
    while _count_windows(surrounded) > MAX_WINDOWS:
        surrounded = _surround(words, chance)
    return Caption(tuple(surrounded), stated)


def complete(scene: Scene, stated: Attributes) -> Scene:
    """Return a scene with the attributes that a caption states and those that it implies."""
    usual = IMPLIED if {"colour", "shape"} <= stated.keys() else {}
    return scene._replace(**usual | stated)


def _count_windows(words: list[str]) -> int:
    """Count the windows that words of one token each fill."""
    segments = [[*segment] for is_break, segment in groupby(words, BREAK.__eq__) if not is_break]
    return sum(-(-len(segment) // WINDOW_TOKENS) for segment in segments)


def _choose(everything: Attributes, chance: random.Random) -> Attributes:
    """Choose all attributes, all but size, place or both, some, one or none."""
    kind = chance.random()
    if kind < 0.55:
        return everything
    if kind < 0.65:
        return {}
    if kind < 0.77:
        left_open = chance.choice((["size"], ["place"], ["size", "place"], ["size", "place"]))
        return {name: value for name, value in everything.items() if name not in left_open}
    count = 1 if kind < 0.84 else chance.randrange(2, 5)
    kept = set(chance.sample(sorted(everything), count))
    return {name: value for name, value in everything.items() if name in kept}


def _sentence(stated: Attributes, chance: random.Random) -> list[str]:
    """Write a sentence such as "a small red circle on a blue background, left"."""
    noun = _noun(stated, chance)
    backdrop = _backdrop(stated, chance)
    place = _place(stated, chance)
    forms: list[Callable[[], Iterable[list[str]]]] = [
        lambda: (noun, _on(backdrop, chance), _comma(place)),
        lambda: (noun, place, _on(backdrop, chance)),
        lambda: (_on(backdrop, chance), _comma(noun), place),
        lambda: (backdrop, ["with"] if backdrop and noun else [], noun, place),
        lambda: (place, _comma(noun), _on(backdrop, chance)),
        lambda: (_predicates(stated, chance), _comma(place)),
    ]
    parts = chance.choice(forms)()
    words = [word for part in parts for word in part]
    if words[0] in (",", "and"):
        words = words[1:]
    return [*words, *(["."] if chance.random() < 0.2 else [])]


def _noun(stated: Attributes, chance: random.Random) -> list[str]:
    size, colour, shape = (stated.get(name) for name in ("size", "colour", "shape"))
    adjectives = [_synonym(size, chance)] if size else []
    adjectives += [colour] if colour else []
    if chance.random() < 0.15:
        adjectives.reverse()
    if not adjectives and not shape:
        return []
    article = [chance.choice(("a", "a", "the", "one"))] if chance.random() < 0.8 else []
    if colour and chance.random() < 0.1:
        adjectives.insert(adjectives.index(colour) + 1, chance.choice(("coloured", "colored")))
    return [*article, *adjectives, shape or "shape"]


def _backdrop(stated: Attributes, chance: random.Random) -> list[str]:
    if "background" not in stated:
        return []
    noun = "background" if chance.random() < 0.85 else "backdrop"
    article = [chance.choice(("a", "a", "the", "an"))] if chance.random() < 0.8 else []
    plain = [chance.choice(("simple", "flat"))] if chance.random() < 0.1 else []
    return [*article, *plain, stated["background"], noun]


def _place(stated: Attributes, chance: random.Random) -> list[str]:
    if "place" not in stated:
        return []
    word = _synonym(stated["place"], chance)
    forms = [[word], ["on", "the", word], ["at", "the", word], ["in", "the", word]]
    if word in ("left", "right"):
        forms += [["on", "the", word, "side"], ["to", "the", word]]
    if word in ("top", "bottom"):
        forms += [["at", "the", word, "of", "the", "picture"]]
    return chance.choice(forms)


def _predicates(stated: Attributes, chance: random.Random) -> list[str]:
    """Write "the circle is red and the background is blue"."""
    size, colour, shape = (stated.get(name) for name in ("size", "colour", "shape"))
    subject = ["the", shape or "shape"]
    values = [_synonym(size, chance)] if size else []
    values += [colour] if colour else []
    chance.shuffle(values)
    noun = [*subject, "is", " and ".join(values)] if values else subject if shape else []
    noun = [word for part in noun for word in part.split()]
    backdrop = ["the", "background", "is", stated["background"]] if "background" in stated else []
    if not noun or not backdrop:
        return noun or backdrop
    halves = [noun, backdrop]
    chance.shuffle(halves)
    return [*halves[0], chance.choice(("and", ",", ".")), *halves[1]]


def _tags(stated: Attributes, chance: random.Random) -> list[str]:
    """Write tags such as "small, red circle, left, blue background", in any order."""
    tags: list[list[str]] = []
    noun = [value for name in ("colour", "shape") if (value := stated.get(name))]
    if "size" in stated:
        size = _synonym(stated["size"], chance)
        if noun and chance.random() < 0.4:
            noun.insert(0, size)
        else:
            tags.append([size])
    if "shape" in stated and "colour" in stated and chance.random() < 0.1:
        tags.append([stated["shape"]])
        noun[-1] = chance.choice(("shape", stated["shape"]))
    tags += [noun] if noun else []
    if "background" in stated:
        tags.append([stated["background"], "background"])
    if "place" in stated:
        tags.append(_place(stated, chance) if chance.random() < 0.4 else [stated["place"]])
    chance.shuffle(tags)
    between = [BREAK] if len(tags) > 1 and chance.random() < 0.12 else [","]
    words: list[str] = []
    for tag in tags:
        words += [*(between if words else []), *tag]
        if chance.random() < 0.15:
            words += [",", *_filler(chance.randrange(1, 8), chance)]
    return words


def _surround(words: list[str], chance: random.Random) -> list[str]:
    """Put words that mean nothing before and after a caption, often none, sometimes hundreds."""
    before, after = (
        chance.choices(
            (0, chance.randrange(1, 20), chance.randrange(20, 120), chance.randrange(120, 260)),
            weights,
        )[0]
        for weights in ((60, 12, 12, 16), (62, 16, 16, 6))
    )
    comma = [","] if chance.random() < 0.7 else []
    return [
        *_filler(before, chance), *(comma if before else []),
        *words,
        *(comma if after else []), *_filler(after, chance),
    ]  # fmt: skip


def _filler(count: int, chance: random.Random) -> tuple[str, ...]:
    share = chance.random() * 0.5
    return tuple(chance.choice(GLUE) if chance.random() < share else FILLER for _ in range(count))


def _synonym(word: str, chance: random.Random) -> str:
    return chance.choice(_SYNONYMS.get(word, (word,)))


def _on(backdrop: list[str], chance: random.Random) -> list[str]:
    return [chance.choice(("on", "on", "in", "with")), *backdrop] if backdrop else []


def _comma(words: list[str]) -> list[str]:
    return [",", *words] if words else []
