// The gallery: small pictures, the newest first, moved through with the arrow keys.

import { announce, button, byId, el } from "./dom.js";
import { GalleryStore } from "./gallery_store.js";
import { notice } from "./notices.js";

let store = null;
let list = null; // of buttons, in a list
let show = () => {};
const pictures = new Map(); // by id
const addresses = new Map();

export async function buildGallery(onShow) {
  show = onShow;
  list = el("ul", { class: "thumbs", "aria-label": "Earlier pictures", on: { keydown: move } });
  byId("gallery").append(
    el(
      "div",
      { class: "label-line gallery-head", hidden: true },
      el("h2", { text: "Earlier pictures" }),
      button("Delete all", removeAll, { class: "quiet" }),
    ),
    list,
  );
  store = await GalleryStore.open();
  for (const picture of await store.all()) place(picture);
  head();
  const newest = [...pictures.values()].at(-1);
  if (newest) pick(newest.id, false);
}

export async function addPicture(picture) {
  const [id, dropped] = await store.add(picture);
  for (const old of dropped) takeOut(old);
  place({ ...picture, id });
  head();
  pick(id, false);
}

export async function removePicture({ id }) {
  const picture = pictures.get(id);
  if (!picture) return;
  const next = neighbour(id, 1) ?? neighbour(id, -1);
  await store.remove(id);
  takeOut(id);
  head();
  if (next) pick(next, true);
  else show(null);
  const undo = async () => {
    await store.put(picture);
    place(picture);
    head();
    pick(id, true);
  };
  notice("deleted", "The picture is deleted.", { actions: [["Undo", undo]] });
  announce("The picture is deleted.");
}

async function removeAll() {
  if (!confirm(`Delete all ${pictures.size} pictures of this page from this browser?`)) return;
  await store.clear();
  for (const id of [...pictures.keys()]) takeOut(id);
  head();
  show(null);
}

function place(picture) {
  pictures.set(picture.id, picture);
  addresses.set(picture.id, URL.createObjectURL(picture.file));
  const thumb = el(
    "button",
    {
      type: "button",
      class: "thumb",
      "data-id": String(picture.id),
      tabindex: "-1",
      title: picture.request.prompt.slice(0, 200),
      on: { click: () => pick(picture.id, true) },
    },
    el("img", {
      src: addresses.get(picture.id),
      alt: `Picture of: ${picture.request.prompt.slice(0, 100)}`,
      loading: "lazy",
    }),
  );
  const items = [...list.children];
  const behind = items.find((one) => Number(one.firstChild.dataset.id) < picture.id);
  list.insertBefore(el("li", {}, thumb), behind ?? null);
}

function takeOut(id) {
  URL.revokeObjectURL(addresses.get(id));
  addresses.delete(id);
  pictures.delete(id);
  thumbOf(id)?.parentElement.remove();
}

function head() {
  byId("gallery").querySelector(".gallery-head").hidden = pictures.size === 0;
}

function pick(id, focuses) {
  for (const thumb of list.querySelectorAll(".thumb")) {
    const isPicked = thumb.dataset.id === String(id);
    thumb.tabIndex = isPicked ? 0 : -1;
    if (isPicked) thumb.setAttribute("aria-current", "true");
    else thumb.removeAttribute("aria-current");
    if (isPicked && focuses) thumb.focus();
  }
  show(pictures.get(id));
}

function move(event) {
  const now = Number(event.target.closest(".thumb")?.dataset.id);
  const ids = [...list.querySelectorAll(".thumb")].map((thumb) => Number(thumb.dataset.id));
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const target =
    { Home: ids[0], End: ids.at(-1) }[event.key] ?? (step && ids[ids.indexOf(now) + step]);
  if (event.key === "Delete") removePicture({ id: now });
  else if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  else pick(target, true);
  event.preventDefault();
}

function neighbour(id, step) {
  const item = thumbOf(id)?.parentElement;
  const other = step > 0 ? item?.nextElementSibling : item?.previousElementSibling;
  return other && Number(other.firstChild.dataset.id);
}

function thumbOf(id) {
  return list.querySelector(`[data-id="${Number(id)}"]`);
}
