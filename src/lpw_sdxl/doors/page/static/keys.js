// The keys of the page, and the list of them.

import { button, byId, el } from "./dom.js";

const KEYS = [
  ["Ctrl Enter", "draw, from anywhere"],
  ["Esc", "cancel what was begun last"],
  ["← →", "in the gallery: the newer and the older picture"],
  ["Delete", "in the gallery: delete the picture"],
  ["↑ ↓", "in a number: more and less"],
  ["Arrows, Space", "on the mask: move the brush, paint"],
  ["Shift and arrows", "on the mask: paint a line"],
  ["E", "on the mask: erase, and paint again"],
];

// `acts` are draw and cancel; cancel returns whether there was anything.
export function buildKeys(acts) {
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      acts.draw();
    } else if (event.key === "Escape" && acts.cancel()) {
      event.preventDefault();
    }
  });
  byId("keys-button").addEventListener("click", show);
}

function show() {
  const dialog = byId("keys-dialog");
  dialog.replaceChildren(
    el("h2", { id: "keys-title", text: "Keys" }),
    el(
      "dl",
      { class: "keys" },
      ...KEYS.map(([key, text]) =>
        el("div", {}, el("dt", {}, el("kbd", { text: key })), el("dd", { text })),
      ),
    ),
    button("Close", () => dialog.close(), { class: "main" }),
  );
  dialog.showModal();
}
