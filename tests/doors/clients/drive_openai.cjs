// Every call of images and models of OpenAI's client for JavaScript: drive_openai.cjs URL. Prints JSON.
"use strict";
const { default: OpenAI, toFile, APIError } = require("openai");

const [url] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any" });
const own = { seed: 7, steps: 2, size: "64x64" };
const outcomes = {};

async function call(name, work) {
  try {
    outcomes[name] = await work();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, type, param, code } = error;
    outcomes[name] = { status, type, param, code };
  }
}

/** The kind of each picture of an answer, by its first bytes. */
function kinds(answer) {
  return answer.data.map((one) => {
    const head = Buffer.from(one.b64_json, "base64").toString("latin1", 0, 12);
    return head.startsWith("\x89PNG") ? "PNG" : head.startsWith("RIFF") ? "WEBP" : "JPEG";
  });
}

async function types(stream) {
  const found = [];
  for await (const event of await stream) if (event.b64_json) found.push(event.type);
  return found;
}

/** How often a request is sent that always fails so. */
async function attempts(fields) {
  let count = 0;
  const counting = new OpenAI({
    baseURL: `${url}/v1`, apiKey: "any",
    fetch: (...all) => { count += 1; return fetch(...all); },
  });
  try {
    await counting.images.generate({ prompt: "a", ...fields });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return [error.status, count];
  }
  return "drawn";
}

const generate = (fields) => client.images.generate({ prompt: "a red circle", ...own, ...fields });
const edit = (fields) => client.images.edit({ prompt: "a blue circle", ...own, ...fields });

async function main() {
  let picture;
  await call("alone", async () => {
    const answer = await generate({});
    picture = Buffer.from(answer.data[0].b64_json, "base64");
    return kinds(answer);
  });
  const file = () => toFile(picture, "in.png", { type: "image/png" });
  await call("models", async () => {
    const found = [];
    for await (const one of client.models.list()) found.push(one.id);
    return found;
  });
  await call("model", async () => (await client.models.retrieve("sdxl")).object);
  await call("other model", () => client.models.retrieve("gpt-image-1"));
  await call("several", async () => kinds(await generate({ n: 2, quality: "hd", style: "vivid" })));
  await call("webp", async () => kinds(await generate({ model: "gpt-image-1", output_format: "webp",
    output_compression: 80, background: "opaque", moderation: "low" })));
  await call("again", async () =>
    (await generate({})).data[0].b64_json === picture.toString("base64"));
  await call("url", async () => {
    const answer = await generate({ model: "dall-e-3" });
    const response = await fetch(answer.data[0].url);
    return Buffer.from(await response.arrayBuffer()).equals(picture);
  });
  await call("usage", async () => (await generate({})).usage.total_tokens);
  await call("seed", async () => {
    const { data, response } = await generate({}).withResponse();
    return [data.data[0].seed, response.headers.get("x-seed")];
  });
  await call("stream", () => types(generate({ stream: true })));
  await call("previews", async () => (await types(generate(
    { stream: true, partial_images: 2, steps: 40 }))).at(-1));
  await call("edit", async () => kinds(await edit({ image: await file() })));
  await call("edit of two", async () => kinds(await edit({ image: [await file(), await file()] })));
  await call("edit with mask", async () =>
    kinds(await edit({ image: await file(), mask: await file(), n: 2 })));
  await call("edit by stream", async () => types(edit({ image: await file(), stream: true })));
  await call("variation", async () => client.images.createVariation({ image: await file() }));
  await call("bad size", () => generate({ size: "9000x64" }));
  await call("no such lora", () => generate({ loras: [{ name: "absent", weight: 0.5 }] }));
  await call("no such lora in a form", async () =>
    edit({ image: await file(), loras: [{ name: "absent", weight: 0.5 }] }));
  await call("error in a stream", () => types(generate({ stream: true, loras: "absent" })));
  await call("transparent", () => generate({ background: "transparent" }));
  await call("too late", () => attempts({ ...own, size: "128x128", deadline_s: 0.001 }));
  await call("cancelled", async () => {
    const stream = await generate({ stream: true, steps: 100, size: "128x128" });
    stream.controller.abort();
    return "aborted";
  });
  console.log(JSON.stringify(outcomes));
}

main();
