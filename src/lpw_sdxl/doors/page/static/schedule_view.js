// A prompt over the steps of an image: a bar of its texts, and a list of which step has which.

import { el } from "./dom.js";

// Builds the view, or nothing for one text in all steps. `choose` is called with a text's number,
// or null for all of them.
export function scheduleView(stages, texts, chosen, choose) {
  const changes =
    stages.length > 1 || stages[0].parts.length > 1 || stages[0].parts[0].weight !== 1;
  if (!changes) return null;
  const numbers = new Map(texts.map((one, index) => [one.text, index]));
  const steps = stages.at(-1).until_step;
  let last = 0;
  const segments = stages.map((stage) => {
    const from = last + 1;
    last = stage.until_step;
    const names = stage.parts.map((part) => numbers.get(part.text) ?? 0);
    const segment = el(
      "span",
      { class: "segment" },
      ...names.map((one) => el("span", { class: `text-${one % 8}` })),
    );
    segment.style.flexGrow = String(last - from + 1);
    segment.title = from === last ? `step ${from}` : `steps ${from} to ${last}`;
    return segment;
  });
  const rows = texts.map((one, index) => textRow(one, index, stages, chosen, choose));
  return el(
    "div",
    { class: "schedule" },
    el("p", { class: "hint", text: `${texts.length} texts over ${steps} steps` }),
    el("div", { class: "timeline", "aria-hidden": "true" }, ...segments),
    el("ol", {}, ...rows),
  );
}

function textRow({ text }, index, stages, chosen, choose) {
  const weights = new Set();
  for (const stage of stages) {
    for (const part of stage.parts) if (part.text === text) weights.add(part.weight);
  }
  const weight = [...weights].filter((one) => one !== 1).join(", ");
  const isChosen = chosen === index;
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        class: "text-row",
        "aria-pressed": String(isChosen),
        title: "Shows this text's weights and chunks in the prompt",
        on: { click: () => choose(isChosen ? null : index) },
      },
      el("span", { class: `dot text-${index % 8}`, "aria-hidden": "true" }),
      el("span", {
        class: "text-steps",
        text: rangesOf(text, stages) + (weight ? `, times ${weight}` : ""),
      }),
      el("span", { class: "text-words", text: text.trim() || "(nothing)" }),
    ),
  );
}

// The steps of a text in words, such as "1 to 4, 9".
function rangesOf(text, stages) {
  const ranges = [];
  let last = 0;
  for (const stage of stages) {
    const from = last + 1;
    last = stage.until_step;
    if (!stage.parts.some((part) => part.text === text)) continue;
    if (ranges.length && ranges.at(-1)[1] === from - 1) ranges.at(-1)[1] = last;
    else ranges.push([from, last]);
  }
  const words = ranges
    .slice(0, 8)
    .map(([from, to]) => (from === to ? `${from}` : `${from} to ${to}`));
  return words.join(", ") + (ranges.length > 8 ? " …" : "");
}
