// One picture under way, as the page shows it: place in the queue, progress, preview, or its error.

import { button, byId, el, plural, seconds } from "./dom.js";

export class JobCard {
  constructor({ request }, { cancel, again }) {
    this.preview = el("img", { alt: "Preview", hidden: true });
    this.bar = el("progress", { "aria-label": "Progress", max: "1" });
    this.text = el("p", { class: "job-text", text: "Waiting in this page" });
    this.stop = button("Cancel", cancel, { class: "cancel" });
    this.again = again;
    this.quarter = 0;
    this.node = el(
      "article",
      { class: "job", "aria-label": "Picture under way" },
      el("div", { class: "job-preview" }, this.preview),
      el(
        "div",
        { class: "job-facts" },
        el("p", { class: "job-prompt", text: request.prompt }),
        this.bar,
        this.text,
        el("div", { class: "row" }, this.stop),
      ),
    );
    byId("jobs").append(this.node);
  }

  sending() {
    this.say("Sent to the server");
  }

  queued({ place, wait_s: wait }) {
    const expected = wait ? `, about ${seconds(wait)}` : "";
    this.say(place ? `Queued behind ${plural(place, "picture")}${expected}` : "Next in the queue");
    this.node.dataset.place = String(place);
  }

  busy(message, left) {
    this.say(`${message} Trying again in ${left} s.`);
    this.node.dataset.state = "busy";
  }

  progress({ call, calls, step, steps, seconds_left: left }, preview) {
    this.node.dataset.state = "running";
    this.bar.value = call / calls;
    const rest = left === null ? "" : `, ${seconds(left)} left`;
    this.say(`Step ${step} of ${steps}${rest}`);
    const quarter = Math.floor((4 * call) / calls);
    if (quarter > this.quarter && quarter < 4) byId("live").textContent = `${25 * quarter} percent`;
    this.quarter = quarter;
    if (preview) this.show(preview);
  }

  show(preview) {
    const old = this.preview.src;
    this.preview.src = URL.createObjectURL(preview);
    this.preview.hidden = false;
    this.node.dataset.previews = String(Number(this.node.dataset.previews ?? 0) + 1);
    if (old) URL.revokeObjectURL(old);
  }

  cancelled() {
    this.node.dataset.state = "cancelled";
    this.say("Cancelled");
    this.end();
    setTimeout(() => this.remove(), 2000);
  }

  failed(message, { code, isShown }) {
    this.node.dataset.state = "failed";
    if (code) this.node.dataset.code = code;
    this.say(message);
    this.text.classList.add("error");
    this.end();
    const again = button("Try again", () => {
      this.remove();
      this.again();
    });
    if (!isShown) this.stop.before(again);
    this.stop.replaceWith(button("Close", () => this.remove(), { class: "cancel" }));
  }

  end() {
    this.bar.hidden = true;
  }

  remove() {
    if (this.preview.src) URL.revokeObjectURL(this.preview.src);
    const hadFocus = this.node.contains(document.activeElement);
    this.node.remove();
    if (hadFocus) byId("draw").focus();
  }

  say(text) {
    if (this.text.textContent !== text) this.text.textContent = text;
  }
}
