// Requests to the server of this page: addresses, the token, and errors as they are answered.
//
// The page lies at /ui, so that `generate` is /generate, and is right behind any prefix too.

import * as json from "./json.js";
import { askForToken, storedToken } from "./token.js";

// An answer that is no success: its status, and code, message and field as the server has them.
export class Refusal extends Error {
  constructor(status, { code, message, field }, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.field = field;
    this.retryAfter = retryAfter; // seconds, or null
  }
}

// No answer at all: the server is gone, or the network.
export class Unreachable extends Error {}

export async function post(path, body, { signal } = {}) {
  const answer = await ask(path, { method: "POST", body: json.write(body), signal });
  return json.read(await reading(answer.text(), signal));
}

// Sends a request until it has a token that the server takes; returns the answer, not read yet.
export async function ask(path, { method, body, signal }) {
  for (;;) {
    const token = storedToken();
    const headers = new Headers();
    if (body !== undefined) headers.set("content-type", "application/json");
    if (token) headers.set("authorization", `Bearer ${token}`);
    const sent = fetch(path, { method, body, signal, headers, credentials: "omit" });
    const answer = await reading(sent, signal);
    if (answer.ok) return answer;
    const refusal = await refusalOf(answer);
    if (refusal.status !== 401) throw refusal;
    await askForToken(token, signal);
  }
}

// Waits for a part of an answer; what fails on the way is Unreachable, but not what was cancelled.
export async function reading(promise, signal) {
  try {
    return await promise;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("The server does not answer.", { cause: error });
  }
}

async function refusalOf(answer) {
  let error = null;
  try {
    error = (await answer.json()).error;
  } catch {
    // a proxy's own page, which says less than its status
  }
  const unknown = { code: "unknown", message: `The answer was ${answer.status}.`, field: null };
  const retryAfter = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
  return new Refusal(
    answer.status,
    typeof error?.message === "string" ? error : unknown,
    Number.isNaN(retryAfter) ? null : retryAfter,
  );
}
