// Pictures and texts that come from elsewhere: dropped, pasted or chosen. A picture becomes the
// start, or its `parameters` fill the form, with what this server can't honour listed.

import { post, Refusal } from "./api.js";
import { byId, el } from "./dom.js";
import { notice } from "./notices.js";
import { startFrom } from "./start_picture.js";
import { base64Of } from "./stream.js";

const LOOKS_WRITTEN = /(^|\n)Steps: \d+, /; // the last line of A1111's texts
let fill = () => {};
let depth = 0; // of elements that a dragged file is over

export function buildDrop(onRequest) {
  fill = onRequest;
  const zone = (id, title, text) =>
    el("div", { class: "zone", id }, el("strong", { text: title }), el("span", { text }));
  byId("drop").append(
    zone("drop-settings", "Take its settings", "the form is filled from the picture's parameters"),
    zone("drop-start", "Start from it", "it is drawn over, all of it or a part"),
  );
  addEventListener("dragenter", (event) => entered(event, 1));
  addEventListener("dragleave", (event) => entered(event, -1));
  addEventListener("dragover", (event) => {
    if (hasFiles(event.dataTransfer)) event.preventDefault();
    for (const one of byId("drop").children)
      one.classList.toggle("over", one.contains(event.target));
  });
  addEventListener("drop", dropped);
  addEventListener("paste", pasted);
}

// A button that chooses a picture whose settings are taken.
export function settingsButton() {
  const input = el("input", {
    type: "file",
    id: "settings-file",
    accept: "image/*",
    class: "unseen",
    on: {
      change: () => {
        if (input.files[0]) takeSettings(input.files[0]);
        input.value = "";
      },
    },
  });
  return el(
    "span",
    { class: "row" },
    input,
    el("label", { for: "settings-file", class: "button", text: "Settings from a picture" }),
  );
}

// Fills the form from a picture's parameters, or offers to start from it where it has none.
export async function takeSettings(file) {
  try {
    await read({ image: await base64Of(file) }, file.name);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    notice("settings", `${nameOf(file)}: ${error.message}`, {
      kind: "bad",
      actions: [["Start from it", () => startFrom(file)]],
    });
  }
}

async function read(body, name) {
  const { request, not_honoured: left } = await post("read_parameters", body);
  fill(request);
  const items = left.map(({ name: key, value, reason }) =>
    el(
      "li",
      {},
      el("b", { text: key }),
      " ",
      el("span", { class: "value", text: value }),
      " ",
      reason,
    ),
  );
  const what = name ? `The form is filled from ${name}.` : "The form is filled from the text.";
  const rest = items.length ? " This server can't honour:" : " All of it can be honoured here.";
  notice("settings", what + rest, { items });
}

function entered(event, change) {
  if (!hasFiles(event.dataTransfer)) return;
  event.preventDefault();
  depth = Math.max(0, depth + change);
  byId("drop").hidden = depth === 0;
}

function dropped(event) {
  depth = 0;
  byId("drop").hidden = true;
  const file = [...(event.dataTransfer?.files ?? [])][0];
  if (!file) return;
  event.preventDefault();
  if (byId("drop-start").contains(event.target) || byId("group-picture").contains(event.target))
    startFrom(file);
  else takeSettings(file);
}

function pasted(event) {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  const text = event.clipboardData?.getData("text/plain") ?? "";
  if (file) {
    event.preventDefault();
    notice("settings", `${nameOf(file)} was pasted.`, {
      actions: [
        ["Start from it", () => startFrom(file)],
        ["Take its settings", () => takeSettings(file)],
      ],
    });
  } else if (event.target.id === "prompt" && LOOKS_WRITTEN.test(text)) {
    const take = () =>
      read({ parameters: text }, "").catch((error) =>
        notice("settings", error.message, { kind: "bad" }),
      );
    notice("settings", "That looks like the parameters of a picture.", {
      actions: [["Fill the form from them", take]],
    });
  }
}

function hasFiles(transfer) {
  return transfer?.types.includes("Files") ?? false;
}

function nameOf(file) {
  return file.name || "The picture";
}
