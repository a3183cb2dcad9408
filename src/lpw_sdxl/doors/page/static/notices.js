// Sentences above the form: what the page has to say, until it is closed or no longer true.

import { button, byId, el } from "./dom.js";

const shown = new Map();

// Shows a notice; one of the same key is replaced. Of `actions`, each is [text, act].
export function notice(key, text, { kind = "info", items = [], actions = [], stays = false } = {}) {
  const close = () => withdraw(key);
  const node = el(
    "div",
    { class: `notice ${kind}`, "data-key": key },
    el(
      "div",
      { class: "notice-text" },
      el("p", { text }),
      items.length ? el("ul", {}, ...items) : null,
    ),
    ...actions.map(([label, act]) =>
      button(label, () => {
        close();
        act();
      }),
    ),
    stays ? null : button("Close", close, { class: "quiet" }),
  );
  const old = shown.get(key);
  if (old) old.replaceWith(node);
  else byId("notices").append(node);
  shown.set(key, node);
}

export function withdraw(key) {
  shown.get(key)?.remove();
  shown.delete(key);
}
