"""The rules of A1111's prompt schedules, carried out step by step and by another way than ours.

A recursive descent that tries each bracket as a construct and, where that fails, as a character. It
copies texts at each level, and knows neither places nor limits.
"""

import re

NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


class Unreadable(Exception):
    """A text that is plain as a whole."""


def expected_parts(text, count, before, *, has_parts):
    """Make of a prompt its parts: each the weight and a list of (last step, text)."""
    text = re.sub(r"<(?i:lora|lyco|hypernet):[^>]*>", "", without_comments(text))
    if not has_parts:
        return [(1.0, schedule(text, count, before))]
    pieces = re.split(r"\bAND\b", text)
    if len(pieces) == 1 and ends_open(text):
        return [(1.0, schedule(text, count, before))]
    parts = []
    for piece in pieces:
        words, colon, number = piece.rstrip().rpartition(":")
        if colon and re.fullmatch(r"\s*[+-]?(\d+\.?|\d*\.\d+)", number):
            parts.append((float(number), schedule(words.rstrip(), count, before)))
        else:
            parts.append((1.0, schedule(piece.rstrip(), count, before)))
    return parts


def without_comments(text):
    lines = text.split("\n")
    kept = [line.split("#")[0] for line in lines[:-1] if not line.startswith("#")]
    return "".join(f"{line}\n" for line in kept) + lines[-1].split("#")[0]


def ends_open(text):
    text, balance = re.sub(r"\\[\\()\[\]]", "", text), {"(": 0, "[": 0}
    for char in text:
        if char in balance:
            balance[char] += 1
        elif char in ")]":
            opening = "(["[")]".index(char)]
            balance[opening] = max(0, balance[opening] - 1)
    return any(balance.values())


def schedule(text, count, before):
    try:
        elements = read_start(text)
    except Unreadable:
        return [(count, text)]
    last_steps = {count}
    for element in walk(elements):
        if isinstance(element, Turns):
            last_steps |= set(range(1, count + 1))
        elif isinstance(element, Edit):
            last_steps.add(max(0, element.end(count, before)))
    return [
        (step, "".join(one if isinstance(one, str) else one.at(step, count, before)
                       for one in elements))
        for step in sorted(last_steps - {0})
    ]  # fmt: skip


def walk(elements):
    for element in elements:
        yield element
        if not isinstance(element, str):
            for inside in element.texts:
                yield from walk(inside)


def at(elements, step, count, before):
    return "".join(one if isinstance(one, str) else one.at(step, count, before) for one in elements)


class Turns:
    def __init__(self, texts):
        self.texts = texts

    def at(self, step, count, before):
        return at(self.texts[(step - 1) % len(self.texts)], step, count, before)


class Edit:
    def __init__(self, texts, when):
        self.texts, self.when = texts, when

    def end(self, count, before):
        when = float(self.when)
        if "." in self.when:
            when = (when - (before is not None)) * count
        else:
            when -= before or 0
        return count if when >= count else int(max(when, -1.0))

    def at(self, step, count, before):
        return at(self.texts[step > self.end(count, before)], step, count, before)


def read_start(text):
    elements, place, tried = [], 0, {}
    while place < len(text):
        try:
            element, place = read_element(text, place, tried)
        except Unreadable:
            if text[place] not in "[]():":
                raise
            element, place = [text[place]], place + 1
        elements += element
    return elements


def read_element(text, place, tried):
    """One character, an escape, or a whole bracket, as a list of elements, with its end."""
    char = text[place]
    if char == "\\":
        if text[place + 1 : place + 2] in {"", "\n"}:
            raise Unreadable
        return [text[place : place + 2]], place + 2
    if char not in "[]():|":
        return [char], place + 1
    if char not in "([":
        raise Unreadable
    if place not in tried:
        try:
            tried[place] = read_bracket(text, place, tried)
        except Unreadable:
            tried[place] = None
    if tried[place] is None:
        raise Unreadable
    return tried[place]


def read_bracket(text, place, tried):
    opening, texts, separators, starts, position = text[place], [[]], [], [place + 1], place + 1
    while text[position : position + 1] != {"(": ")", "[": "]"}[opening]:
        if position >= len(text):
            raise Unreadable
        if text[position] in ":|":
            separators.append(text[position])
            texts.append([])
            position += 1
            starts.append(position)
        else:
            element, position = read_element(text, position, tried)
            texts[-1] += element
    end = position + 1
    shape = "".join(separators)
    if opening == "(" and shape in {"", ":"}:
        second = [":", *texts[1]] if shape else []
        return ["(", *texts[0], *second, ")"], end
    if opening == "[" and shape == "":
        return ["[", *texts[0], "]"], end
    if opening == "[" and set(shape) == {"|"}:
        return [Turns(texts)], end
    number = NUMBER.fullmatch(text[starts[-1] : position])
    if opening == "[" and shape in {":", "::"} and number:
        return [Edit([[], *texts[:-1]][-2:], number[1])], end
    raise Unreadable
