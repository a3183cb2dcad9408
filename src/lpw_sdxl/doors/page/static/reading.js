// How the server reads a prompt, in words and numbers below it: counts, chunks, weights, steps.

import { el, plural } from "./dom.js";
import { scheduleView } from "./schedule_view.js";

const FULL = 75;
const MOST_WEIGHTS = 40;

export function countLine(read) {
  const counts = [...new Set(read.token_counts)].join(" and ");
  const many = read.texts.length > 1 ? `, ${read.texts.length} texts` : "";
  return `${counts} ${counts === "1" ? "token" : "tokens"} in ${plural(read.windows.length, "chunk")}${many}`;
}

export function warningItems(read) {
  return read.warnings.map((text) => {
    const stops = text.startsWith("no image is made of it");
    return el("li", { class: stops ? "stops" : "", text });
  });
}

export function readingOf(read, stages, chosen, choose) {
  const shown = read.texts[chosen ?? 0].explanation;
  return [
    scheduleView(stages, read.texts, chosen, choose),
    el(
      "ol",
      { class: "chunks", "aria-label": "Chunks of at most 75 tokens" },
      ...shown.windows.map(chunk),
    ),
    weightsOf(read, chosen),
  ].filter(Boolean);
}

function chunk({ token_count: count, text, is_pooled: isPooled }, index) {
  const fill = el("span", { class: "chunk-fill" });
  fill.style.inlineSize = `${Math.min(100, (count / FULL) * 100)}%`;
  return el(
    "li",
    { class: "chunk" },
    el("span", { class: "chunk-bar", "aria-hidden": "true" }, fill),
    el("span", { class: "chunk-count", text: `${index + 1}: ${count} of ${FULL}` }),
    isPooled ? el("span", { class: "hint", text: "gives the pooled vector" }) : null,
    el("span", { class: "chunk-text", text }),
  );
}

function weightsOf(read, chosen) {
  const texts = chosen === null ? read.texts : [read.texts[chosen]];
  const seen = new Map();
  for (const { explanation } of texts) {
    for (const span of explanation.spans) {
      if (span.weight !== 1) seen.set(`${span.start} ${span.weight}`, span);
    }
  }
  const spans = [...seen.values()].sort((a, b) => a.start - b.start);
  if (!spans.length) return null;
  const items = spans
    .slice(0, MOST_WEIGHTS)
    .map((span) =>
      el(
        "li",
        { class: span.weight > 1 ? "stronger" : "weaker" },
        el("span", { text: span.text.trim() || "(blank)" }),
        " ",
        el("b", { text: String(Number(span.weight.toFixed(3))) }),
      ),
    );
  const more = spans.length - items.length;
  return el(
    "ul",
    { class: "weights", "aria-label": "Weights" },
    ...items,
    more ? el("li", { class: "hint", text: `and ${more} more` }) : null,
  );
}
