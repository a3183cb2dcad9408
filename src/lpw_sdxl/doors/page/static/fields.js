// The fields of a request that the form has, as a table: one row makes a control, reads it into a
// request, and fills it from one. Prompts, LoRAs and pictures have parts of the page of their own.

const k = (form) => form.sampler_implementation === "k_diffusion";
const own = (name) => (name ? `own: ${name}` : "to be chosen");

function samplers(info, form) {
  if (k(form)) return [["", own(info.k_diffusion.own_sampler)], ...info.k_diffusion.samplers];
  return [["", own(info.own_scheduler)], ...info.schedulers];
}

function schedules(info, form) {
  if (k(form)) return [["", "Automatic"], ...info.k_diffusion.schedule_types.slice(1)];
  return [["", own(info.own_schedule_type)], ...info.schedule_types];
}

const asFirst = (list) => [["", "as in the first pass"], ...list.slice(1)];
const native = (info, index) => info.model.native_size.split("x")[index];

// Groups in their order: [name, title, whether it can be folded].
export const GROUPS = [
  ["size", "Size and steps", false],
  ["sampler", "Sampler", false],
  ["seed", "Seed", false],
  ["picture", "Start from a picture", true],
  ["hires", "Second, larger pass", true],
  ["more", "More", true],
];

// kind: whole, real, choice, check, text or interval. `unset` is the request's value for an empty
// control; `needs` says which of the form's values a field goes with, else it is not sent.
export const FIELDS = [
  { name: "width", group: "size", label: "Width", kind: "whole", min: 64, step: 8, unset: null,
    placeholder: (info) => native(info, 0) },
  { name: "height", group: "size", label: "Height", kind: "whole", min: 64, step: 8, unset: null,
    placeholder: (info) => native(info, 1) },
  { name: "num_inference_steps", group: "size", label: "Steps", kind: "whole", min: 1, unset: 30,
    max: (info) => info.limits.max_steps },
  { name: "guidance_scale", group: "size", label: "Guidance", kind: "real", min: 0, max: 100,
    step: 0.5, unset: 5 },
  { name: "prompt_style", group: "sampler", label: "Prompt style", kind: "choice", unset: "lpw",
    options: (info) => info.prompt_styles },
  { name: "sampler_implementation", group: "sampler", label: "Samplers of", kind: "choice",
    unset: "diffusers", options: () => [["diffusers", "Diffusers"], ["k_diffusion", "A1111 and Forge"]] },
  { name: "scheduler", group: "sampler", label: "Sampler", kind: "choice", unset: null,
    options: samplers },
  { name: "schedule_type", group: "sampler", label: "Schedule type", kind: "choice", unset: null,
    options: schedules },
  { name: "seed", group: "seed", label: "Seed", kind: "whole", min: 0, unset: null,
    placeholder: () => "a new one each time" },
  { name: "variation_strength", group: "seed", label: "Variation", kind: "real", min: 0, max: 1,
    step: 0.05, unset: 0, needs: k },
  { name: "variation_seed", group: "seed", label: "Variation seed", kind: "whole", min: 0,
    unset: null, needs: k, placeholder: () => "a new one" },

  { name: "strength", group: "picture", label: "Strength", kind: "real", min: 0, max: 1, step: 0.05,
    unset: 0.75, needs: (form) => form.has_picture },
  { name: "resize_mode", group: "picture", label: "Another ratio is", kind: "choice",
    unset: "stretch", needs: (form) => form.has_picture,
    options: () => [["stretch", "stretched"], ["crop", "cropped"], ["fill", "filled at its edges"]] },
  { name: "mask_blur", group: "picture", label: "Mask blur", kind: "real", min: 0, max: 256,
    unset: 0, needs: (form) => form.has_mask },
  { name: "masked_content", group: "picture", label: "Painted from", kind: "choice",
    unset: "original", needs: (form) => form.has_mask,
    options: () => [["original", "what is there"], ["fill", "its surroundings"],
      ["latent_noise", "noise"], ["latent_nothing", "nothing"]] },
  { name: "only_masked", group: "picture", label: "Only around the mask, in full size",
    kind: "check", unset: false, needs: (form) => form.has_mask },
  { name: "only_masked_padding", group: "picture", label: "Around it, pixels", kind: "whole", min: 0,
    max: 1024, unset: 32, needs: (form) => form.has_mask && form.only_masked },
  { name: "invert_mask", group: "picture", label: "Paint over what is not masked", kind: "check",
    unset: false, needs: (form) => form.has_mask },
  { name: "paste_back", group: "picture", label: "Put back what the mask keeps", kind: "check",
    unset: true, needs: (form) => form.has_mask },

  { name: "hires", group: "hires", label: "Draw again at a larger size", kind: "check", unset: false,
    needs: (form) => !form.has_picture },
  ...[
    { name: "scale", label: "Scale", kind: "real", min: 1, max: 8, step: 0.25, unset: null,
      placeholder: () => "2" },
    { name: "upscaler", label: "Enlarged by", kind: "choice", unset: "latent",
      options: (info) => info.upscalers },
    { name: "strength", label: "Strength", kind: "real", min: 0, max: 1, step: 0.05, unset: 0.75 },
    { name: "steps", label: "Steps", kind: "whole", min: 0, unset: null,
      placeholder: () => "as in the first pass" },
    { name: "width", label: "Width, not scale", kind: "whole", min: 64, step: 8, unset: null },
    { name: "height", label: "Height, not scale", kind: "whole", min: 64, step: 8, unset: null },
    { name: "guidance_scale", label: "Guidance", kind: "real", min: 0, max: 100, step: 0.5,
      unset: null, placeholder: () => "as in the first pass" },
    { name: "scheduler", label: "Sampler", kind: "choice", unset: null,
      options: (info, form) => asFirst(samplers(info, form)) },
    { name: "schedule_type", label: "Schedule type", kind: "choice", unset: null,
      options: (info, form) => asFirst(schedules(info, form)) },
    { name: "prompt", label: "Prompt", kind: "text", unset: null, placeholder: () => "as in the first pass" },
    { name: "negative_prompt", label: "Negative prompt", kind: "text", unset: null,
      placeholder: () => "as in the first pass" },
  ].map((field) => ({
    ...field, name: `hires.${field.name}`, group: "hires",
    needs: (form) => form.hires && !form.has_picture,
  })),

  { name: "guidance_rescale", group: "more", label: "Guidance rescale", kind: "real", min: 0, max: 1,
    step: 0.05, unset: 0 },
  { name: "guidance_interval", group: "more", label: "Guidance interval", kind: "interval",
    unset: null, placeholder: () => "0 to 1, such as 0.2, 0.8" },
  { name: "clip_skip", group: "more", label: "Clip skip beyond the default", kind: "whole", min: 0,
    max: 32, unset: null },
  { name: "image_format", group: "more", label: "File", kind: "choice", unset: "png",
    options: () => [["png", "PNG"], ["jpeg", "JPEG"], ["webp", "WebP"]] },
  { name: "deadline_s", group: "more", label: "Give up after, seconds", kind: "real", min: 0,
    unset: null },
  { name: "eta", group: "more", label: "Eta", kind: "real", min: 0, max: 1, step: 0.05, unset: null,
    needs: k },
  { name: "noise_source", group: "more", label: "Noise as drawn by", kind: "choice", unset: null,
    needs: k, options: () => [["", "a CPU"], ["nv", "an NVIDIA card"], ["cpu", "a CPU, as named"]] },
  { name: "timestep_rounding", group: "more", label: "Timesteps", kind: "choice", unset: null,
    needs: k, options: () => [["", "between, as in A1111"], ["nearest", "nearest, as in Forge"],
      ["interpolate", "between, as named"]] },
  { name: "eta_noise_seed_delta", group: "more", label: "Added to the seed of noise (ENSD)",
    kind: "whole", unset: 0, needs: k },
];

export const FIELD_OF = new Map(FIELDS.map((field) => [field.name, field]));

// Fields of a request with a part of the page of their own.
export const OTHERS = ["prompt", "negative_prompt", "loras"];
