// What a picture is drawn from: the request's fields, and the files of a start and of a mask.

import { base64Of } from "./stream.js";

// A recipe is {request, image, mask}: fields of /generate without pictures, and Blobs or null.
export async function bodyOf({ request, image, mask }) {
  const body = { ...request };
  if (image) body.image = await base64Of(image);
  if (image && mask) body.mask_image = await base64Of(mask);
  return body;
}

export function withSeed(recipe, seed) {
  const request = { ...recipe.request };
  if (seed === null) delete request.seed;
  else request.seed = seed;
  return { ...recipe, request };
}

// Several pictures of one recipe: seeds that follow, or new ones.
export function several(recipe, count) {
  const first = recipe.request.seed ?? null;
  return Array.from({ length: count }, (_, index) => {
    if (first === null) return recipe;
    const next = BigInt(first) + BigInt(index);
    return withSeed(recipe, next <= Number.MAX_SAFE_INTEGER ? Number(next) : next);
  });
}
