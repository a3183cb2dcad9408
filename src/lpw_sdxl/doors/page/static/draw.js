// Pictures under way: sent a few at a time, followed over their streams, tried again when the queue
// is full, and cancelled by closing the stream.

import { Refusal, Unreachable } from "./api.js";
import { announce } from "./dom.js";
import { FIELD_OF } from "./fields.js";
import { JobCard } from "./job_card.js";
import { bodyOf } from "./recipe.js";
import { fileOf, pictureEvents } from "./stream.js";
import { NoToken } from "./token.js";

const AT_ONCE = 4; // a browser has six connections to a server, and others need some
const MOST_TRIES = 20;
const BUSY = [429, 503];

const waiting = [];
const running = [];
const speeds = []; // seconds from the first call to the picture, newest last
let done = () => {};
let wrong = () => false;

// `onPicture` is called with each finished picture, `onError` with a refusal that names a field;
// the latter returns whether the form shows it.
export function setDrawing({ onPicture, onError }) {
  done = onPicture;
  wrong = onError;
}

export function draw(recipe) {
  const job = { recipe, controller: new AbortController(), card: null };
  job.card = new JobCard(recipe, { cancel: () => cancel(job), again: () => draw(recipe) });
  waiting.push(job);
  startNext();
}

// Cancels what was begun last; returns whether there was any.
export function cancelLast() {
  const last = waiting.at(-1) ?? running.at(-1);
  if (last) cancel(last);
  return Boolean(last);
}

// The mean of the last pictures' seconds, or null before the first.
export function recentSeconds() {
  return speeds.length ? speeds.reduce((sum, one) => sum + one, 0) / speeds.length : null;
}

function cancel(job) {
  job.controller.abort();
  const place = waiting.indexOf(job);
  if (place >= 0) {
    waiting.splice(place, 1);
    job.card.cancelled();
  }
}

function startNext() {
  while (waiting.length && running.length < AT_ONCE) {
    const job = waiting.shift();
    running.push(job);
    run(job).finally(() => {
      running.splice(running.indexOf(job), 1);
      startNext();
    });
  }
}

async function run(job) {
  const { signal } = job.controller;
  for (let tries = 1; ; tries += 1) {
    try {
      await follow(job, signal);
      return;
    } catch (error) {
      if (signal.aborted) {
        job.card.cancelled();
        announce("Cancelled.");
        return;
      }
      const isBusy = error instanceof Refusal && BUSY.includes(error.status);
      if (!isBusy || tries === MOST_TRIES) {
        fail(job, error);
        return;
      }
      await rest(job, error, signal);
    }
  }
}

async function follow(job, signal) {
  const { recipe, card } = job;
  card.sending();
  const request = await bodyOf(recipe);
  request.preview_every = previewEvery(request.num_inference_steps ?? FIELD_OF.get("num_inference_steps").unset);
  let begun = null;
  for await (const { name, data } of pictureEvents(request, signal)) {
    if (name === "queued") {
      card.queued(data);
    } else if (name === "progress") {
      begun ??= performance.now();
      card.progress(data, data.preview === null ? null : fileOf(data.preview, "image/jpeg"));
    } else if (name === "error") {
      throw new Refusal(0, data.error, null);
    } else if (name === "image") {
      finish(job, data, begun);
      return;
    }
  }
  throw new Unreachable("The connection ended before the picture was done.");
}

function finish({ recipe, card }, data, begun) {
  if (begun !== null) speeds.push((performance.now() - begun) / 1000);
  if (speeds.length > 8) speeds.shift();
  card.remove();
  announce(`The picture is done: ${data.width} by ${data.height}, seed ${data.seed}.`);
  done({
    ...recipe,
    file: fileOf(data.image, data.media_type),
    mediaType: data.media_type,
    width: data.width,
    height: data.height,
    seed: String(data.seed),
    parameters: data.parameters,
    created: Date.now(),
  });
}

function fail(job, error) {
  const known = [Refusal, Unreachable, NoToken].some((kind) => error instanceof kind);
  if (!known) console.error(error);
  const message = known ? error.message : "The page failed; the browser's console has more.";
  const isShown = error instanceof Refusal && error.field && wrong(error);
  job.card.failed(message, { code: error.code, isShown });
  announce(message);
}

// Waits until the server says that there should be room.
async function rest(job, error, signal) {
  const until = performance.now() + (error.retryAfter ?? 5) * 1000;
  while (performance.now() < until && !signal.aborted) {
    job.card.busy(error.message, Math.ceil((until - performance.now()) / 1000));
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

// Four previews a picture; in long ones, one every ten calls.
function previewEvery(steps) {
  return Math.min(10, Math.max(2, Math.ceil(steps / 4)));
}
