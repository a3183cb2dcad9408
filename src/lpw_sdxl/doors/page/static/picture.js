// The picture that is shown large: its file, its facts, and what can be done with it.

import { button, byId, copied, el } from "./dom.js";

let address = null;
let acts = {};

// `actions` are called with the picture: again, start, settings, remove, older, newer.
export function setActions(actions) {
  acts = actions;
  showPicture(null);
}

export function showPicture(picture) {
  if (address) URL.revokeObjectURL(address);
  address = picture && URL.createObjectURL(picture.file);
  byId("picture").replaceChildren(picture ? figure(picture) : empty());
}

function figure(picture) {
  const { request, width, height, seed, parameters } = picture;
  return el(
    "figure",
    { class: "shown" },
    el("img", { src: address, width, height, alt: `Picture of: ${request.prompt.slice(0, 300)}` }),
    el(
      "figcaption",
      {},
      el(
        "div",
        { class: "facts" },
        el("span", { text: `${width} × ${height}` }),
        el("span", { text: `seed ${seed}`, class: "seed" }),
        button("Delete", () => acts.remove(picture), { class: "quiet" }),
      ),
      el(
        "div",
        { class: "row" },
        button("Again with another seed", () => acts.again(picture), { class: "main" }),
        el("a", { class: "button", href: address, download: nameOf(picture), text: "Download" }),
        button("Use as start picture", () => acts.start(picture)),
        button("Take its settings", () => acts.settings(picture)),
      ),
      el(
        "details",
        { class: "parameters" },
        el("summary", { text: "Its parameters" }),
        el("pre", { text: parameters, tabindex: "0", "aria-label": "Parameters" }),
        isSecureContext ? button("Copy", () => copied(parameters)) : null,
      ),
    ),
  );
}

function empty() {
  return el(
    "div",
    { class: "empty" },
    el("p", { text: "No picture yet. Write a prompt and draw." }),
    el("p", {
      class: "hint",
      text: "Or drop a picture anywhere on this page, to start from it or to take its settings.",
    }),
  );
}

// A file's name: the seed and the first words of the prompt, letters and digits only.
function nameOf({ seed, request, mediaType }) {
  const words = request.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const ending = { "image/jpeg": "jpg", "image/webp": "webp" }[mediaType] ?? "png";
  return `${[seed, ...words.slice(0, 6)].join("-").slice(0, 80)}.${ending}`;
}
