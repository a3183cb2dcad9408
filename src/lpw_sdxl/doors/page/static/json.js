// JSON with whole numbers of any length: a seed may have 64 bits, a Number of JavaScript has 53.

const MARK = "\u0000whole:";
const MARKED = /"\\u0000whole:(-?\d+)"/g;

export function write(value) {
  const marked = (_key, one) => (typeof one === "bigint" ? MARK + one : one);
  return JSON.stringify(value, marked).replace(MARKED, "$1");
}

// Reads JSON; whole numbers that a Number can't hold become BigInts where the browser shows their
// digits, as all of 2025 and later do.
export function read(text) {
  return JSON.parse(text, (_key, value, context) => {
    if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
    const source = context?.source ?? "";
    return /^-?\d+$/.test(source) ? BigInt(source) : value;
  });
}

// The number that a text is: a BigInt if it is too long for a Number, null for no number.
export function number(text) {
  const trimmed = text.trim();
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return null;
  const value = Number(trimmed);
  const isLong = /^-?\d+$/.test(trimmed) && !Number.isSafeInteger(value);
  return isLong ? BigInt(trimmed) : value;
}
