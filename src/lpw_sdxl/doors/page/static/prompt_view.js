// The prompts as the server reads them, while one types: marks under the text at their places, and
// the reading below. /inspect_prompt is asked a moment after the last change.

import { post, Refusal } from "./api.js";
import { byId, el } from "./dom.js";
import { valueOf } from "./form.js";
import { marksOf, moved, piecesOf } from "./marks.js";
import { countLine, readingOf, warningItems } from "./reading.js";

const PAUSE_MS = 250;
const SIDES = ["prompt", "negative_prompt"];
const views = new Map(); // of each side: {text, marks, chosen, read, stages}
let timer = null;
let asking = null;
let asked = "";
let showMentions = () => {};

export function buildPromptViews(onMentions) {
  showMentions = onMentions;
  for (const side of SIDES) {
    views.set(side, { text: "", marks: [], chosen: null, read: null, stages: null });
    const area = byId(side);
    area.addEventListener("input", () => typed(side));
    area.addEventListener("scroll", () => follow(side));
    new ResizeObserver(() => follow(side)).observe(area);
  }
}

// Asks for a reading, unless nothing has changed that it depends on.
export function inspectSoon() {
  if (JSON.stringify(bodyOf()) === asked) return;
  byId("form").dataset.reading = "waits"; // until what is shown is what is written
  clearTimeout(timer);
  timer = setTimeout(inspect, PAUSE_MS);
}

function typed(side) {
  const view = views.get(side);
  const text = byId(side).value;
  view.marks = moved(view.marks, view.text, text);
  view.text = text;
  draw(side);
}

async function inspect() {
  const body = bodyOf();
  asked = JSON.stringify(body);
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const answer = await post("inspect_prompt", body, { signal: mine.signal });
    if (mine.signal.aborted) return;
    show(answer);
    if (JSON.stringify(bodyOf()) === asked) byId("form").dataset.reading = "done";
  } catch (error) {
    if (mine.signal.aborted) return;
    asked = "";
    if (error instanceof Refusal && error.status === 429) {
      timer = setTimeout(inspect, (error.retryAfter ?? 1) * 1000);
    } else if (error instanceof Refusal && SIDES.includes(error.field)) {
      refuse(error);
    }
  }
}

function bodyOf() {
  const body = { prompt: byId("prompt").value, negative_prompt: byId("negative_prompt").value };
  for (const name of ["prompt_style", "sampler_implementation"]) body[name] = valueOf(name);
  const [steps, scheduler] = [valueOf("num_inference_steps"), valueOf("scheduler")];
  if (Number.isInteger(steps)) body.num_inference_steps = steps;
  if (scheduler) body.scheduler = scheduler;
  return body;
}

function show(answer) {
  for (const side of SIDES) {
    const view = views.get(side);
    view.read = answer[side];
    view.stages = answer.schedule[side];
    if (view.chosen >= view.read.texts.length) view.chosen = null;
    byId(`${side}-warnings`).replaceChildren(...warningItems(view.read));
    const error = byId(`${side}-error`);
    if (error.dataset.of === "inspection") error.hidden = true;
    showMentions(side, view.read);
    display(side);
  }
}

function display(side) {
  const view = views.get(side);
  view.text = byId(side).value;
  view.marks = marksOf(view.text, view.read, view.chosen);
  byId(`${side}-count`).textContent = view.text ? countLine(view.read) : "";
  const choose = (number) => {
    view.chosen = number;
    display(side);
    byId(`${side}-read`).querySelectorAll(".text-row")[number ?? 0]?.focus();
  };
  byId(`${side}-reading`).hidden = !view.text;
  byId(`${side}-read`).replaceChildren(...readingOf(view.read, view.stages, view.chosen, choose));
  draw(side);
}

// An error of the prompt itself, such as its length, without moving the focus.
function refuse(error) {
  const place = byId(`${error.field}-error`);
  place.textContent = error.message;
  place.dataset.of = "inspection";
  place.hidden = false;
}

function draw(side) {
  const view = views.get(side);
  const pieces = piecesOf(view.text, view.marks).map(({ text, marks, border }) => {
    if (border) return el("span", { class: "border", "data-chunk": String(border.number) });
    return marks.length ? marked(text, marks) : document.createTextNode(text);
  });
  // A line's end at the end of a text is shown by a textarea, and by a block only before more.
  byId(`${side}-marks`).replaceChildren(...pieces, "\u200b");
  follow(side);
}

function marked(text, marks) {
  const node = el("mark", { class: [...new Set(marks.map((mark) => mark.kind))].join(" "), text });
  const weight = marks.find((mark) => mark.kind === "weight")?.weight;
  if (weight !== undefined) {
    node.classList.add(weight > 1 ? "stronger" : "weaker");
    node.dataset.weight = String(weight);
    const strength = weight > 0 ? Math.abs(Math.log2(weight)) : 1;
    node.style.setProperty("--strength", String(Math.min(1, 0.25 + strength)));
  }
  return node;
}

function follow(side) {
  const [area, marks] = [byId(side), byId(`${side}-marks`)];
  if (!CSS.supports("field-sizing", "content")) {
    area.style.blockSize = "auto";
    area.style.blockSize = `${area.scrollHeight + 2}px`;
  }
  marks.style.inlineSize = `${area.clientWidth}px`;
  marks.scrollTop = area.scrollTop;
}
