// Elements of the page, made without markup: data only ever becomes text or an attribute's value.

// Makes an element. `on` has its listeners, `text` its text; all else of `given` are attributes,
// where false, null and undefined leave one out.
export function el(name, given = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (key === "text") {
      node.textContent = value;
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(key, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

// A button that does one thing; it never sends the form.
export function button(text, act, given = {}) {
  return el("button", { type: "button", text, on: { click: act }, ...given });
}

// Says something to screen readers, without moving the focus.
export function announce(text) {
  byId("live").textContent = text;
}

// Copies a text; returns whether it could: browsers allow it at https and localhost only.
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  return `${Math.round(value / 60)} min`;
}

export function bytes(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} GB`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB`;
  return `${Math.ceil(count / 1e3)} kB`;
}
