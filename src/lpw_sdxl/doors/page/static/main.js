// The page: builds its parts and joins them.

import { buildAddons, chosenLoras, setLoras, setOffered, showMentions } from "./addons.js";
import { button, byId, copied, el } from "./dom.js";
import { cancelLast, draw, setDrawing } from "./draw.js";
import { buildDrop, settingsButton } from "./drop.js";
import {
  buildForm,
  clearErrors,
  fillForm,
  onChange,
  readForm,
  setDefaults,
  setField,
  setInfo,
  setParts,
  showError,
} from "./form.js";
import { addPicture, buildGallery, removePicture } from "./gallery.js";
import * as json from "./json.js";
import { buildKeys } from "./keys.js";
import { linkOf, requestOf } from "./link.js";
import { notice } from "./notices.js";
import { setActions, showPicture } from "./picture.js";
import { buildPromptViews, inspectSoon } from "./prompt_view.js";
import { several, withSeed } from "./recipe.js";
import {
  buildStart,
  maskPicture,
  removeStart,
  setMostBytes,
  startFrom,
  startPicture,
} from "./start_picture.js";
import { buildState } from "./state.js";

const KEPT = "lpw-sdxl-form";
const MOST_AT_ONCE = 16;
const TEXTS = ["prompt", "negative_prompt"];
let lastSeed = null;
let defaults = null; // the model's own, once they are known
let gallery = null; // a promise: pictures are added to it when it is open

function build() {
  const last = button("The last picture's", () => lastSeed !== null && setField("seed", lastSeed), {
    id: "seed-last",
    disabled: true,
  });
  const fresh = button("A new one", () => setField("seed", null));
  const seeds = el("div", { class: "row seeds" }, fresh, last);
  buildForm({ seed: seeds, picture: buildStart(setParts) });
  buildAddons(changed);
  buildCount();
  byId("groups").append(
    el(
      "div",
      { class: "row tail" },
      settingsButton(),
      button("Copy a link to these settings", copyLink),
      button("Reset", () => fill({ prompt: "" })),
    ),
  );
  buildPromptViews(showMentions);
  buildDrop(fill);
  buildKeys({ draw: drawForm, cancel: cancelLast });
  onChange(changed);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    drawForm();
  });
}

function buildCount() {
  const options = [1, 2, 3, 4, 6, 8, MOST_AT_ONCE].map((one) =>
    el("option", { value: String(one), text: `${one}` }),
  );
  byId("count-place").append(
    el("label", { for: "count", class: "unseen", text: "Pictures" }),
    el("select", { id: "count", title: "Pictures" }, ...options),
  );
}

function changed() {
  inspectSoon();
  if (defaults) sessionStorage.setItem(KEPT, json.write(formRequest().request));
}

function formRequest() {
  const { request, wrong } = readForm();
  const texts = Object.fromEntries(TEXTS.map((name) => [name, byId(name).value]));
  if (texts.negative_prompt === negativeDefault()) delete texts.negative_prompt;
  const loras = chosenLoras();
  return { request: { ...texts, ...request, ...(loras.length ? { loras } : {}) }, wrong };
}

async function drawForm() {
  clearErrors();
  const { request, wrong } = formRequest();
  if (wrong) {
    showError(wrong.field, wrong.message);
    return;
  }
  const recipe = { request, image: startPicture(), mask: await maskPicture() };
  for (const one of several(recipe, Number(byId("count").value))) draw(one);
  if (matchMedia("(max-width: 60rem)").matches) byId("jobs").scrollIntoView({ block: "start" });
}

function negativeDefault() {
  return defaults?.negative_prompt ?? "";
}

// Fills the form from a request; what it does not name gets its default.
function fill(request) {
  const unset = { negative_prompt: negativeDefault() };
  for (const name of TEXTS) {
    byId(name).value = request[name] ?? unset[name] ?? "";
    byId(name).dispatchEvent(new Event("input", { bubbles: true }));
  }
  setLoras(request.loras ?? []);
  fillForm(request);
}

async function takeAll(picture) {
  fill({ ...picture.request, seed: json.number(picture.seed) });
  if (picture.image) await startFrom(picture.image, picture.mask);
  else if (startPicture()) removeStart();
}

async function copyLink() {
  const link = linkOf(formRequest().request);
  history.replaceState(null, "", link);
  const isCopied = await copied(link);
  const what = startPicture() ? "The link, without the picture," : "The link";
  notice("link", `${what} stands in the address bar${isCopied ? ", and is copied" : ""}.`);
}

function takeLink() {
  const found = requestOf(location.hash);
  if (!found) return false;
  fill(found.request);
  if (found.unknown.length) {
    notice("link", "Of the link this is not known, or no value of its field:", {
      kind: "bad",
      items: found.unknown.map((name) => el("li", { text: name })),
    });
  }
  return true;
}

function takeKept() {
  const kept = sessionStorage.getItem(KEPT);
  if (kept) fill(json.read(kept));
  return Boolean(kept);
}

// The form is filled once more when the model's own defaults are known: they stand in what neither
// the link nor the tab's last form says.
function takeDefaults(found) {
  if (defaults) return;
  defaults = found;
  if (!Object.keys(found).length) return;
  const typed = Object.fromEntries(TEXTS.map((name) => [name, byId(name).value]));
  setDefaults(found);
  if (takeLink() || takeKept()) return;
  fill(Object.fromEntries(Object.entries(typed).filter(([, text]) => text)));
}

async function finished(picture) {
  lastSeed = json.number(picture.seed);
  byId("seed-last").disabled = false;
  await gallery;
  try {
    await addPicture(picture);
  } catch {
    notice("full", "The browser has no room for more pictures: this one is not kept.", {
      kind: "bad",
    });
    showPicture(picture);
  }
}

function start() {
  build();
  setDrawing({ onPicture: finished, onError: (error) => showError(error.field, error.message) });
  setActions({
    again: (picture) => draw(withSeed(picture, null)),
    start: (picture) => startFrom(picture.file),
    settings: takeAll,
    remove: removePicture,
  });
  gallery = buildGallery(showPicture);
  addEventListener("hashchange", takeLink);
  if (!takeLink()) takeKept();
  inspectSoon();
  buildState((info) => {
    setInfo(info);
    takeDefaults(info.model.defaults);
    setOffered(info);
    setMostBytes(info.limits.max_image_bytes);
  });
  byId("prompt").focus({ preventScroll: true });
}

start();
