// Changes of a prompt's text by a chip: an embedding's or a LoRA's weight, or its removal. No DOM.

import { unitsOf } from "./marks.js";

// The place of a name in a prompt with the brackets of its own weight, in units: {start, end, weight}.
export function weighted(text, { start, end }) {
  const units = unitsOf(text);
  const [first, last] = [units[start], units[end]];
  const behind = /^\s*:\s*(-?[\d.]+)\s*\)/.exec(text.slice(last));
  const isOwn = behind && text[first - 1] === "(" && text[first - 2] !== "\\";
  if (!isOwn) return { start: first, end: last, weight: 1 };
  return { start: first - 1, end: last + behind[0].length, weight: Number(behind[1]) };
}

export function withWeight(text, mention, weight) {
  const { start, end } = weighted(text, mention);
  const name = text.slice(unitsOf(text)[mention.start], unitsOf(text)[mention.end]);
  const own = weight === 1 ? name : `(${name}:${weight})`;
  return text.slice(0, start) + own + text.slice(end);
}

export function withTagWeight(text, tag, weight) {
  const units = unitsOf(text);
  return `${text.slice(0, units[tag.start])}<lora:${tag.name}:${weight}>${text.slice(units[tag.end])}`;
}

// The text without a mention or a tag, and without the comma or blank that it leaves behind.
export function without(text, place, isTag) {
  const units = unitsOf(text);
  const whole = isTag
    ? { start: units[place.start], end: units[place.end] }
    : weighted(text, place);
  const before = text.slice(0, whole.start);
  const behind = text.slice(whole.end);
  if (/^\s*,\s*/.test(behind) && /(^|,)\s*$/.test(before)) {
    return before + behind.replace(/^\s*,\s*/, "");
  }
  return before.replace(/,?\s*$/, "") + behind;
}

export function withWords(text, words) {
  const trimmed = text.trimEnd();
  if (!trimmed) return words;
  return `${trimmed}${trimmed.endsWith(",") ? "" : ","} ${words}`;
}
