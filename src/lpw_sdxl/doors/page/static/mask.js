// A brush over a picture: what is painted becomes a mask, white on black, of the picture's ratio.
//
// With the keyboard the arrow keys move the brush, Shift and an arrow paint on the way, Space
// paints, and E changes between brush and eraser.

import { button, el } from "./dom.js";

const LONGEST_SIDE = 1536; // of the mask; the server stretches it to the picture
const MOST_UNDONE = 20;
const COLOUR = "#e0218a"; // seen on any picture; the file is white on black

export class MaskEditor {
  // `onChange` gets whether anything is painted.
  constructor(bitmap, onChange) {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    this.width = Math.max(1, Math.round(bitmap.width * scale));
    this.height = Math.max(1, Math.round(bitmap.height * scale));
    this.onChange = onChange;
    this.hasMask = false;
    this.erases = false;
    this.undone = [];
    this.brush = {
      x: this.width / 2,
      y: this.height / 2,
      radius: Math.max(this.width, this.height) / 14,
    };
    const below = this.canvas({ class: "mask-picture", "aria-hidden": "true" });
    below.getContext("2d").drawImage(bitmap, 0, 0, this.width, this.height);
    this.layer = this.canvas({
      class: "mask-layer",
      id: "mask",
      tabindex: "0",
      role: "img",
      "aria-label":
        "Mask: arrow keys move the brush, Space paints, Shift and arrows paint a line, E erases",
    });
    this.paint = this.layer.getContext("2d", { willReadFrequently: true });
    this.ring = el("span", { class: "brush", "aria-hidden": "true" });
    this.node = el(
      "div",
      { class: "mask" },
      el("div", { class: "mask-canvases" }, below, this.layer, this.ring),
      this.tools(),
    );
    this.listen();
  }

  canvas(given) {
    return el("canvas", { width: this.width, height: this.height, ...given });
  }

  tools() {
    this.size = el("input", {
      type: "range",
      id: "brush-size",
      min: "1",
      max: "40",
      value: "7",
      on: { input: () => this.resize() },
    });
    this.eraser = button("Erase", () => this.toggle(), { "aria-pressed": "false" });
    return el(
      "div",
      { class: "row mask-tools" },
      el("label", { for: "brush-size", text: "Brush" }),
      this.size,
      this.eraser,
      button("Undo", () => this.undo()),
      button("Clear", () => this.clear()),
    );
  }

  listen() {
    const { layer } = this;
    layer.addEventListener("pointerdown", (event) => {
      layer.setPointerCapture(event.pointerId);
      this.remember();
      this.moveTo(event);
      this.stroke(this.brush, this.brush);
      this.isPainting = true;
    });
    layer.addEventListener("pointermove", (event) => {
      const from = { ...this.brush };
      this.moveTo(event);
      if (this.isPainting) this.stroke(from, this.brush);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      layer.addEventListener(end, () => {
        if (this.isPainting) this.changed();
        this.isPainting = false;
      });
    }
    layer.addEventListener("keydown", (event) => this.press(event));
    layer.addEventListener("focus", () => this.place());
    new ResizeObserver(() => this.place()).observe(layer);
  }

  moveTo(event) {
    const box = this.layer.getBoundingClientRect();
    this.brush.x = ((event.clientX - box.left) / box.width) * this.width;
    this.brush.y = ((event.clientY - box.top) / box.height) * this.height;
    this.place();
  }

  press(event) {
    const step = Math.max(2, this.brush.radius / 2);
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key
    ];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way) {
      const from = { ...this.brush };
      this.brush.x = Math.min(this.width, Math.max(0, from.x + way[0] * step));
      this.brush.y = Math.min(this.height, Math.max(0, from.y + way[1] * step));
      if (event.shiftKey) this.dab(from);
    } else if (event.key === " ") {
      this.dab(this.brush);
    } else if (event.key.toLowerCase() === "e") {
      this.toggle();
    } else {
      return;
    }
    event.preventDefault();
    this.place();
  }

  dab(from) {
    this.remember();
    this.stroke(from, this.brush);
    this.changed();
  }

  stroke(from, to) {
    const { paint } = this;
    paint.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
    paint.strokeStyle = COLOUR;
    paint.lineCap = "round";
    paint.lineJoin = "round";
    paint.lineWidth = 2 * this.brush.radius;
    paint.beginPath();
    paint.moveTo(from.x, from.y);
    paint.lineTo(to.x, to.y + 0.01);
    paint.stroke();
  }

  resize() {
    this.brush.radius = (Math.max(this.width, this.height) * this.size.valueAsNumber) / 100;
    this.place();
  }

  // Shows the brush where it is.
  place() {
    const scale = this.layer.clientWidth / this.width;
    const { style } = this.ring;
    style.inlineSize = style.blockSize = `${2 * this.brush.radius * scale}px`;
    style.left = `${(this.brush.x - this.brush.radius) * scale}px`;
    style.top = `${(this.brush.y - this.brush.radius) * scale}px`;
  }

  toggle() {
    this.erases = !this.erases;
    this.eraser.setAttribute("aria-pressed", String(this.erases));
  }

  remember() {
    this.undone.push(this.paint.getImageData(0, 0, this.width, this.height));
    if (this.undone.length > MOST_UNDONE) this.undone.shift();
  }

  undo() {
    const last = this.undone.pop();
    if (last) this.paint.putImageData(last, 0, 0);
    this.changed();
  }

  clear() {
    this.remember();
    this.paint.clearRect(0, 0, this.width, this.height);
    this.changed();
  }

  changed() {
    const { data } = this.paint.getImageData(0, 0, this.width, this.height);
    const before = this.hasMask;
    this.hasMask = data.some((value, index) => index % 4 === 3 && value > 0);
    if (this.hasMask !== before) this.onChange(this.hasMask);
  }

  // Takes the mask of an earlier picture, white on black.
  async load(mask) {
    const source = new OffscreenCanvas(this.width, this.height).getContext("2d");
    source.drawImage(await createImageBitmap(mask), 0, 0, this.width, this.height);
    const pixels = source.getImageData(0, 0, this.width, this.height);
    for (let place = 0; place < pixels.data.length; place += 4) {
      pixels.data[place + 3] = pixels.data[place];
    }
    this.paint.putImageData(pixels, 0, 0);
    this.paint.globalCompositeOperation = "source-in";
    this.paint.fillStyle = COLOUR;
    this.paint.fillRect(0, 0, this.width, this.height);
    this.changed();
  }

  // The mask as a PNG.
  async file() {
    const canvas = new OffscreenCanvas(this.width, this.height);
    const drawn = canvas.getContext("2d");
    const fill = (how, colour) => {
      drawn.globalCompositeOperation = how;
      drawn.fillStyle = colour;
      drawn.fillRect(0, 0, this.width, this.height);
    };
    drawn.drawImage(this.layer, 0, 0);
    fill("source-in", "#fff");
    fill("destination-over", "#000");
    return canvas.convertToBlob({ type: "image/png" });
  }
}
