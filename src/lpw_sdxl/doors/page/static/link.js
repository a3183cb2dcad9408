// Deep links: the form in the address's fragment, which no server ever sees.

import { FIELD_OF, OTHERS } from "./fields.js";
import * as json from "./json.js";
import { number } from "./json.js";

const TEXTS = ["prompt", "negative_prompt", "hires.prompt", "hires.negative_prompt"];

// The address of this page with a request in it.
export function linkOf(request) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(request)) {
    if (name === "hires") {
      pairs.set("hires", "true");
      for (const [inner, one] of Object.entries(value)) pairs.set(`hires.${inner}`, written(one));
    } else {
      pairs.set(name, written(value));
    }
  }
  return `${location.href.split("#")[0]}#${pairs}`;
}

// The request in a fragment, and the names in it that are no field: {request, unknown}; null for a
// fragment that is no request.
export function requestOf(fragment) {
  const text = fragment.replace(/^#/, "");
  if (!text.includes("=")) return null;
  const request = {};
  const unknown = [];
  for (const [name, value] of new URLSearchParams(text)) {
    if (!FIELD_OF.has(name) && !OTHERS.includes(name)) {
      unknown.push(name);
      continue;
    }
    const one = valueOf(name, value);
    if (one === undefined) unknown.push(name);
    else if (name === "hires") request.hires ??= {};
    else if (name.startsWith("hires.")) request.hires = { ...request.hires, [name.slice(6)]: one };
    else request[name] = one;
  }
  return { request, unknown };
}

function written(value) {
  return typeof value === "object" && value !== null ? json.write(value) : String(value);
}

function valueOf(name, text) {
  if (TEXTS.includes(name)) return text;
  if (name === "loras") return lorasOf(text);
  const { kind } = FIELD_OF.get(name);
  if (kind === "check") return text === "true" ? true : text === "false" ? false : undefined;
  if (kind === "choice") return text;
  if (kind === "interval") return intervalOf(text);
  return number(text) ?? undefined;
}

function intervalOf(text) {
  const shares = text.replace(/[[\]]/g, "").split(",").map(number);
  return shares.length === 2 && !shares.includes(null) ? shares : undefined;
}

function lorasOf(text) {
  try {
    const list = json.read(text);
    const isRight = Array.isArray(list) && list.every((one) => typeof one?.name === "string");
    return isRight ? list : undefined;
  } catch {
    return undefined;
  }
}
