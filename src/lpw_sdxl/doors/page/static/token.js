// The token of a server that has tokens: asked for when it is needed, kept for this tab's session.

import { button, byId, el } from "./dom.js";

const KEY = "lpw-sdxl-token";
let asking = null; // of all requests that wait for one

export function storedToken() {
  return sessionStorage.getItem(KEY) ?? "";
}

// Asks for another token than one that was refused; rejects if none is given.
export async function askForToken(refused, signal) {
  if (storedToken() !== refused) return; // another request has asked meanwhile
  asking ??= show(refused).finally(() => {
    asking = null;
  });
  await asking;
  signal?.throwIfAborted();
}

export class NoToken extends Error {
  constructor() {
    super("This server needs a token.");
  }
}

function show(refused) {
  const dialog = byId("token-dialog");
  const input = el("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    required: true,
    "aria-describedby": "token-note",
  });
  const note = refused
    ? "The server does not take this token."
    : "It is kept until this tab is closed, and sent to this server only.";
  return new Promise((resolve, reject) => {
    const keep = (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!token) return;
      sessionStorage.setItem(KEY, token);
      dialog.close();
    };
    const form = el(
      "form",
      { method: "dialog", on: { submit: keep } },
      el("h2", { id: "token-title", text: "This server needs a token" }),
      el("label", { for: "token", text: "Token" }),
      input,
      el("p", { id: "token-note", class: refused ? "error" : "hint", text: note }),
      el(
        "div",
        { class: "row" },
        el("button", { type: "submit", class: "main", text: "Use it" }),
        button("Not now", () => dialog.close()),
      ),
    );
    const closed = () => {
      dialog.replaceChildren();
      if (storedToken() && storedToken() !== refused) resolve();
      else reject(new NoToken());
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.replaceChildren(form);
    dialog.showModal();
  });
}
