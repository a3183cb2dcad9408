// LoRAs and embeddings: a list to choose from, chips with weights for the request's LoRAs, and
// chips for the tags and embeddings that stand in a prompt.

import { button, byId, el } from "./dom.js";
import { weighted, without, withTagWeight, withWeight, withWords } from "./prompt_edits.js";

const MOST_SHOWN = 60;
let offered = { loras: [], embeddings: [] };
let loras = []; // {name, weight, ...} as a request has them
let changed = () => {};
let active = -1; // the option of the list that Enter takes

export function buildAddons(onChanged) {
  changed = onChanged;
  const input = el("input", {
    id: "addon",
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    "aria-expanded": "false",
    "aria-controls": "addon-list",
    "aria-autocomplete": "list",
    placeholder: "name of a LoRA or an embedding",
    on: { input: search, focus: search, keydown: choose, blur: () => setTimeout(close, 150) },
  });
  byId("addons").append(
    el("label", { for: "addon", text: "LoRAs and embeddings" }),
    el(
      "div",
      { class: "combo" },
      input,
      el("ul", {
        id: "addon-list",
        role: "listbox",
        "aria-label": "LoRAs and embeddings",
        hidden: true,
      }),
    ),
    el("div", { class: "chips", id: "lora-chips" }),
    el("p", { class: "error", id: "loras-error", hidden: true }),
  );
}

export function setOffered(info) {
  const before = JSON.stringify(offered);
  offered = { loras: info.loras, embeddings: info.embeddings };
  if (JSON.stringify(offered) === before) return;
  show();
  if (!byId("addon-list").hidden) search(); // files that are read while the list is open
}

export function chosenLoras() {
  return loras;
}

export function setLoras(list) {
  loras = list.map((one) => ({ ...one }));
  show();
}

// Shows chips of the tags and embeddings that the server found in one of the prompts.
export function showMentions(field, read) {
  const area = byId(field);
  const edit = (text) => {
    area.value = text;
    area.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const text = area.value;
  const tags = read.lora_tags.map((tag) =>
    chip(tag.name, "LoRA in the prompt", tag.weight, {
      weigh: (weight) => edit(withTagWeight(text, tag, weight)),
      remove: () => edit(without(text, tag, true)),
    }),
  );
  const embeddings = read.embeddings.map((one) =>
    chip(one.name, "embedding", weighted(text, one).weight, {
      weigh: (weight) => edit(withWeight(text, one, weight)),
      remove: () => edit(without(text, one, false)),
    }),
  );
  replaceKeepingFocus(byId(`${field}-chips`), [...tags, ...embeddings]);
}

function show() {
  const chips = loras.map((lora, index) => {
    const known = offered.loras.find((one) => one.name === lora.name);
    return chip(lora.name, "LoRA", lora.weight ?? 1, {
      weigh: (weight) => {
        loras[index] = { ...lora, weight };
        show();
        changed();
      },
      remove: () => {
        loras.splice(index, 1);
        show();
        changed();
      },
      words: known?.trained_words ?? [],
    });
  });
  replaceKeepingFocus(byId("lora-chips"), chips);
}

function chip(name, kind, weight, { weigh, remove, words = [] }) {
  const input = el("input", {
    type: "number",
    step: "0.05",
    value: String(weight),
    "aria-label": `Weight of ${name}`,
    on: { change: () => Number.isFinite(input.valueAsNumber) && weigh(input.valueAsNumber) },
  });
  const add = (word) => {
    byId("prompt").value = withWords(byId("prompt").value, word);
    byId("prompt").dispatchEvent(new Event("input", { bubbles: true }));
  };
  return el(
    "div",
    { class: "chip", "data-name": name },
    el("span", { class: "chip-kind", text: kind }),
    el("span", { class: "chip-name", text: name }),
    input,
    ...words
      .slice(0, 3)
      .map((word) =>
        button(`+ ${word}`, () => add(word), {
          class: "quiet",
          "aria-label": `Add ${word} to the prompt`,
        }),
      ),
    button("×", remove, { class: "quiet", "aria-label": `Remove ${name}` }),
  );
}

// Puts chips in place of others; the focus stays on the same control of the same chip.
function replaceKeepingFocus(place, chips) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const label = focused?.getAttribute("aria-label");
  const had = place.childElementCount;
  place.replaceChildren(...chips);
  if (!label) return;
  const same = [...place.querySelectorAll("input, button")].find(
    (one) => one.getAttribute("aria-label") === label,
  );
  if (same) same.focus();
  else if (had) (place.querySelector("input") ?? byId("addon")).focus();
}

function search() {
  const words = byId("addon").value.toLowerCase().split(/\s+/).filter(Boolean);
  const whole = byId("addon").value.trim();
  const fits = (one) => words.every((word) => one.name.toLowerCase().includes(word));
  const rows = [
    ...offered.loras.filter(fits).map((one) => ["LoRA", one]),
    ...offered.embeddings.filter(fits).map((one) => ["embedding", one]),
  ].sort(([, a], [, b]) => (b.name === whole) - (a.name === whole));
  const options = rows.slice(0, MOST_SHOWN).map(([kind, one], index) =>
    el(
      "li",
      {
        role: "option",
        id: `addon-${index}`,
        "aria-selected": "false",
        on: {
          pointerdown: (event) => {
            event.preventDefault();
            take(kind, one.name);
          },
        },
      },
      el("span", { class: "chip-kind", text: kind }),
      el("span", { text: one.name }),
    ),
  );
  options.forEach((option, index) => {
    const [kind, { name }] = rows[index];
    option.take = () => take(kind, name);
  });
  const note = rows.length > MOST_SHOWN ? `${rows.length - MOST_SHOWN} more; type to narrow` : null;
  const empty = rows.length
    ? note
    : offered.loras.length + offered.embeddings.length
      ? "No name has these words."
      : "This server has no LoRAs and no embeddings.";
  byId("addon-list").replaceChildren(
    ...options,
    ...(empty
      ? [
          el("li", {
            class: "hint",
            role: "option",
            "aria-disabled": "true",
            "aria-selected": "false",
            text: empty,
          }),
        ]
      : []),
  );
  byId("addon-list").hidden = false;
  byId("addon").setAttribute("aria-expanded", "true");
  mark(options.length ? 0 : -1);
}

function mark(index) {
  active = index;
  [...byId("addon-list").children].forEach((option, place) => {
    option.setAttribute("aria-selected", String(place === index));
    if (place === index) option.scrollIntoView({ block: "nearest" });
  });
  if (index >= 0) byId("addon").setAttribute("aria-activedescendant", `addon-${index}`);
  else byId("addon").removeAttribute("aria-activedescendant");
}

function choose(event) {
  const options = [...byId("addon-list").children].filter((one) => one.take);
  if (event.key === "Escape" && !byId("addon-list").hidden) {
    event.stopPropagation();
    close();
  } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    options[active]?.take();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (byId("addon-list").hidden) search();
    else if (options.length) {
      mark((active + (event.key === "ArrowDown" ? 1 : options.length - 1)) % options.length);
    }
  }
}

function close() {
  byId("addon-list").hidden = true;
  byId("addon").setAttribute("aria-expanded", "false");
  byId("addon").removeAttribute("aria-activedescendant");
}

function take(kind, name) {
  if (kind === "LoRA") {
    if (!loras.some((one) => one.name === name)) loras.push({ name, weight: 1 });
    show();
    changed();
  } else {
    const area = byId("prompt");
    area.value = withWords(area.value, name);
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }
  byId("addon").value = "";
  close();
}
