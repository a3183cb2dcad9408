// The picture that a drawing starts from, and the mask that is painted on it.

import { bytes, button, byId, el } from "./dom.js";
import { MaskEditor } from "./mask.js";
import { notice } from "./notices.js";

const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp"];
let file = null;
let editor = null;
let changed = () => {};
let mostBytes = Infinity;

// Builds the part of the form that takes a picture; `onChanged` gets has_picture, has_mask and sides.
export function buildStart(onChanged) {
  changed = onChanged;
  const input = el("input", {
    type: "file",
    id: "start-file",
    accept: "image/*",
    class: "unseen",
    on: {
      change: () => {
        if (input.files[0]) startFrom(input.files[0]);
        input.value = "";
      },
    },
  });
  return el(
    "div",
    { id: "start" },
    el(
      "div",
      { class: "row" },
      input,
      el("label", { for: "start-file", class: "button", text: "Choose a picture" }),
      el("span", { class: "hint", text: "or drop or paste one" }),
    ),
    el("p", { class: "error", id: "image-error", hidden: true }),
    el("p", { class: "error", id: "mask_image-error", hidden: true }),
    el("div", { id: "start-area" }),
  );
}

export function setMostBytes(count) {
  mostBytes = count;
}

export function startPicture() {
  return file;
}

export async function maskPicture() {
  return editor?.hasMask ? editor.file() : null;
}

// Takes a picture as the start, and shows it with an empty mask, or with the one it was drawn with.
export async function startFrom(picked, mask = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(picked);
  } catch {
    notice("start", "This browser can't read that file as a picture.", { kind: "bad" });
    return;
  }
  const sent = SENT_AS_IS.includes(picked.type) ? picked : await asPng(bitmap);
  if (sent.size > mostBytes) {
    notice("start", `The picture has ${bytes(sent.size)}; this server takes ${bytes(mostBytes)}.`, {
      kind: "bad",
    });
    return;
  }
  file = sent;
  editor = new MaskEditor(bitmap, (hasMask) => changed({ has_mask: hasMask }));
  byId("start-area").replaceChildren(
    editor.node,
    el("p", {
      class: "hint",
      text: `${bitmap.width} × ${bitmap.height}. Paint over what is to be drawn anew; without a mask all of it is.`,
    }),
    button("Remove the picture", removeStart),
  );
  byId("group-picture").open = true;
  const [width, height] = [bitmap.width, bitmap.height].map((side) => String(side - (side % 8)));
  changed({ has_picture: true, has_mask: false, sides: { width, height } });
  if (mask) await editor.load(mask);
}

export function removeStart() {
  file = null;
  editor = null;
  byId("start-area").replaceChildren();
  changed({ has_picture: false, has_mask: false, sides: null });
  byId("start-file").focus({ preventScroll: true });
}

async function asPng(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
