// The events of /generate_stream, read from an answer that comes in pieces.

import { ask, reading } from "./api.js";
import * as json from "./json.js";

const EVENT = /^event: (.*)\ndata: (.*)$/; // anything else is a comment, which keeps it open

// Yields {name, data} until the server ends the stream.
export async function* pictureEvents(request, signal) {
  const body = json.write(request);
  const answer = await ask("generate_stream", { method: "POST", body, signal });
  const pieces = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reading(pieces.read(), signal);
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop(); // not complete yet
    for (const event of events) {
      const found = EVENT.exec(event);
      if (found) yield { name: found[1], data: json.read(found[2]) };
    }
  }
}

// The file that a base64 text holds.
export function fileOf(base64, type) {
  const text = atob(base64);
  const content = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) content[index] = text.charCodeAt(index);
  return new Blob([content], { type });
}

// The base64 text of a file.
export async function base64Of(file) {
  const content = new Uint8Array(await file.arrayBuffer());
  const pieces = [];
  for (let start = 0; start < content.length; start += 32766) {
    const piece = content.subarray(start, start + 32766); // of 3 bytes each, so no padding between
    pieces.push(btoa(String.fromCharCode(...piece)));
  }
  return pieces.join("");
}
