// The server at a glance: what it serves, on what, how much waits, and how fast it was of late. It
// notices when the server is gone and when it is back.

import { post, Refusal, Unreachable } from "./api.js";
import { bytes, byId, el, plural, seconds } from "./dom.js";
import { recentSeconds } from "./draw.js";
import { notice, withdraw } from "./notices.js";

const EVERY_MS = 5000;
const WHILE_GONE_MS = 1500;
const MINUTE_MS = 60_000;
const counts = []; // {at, images}, of the last minute
let listener = () => {};
let timer = null;

// Asks the server now and then, while the page is seen; `onInfo` gets each answer.
export function buildState(onInfo) {
  listener = onInfo;
  byId("state-button").addEventListener("click", () => {
    const isOpen = byId("state-button").getAttribute("aria-expanded") === "true";
    byId("state-button").setAttribute("aria-expanded", String(!isOpen));
    byId("state").hidden = isOpen;
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) lookAt();
  });
  return lookAt();
}

async function lookAt() {
  clearTimeout(timer);
  let pause = EVERY_MS;
  try {
    const info = await post("info", {});
    withdraw("gone");
    withdraw("refused");
    count(info);
    show(info);
    listener(info);
  } catch (error) {
    pause = explain(error) ?? pause;
  }
  clearTimeout(timer);
  if (pause !== Infinity && !document.hidden) timer = setTimeout(lookAt, pause);
}

// Says why there is no answer; returns when to ask again, in milliseconds.
function explain(error) {
  if (error instanceof Unreachable) {
    byId("state-line").textContent = "The server does not answer";
    notice("gone", "The server does not answer. This page goes on as soon as it is back.", {
      kind: "bad",
      stays: true,
    });
    return WHILE_GONE_MS;
  }
  if (error instanceof Refusal && error.code === "origin_not_allowed") {
    refused();
    return Infinity;
  }
  if (error instanceof Refusal && error.code === "starting") {
    byId("state-line").textContent = "The model is being loaded";
    notice("gone", "The server loads its model. This page goes on as soon as it is ready.", {
      kind: "bad",
      stays: true,
    });
    return WHILE_GONE_MS;
  }
  if (error instanceof Refusal) {
    notice("refused", error.message, { kind: "bad" });
    return EVERY_MS;
  }
  byId("state-line").textContent = "A token is needed";
  notice("refused", error.message, { kind: "bad", stays: true, actions: [["Enter one", lookAt]] });
  return Infinity;
}

// The border takes no requests of a page under this name: a stranger could own it.
function refused() {
  byId("state-line").textContent = "Refused under this name";
  notice(
    "refused",
    `This server takes no requests of a page at ${location.origin}, since any site could point such a name to it.`,
    {
      kind: "bad",
      stays: true,
      items: [
        el(
          "li",
          {},
          "If the name is your own, start it with ",
          el("code", { text: `LPW_SDXL_HOSTS=${location.hostname}` }),
          ",",
        ),
        el(
          "li",
          {},
          "or, for pages of this one origin, with ",
          el("code", { text: `LPW_SDXL_CORS_ORIGINS=${location.origin}` }),
          ",",
        ),
        el("li", {}, "or with tokens, ", el("code", { text: "LPW_SDXL_TOKENS" }), ","),
        el("li", {}, "or open this page by the server's address."),
      ],
    },
  );
}

function count({ engine }) {
  const now = performance.now();
  if (counts.length && counts.at(-1).images > engine.images) counts.length = 0; // it began anew
  counts.push({ at: now, images: engine.images });
  while (counts.length > 1 && now - counts[0].at > MINUTE_MS) counts.shift();
}

function paceWords() {
  const made = counts.at(-1).images - counts[0].images;
  const own = recentSeconds();
  const words = [];
  if (own !== null) words.push(`${seconds(own)} a picture`);
  if (made > 0) words.push(`${plural(made, "picture")} in the last minute`);
  return words;
}

function show(info) {
  const { hardware } = info.memory;
  const jobs = info.engine.queued_jobs;
  const queue = jobs ? `${plural(jobs, "picture")} under way` : "idle";
  const line = [
    info.model.title || info.model_tag,
    hardware.name,
    queue,
    ...paceWords().slice(0, 1),
  ];
  byId("state-line").textContent = line.join(" · ");
  const rows = [
    ["Model", [info.model_tag, info.model.title, info.model.base_model].filter(Boolean).join(", ")],
    [
      "File",
      `${info.model.source_file}, ${bytes(info.model.source_size)}, AutoV2 ${info.model.source_autov2}`,
    ],
    ["Kind", kindWords(info.model)],
    ["Device", `${hardware.name} (${info.device}), ${memoryWords(hardware)}`],
    ["Memory plan", planWords(info.memory)],
    ["Queue", queue],
    ["Of late", paceWords().join(", ") || "no picture yet"],
    ["Since its start", countWords(info.engine)],
    [
      "Add-ons",
      `${plural(info.loras.length, "LoRA")}, ${plural(info.embeddings.length, "embedding")}`,
    ],
    ["Limits", limitWords(info.limits)],
    ["Version", info.version],
  ];
  byId("state").replaceChildren(
    el(
      "dl",
      {},
      ...rows.map(([name, text]) => el("div", {}, el("dt", { text: name }), el("dd", { text }))),
    ),
    el("p", {}, el("a", { href: "docs.json", text: "All endpoints (OpenAPI)" })),
  );
}

function kindWords(model) {
  const words = [
    `${model.native_size.replace("x", " × ")}`,
    model.dtype,
    `predicts ${model.prediction_type}`,
  ];
  if (model.inpainting) words.push("made for inpainting");
  return words.join(", ");
}

function memoryWords({ total_bytes: total, free_bytes: free }) {
  return `${bytes(total)}${free === null ? "" : `, ${bytes(free)} free before the model came`}`;
}

function planWords(plan) {
  const where = plan.is_offloading
    ? "components take turns on the device"
    : "all of it stays on the device";
  return `${bytes(plan.weight_bytes)} of weights, ${where} (${plan.offload_reason}); up to ${plan.max_rows} rows a call`;
}

function countWords({ images, failed, left, out_of_memory: memory }) {
  return `${plural(images, "picture")}, ${failed} failed, ${left} given up, ${memory} times out of memory`;
}

function limitWords(limits) {
  return `${limits.max_size.replace("x", " × ")}, ${limits.max_steps} steps, ${limits.max_loras} LoRAs, ${limits.max_prompt_chunks} chunks`;
}
