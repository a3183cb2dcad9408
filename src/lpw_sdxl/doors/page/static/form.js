// The form: made from the table of fields, read into a request, and filled from one.

import { FIELD_OF, FIELDS, GROUPS } from "./fields.js";
import { number } from "./json.js";
import { byId, el } from "./dom.js";

const controls = new Map(); // by the name of the field
const listeners = [];
let info = null; // the server's, once it has answered
let parts = { has_picture: false, has_mask: false, sides: null }; // of the other parts of the page

// Makes all controls; `extras` are nodes to put at the beginning of groups, by their name.
export function buildForm(extras) {
  for (const [group, title, folds] of GROUPS) {
    const box = folds ? el("details", { class: "group" }) : el("fieldset", { class: "group" });
    box.id = `group-${group}`;
    box.append(el(folds ? "summary" : "legend", { text: title }));
    const grid = el("div", { class: "fields" });
    box.append(grid);
    grid.append(...FIELDS.filter((field) => field.group === group).map(line));
    if (extras[group]) grid[group === "seed" ? "after" : "before"](extras[group]);
    byId("groups").append(box);
  }
  byId("form").addEventListener("input", (event) => changed(event.target));
  update();
}

// Calls a function after every change of the form.
export function onChange(listener) {
  listeners.push(listener);
}

export function setInfo(answer) {
  info = answer;
  update();
}

// Takes the model's own defaults in the place of ours; what the form shows is not changed.
export function setDefaults(defaults) {
  for (const field of FIELDS) {
    if (Object.hasOwn(defaults, field.name)) field.unset = defaults[field.name];
  }
}

export function setParts(some) {
  parts = { ...parts, ...some };
  update();
  for (const listener of listeners) listener();
}

// The request, and the first field whose text is no value of its kind: {request, wrong}.
export function readForm() {
  const form = values();
  const request = {};
  let wrong = null;
  const put = (name, value) => {
    const [first, inner] = name.split(".");
    if (inner) request[first] = { ...request[first], [inner]: value };
    else request[first] = value;
  };
  if (form.hires && !form.has_picture) request.hires = {};
  for (const field of FIELDS) {
    if (field.name === "hires" || (field.needs && !field.needs(form))) continue;
    const value = form[field.name];
    if (value === undefined) wrong ??= { field: field.name, message: notRight(field) };
    else if (!same(value, field.unset)) put(field.name, value);
  }
  return { request, wrong };
}

// Fills all fields: from the request where it has them, with their defaults else.
export function fillForm(request) {
  for (const field of FIELDS) {
    const [first, inner] = field.name.split(".");
    let value = inner ? request[first]?.[inner] : request[first];
    if (field.name === "hires") value = request.hires ? true : false;
    put(field, value === undefined ? field.unset : value);
  }
  for (const group of ["hires", "more"]) {
    const has = FIELDS.some((one) => one.group === group && !same(values()[one.name], one.unset));
    if (has) byId(`group-${group}`).open = true;
  }
  update();
  for (const field of FIELDS) put(field, wanted(request, field)); // options follow the family
  update();
  clearErrors();
  for (const listener of listeners) listener();
}

export function valueOf(name) {
  return values()[name];
}

export function setField(name, value) {
  put(FIELD_OF.get(name), value);
  changed(controls.get(name));
}

// Shows an error at its field; returns whether the form has that field.
export function showError(name, message) {
  const [first, inner] = (name ?? "").split(".");
  const known = [name, first === "hires" && inner ? name : first, first].find(
    (one) => controls.has(one) || byId(`${one}-error`),
  );
  const place = known && byId(`${known}-error`);
  if (!place) return false;
  place.textContent = message;
  place.hidden = false;
  const control = controls.get(known) ?? byId(known);
  control?.setAttribute("aria-invalid", "true");
  const folded = place.closest("details.group");
  if (folded) folded.open = true;
  control?.focus();
  return true;
}

export function clearErrors() {
  for (const place of document.querySelectorAll("#form .error")) {
    place.hidden = true;
    place.textContent = "";
  }
  for (const control of document.querySelectorAll("#form [aria-invalid]")) {
    control.removeAttribute("aria-invalid");
  }
}

function wanted(request, { name, unset }) {
  const [first, inner] = name.split(".");
  if (name === "hires") return Boolean(request.hires);
  const value = inner ? request[first]?.[inner] : request[first];
  return value === undefined ? unset : value;
}

function line(field) {
  const id = `f-${field.name.replace(".", "-")}`;
  const given = { id, "aria-describedby": `${field.name}-error`, "data-field": field.name };
  let control;
  if (field.kind === "choice") control = el("select", given);
  else if (field.kind === "check") control = el("input", { ...given, type: "checkbox" });
  else if (field.kind === "text")
    control = el("textarea", { ...given, rows: 2, spellcheck: "false" });
  else {
    const isWhole = field.kind === "whole";
    control = el("input", {
      ...given,
      type: "text",
      inputmode: isWhole ? "numeric" : "decimal",
      autocomplete: "off",
    });
    control.addEventListener("keydown", (event) => stepBy(field, control, event));
  }
  controls.set(field.name, control);
  put(field, field.unset);
  const label = el("label", { for: id, text: field.label });
  const error = el("p", { class: "error", id: `${field.name}-error`, hidden: true });
  const isWide = field.kind === "check" || field.kind === "text";
  return el(
    "div",
    { class: `field ${field.kind}${isWide ? " wide" : ""}` },
    ...(field.kind === "check" ? [control, label] : [label, control]),
    error,
  );
}

// Up and Down step a number, as in a number field, which would lose digits of a seed.
function stepBy(field, control, event) {
  const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!sign || field.kind === "interval") return;
  const now = parsed(field, control.value || (control.placeholder ?? ""));
  if (typeof now !== "number") return;
  event.preventDefault();
  const step = field.step ?? 1;
  const raised = Math.round((now + sign * step) / step) * step;
  control.value = String(Math.max(field.min ?? -Infinity, Number(raised.toFixed(6))));
  control.dispatchEvent(new Event("input", { bubbles: true }));
}

// All values: undefined where a text is none.
function values() {
  const form = { ...parts };
  for (const field of FIELDS) {
    const control = controls.get(field.name);
    const text = field.kind === "choice" ? control.dataset.wanted : control.value;
    form[field.name] = field.kind === "check" ? control.checked : parsed(field, text);
  }
  return form;
}

function parsed(field, text) {
  const trimmed = text.trim();
  if (trimmed === "") return field.unset;
  if (field.kind === "choice") return trimmed;
  if (field.kind === "text") return text;
  if (field.kind === "interval") {
    const shares = trimmed
      .replace(/[[\]]/g, "")
      .split(/[\s,]+/)
      .filter(Boolean)
      .map(number);
    return shares.length === 2 && !shares.includes(null) ? shares : undefined;
  }
  const value = number(trimmed);
  if (value === null) return undefined;
  const isWhole = typeof value === "bigint" || Number.isInteger(value);
  return field.kind === "whole" && !isWhole ? undefined : value;
}

function put(field, value) {
  const control = controls.get(field.name);
  if (field.kind === "check") {
    control.checked = value;
  } else if (field.kind === "choice") {
    const text = value ?? "";
    control.dataset.wanted = text;
    control.value = text;
  } else {
    const isUnset = value === null || (same(value, field.unset) && field.unset === null);
    control.value = isUnset ? "" : Array.isArray(value) ? value.join(", ") : String(value);
  }
}

function changed(target) {
  if (target?.tagName === "SELECT") target.dataset.wanted = target.value;
  const name = target?.dataset?.field;
  if (name) {
    const place = byId(`${name}-error`);
    place.hidden = true;
    target.removeAttribute("aria-invalid");
  }
  if (target?.id === "prompt" || target?.id === "negative_prompt") {
    byId(`${target.id}-error`).hidden = true;
    target.removeAttribute("aria-invalid");
  }
  update();
  if (name === "sampler_implementation") leaveUnknown();
  for (const listener of listeners) listener();
}

// Names of the other family's samplers mean nothing in this one.
function leaveUnknown() {
  for (const field of FIELDS.filter((one) => /scheduler|schedule_type/.test(one.name))) {
    const control = controls.get(field.name);
    if (control.selectedOptions[0]?.text.endsWith("(not here)")) put(field, null);
  }
  update();
}

// Brings options, hints and what is shown up to the form's values and the server's answer.
function update() {
  const form = values();
  for (const field of FIELDS) {
    const control = controls.get(field.name);
    if (field.kind === "choice" && (info || !field.options.length)) choose(field, control, form);
    if (field.placeholder && (info || !field.placeholder.length)) {
      control.placeholder = form.sides?.[field.name] ?? field.placeholder(info);
    }
    control.closest(".field").hidden = Boolean(field.needs && !field.needs(form));
  }
}

function choose(field, control, form) {
  const options = field.options(info, form).map((one) => (Array.isArray(one) ? one : [one, one]));
  const wants = control.dataset.wanted ?? "";
  const known = options.some(([value]) => value === wants);
  if (!known && wants) options.push([wants, `${wants} (not here)`]);
  const written = JSON.stringify(options);
  if (control.dataset.options !== written) {
    control.dataset.options = written;
    control.replaceChildren(...options.map(([value, text]) => el("option", { value, text })));
  }
  control.value = wants;
}

function same(value, other) {
  return JSON.stringify(value, safe) === JSON.stringify(other, safe);
}

function safe(_key, value) {
  return typeof value === "bigint" ? String(value) : value;
}

function notRight(field) {
  if (field.kind === "interval") return "Two shares of the steps would be right, such as 0.2, 0.8.";
  return field.kind === "whole" ? "A whole number would be right." : "A number would be right.";
}
