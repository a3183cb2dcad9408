// Places in a prompt: the server counts characters, a browser counts UTF-16's units. No DOM here.

// For each character of a text, and its end, where it is for the browser.
export function unitsOf(text) {
  const units = [0];
  for (const character of text) units.push(units.at(-1) + character.length);
  return units;
}

// What of a prompt is to be seen at its place: {start, end, kind, weight?, number?}, in units, of
// one text that the prompt becomes or of all of them (`chosen` null).
export function marksOf(text, read, chosen = null) {
  const units = unitsOf(text);
  const at = (character) => units[Math.min(character, units.length - 1)];
  const place = (kind, { start, end, ...more }) => ({
    kind,
    start: at(start),
    end: at(end),
    ...more,
  });
  const texts = read.texts.map((one) => one.explanation);
  const shown = chosen === null ? texts : [texts[chosen]];
  const marks = [];
  for (const one of shown) {
    marks.push(
      ...one.spans.filter((span) => span.weight !== 1).map((span) => place("weight", span)),
    );
    marks.push(...one.breaks.map((span) => place("break", span)));
    marks.push(...one.embeddings.map((span) => place("embedding", span)));
  }
  marks.push(...read.lora_tags.map((tag) => place("lora", tag)));
  const windows = shown[0].windows;
  windows.slice(1).forEach((window, index) => {
    if (window.token_count === 0) return; // only as long as the other prompt
    marks.push({
      kind: "border",
      start: at(window.start),
      end: at(window.start),
      number: index + 2,
    });
  });
  for (const warning of read.warnings) {
    const found = /character (\d+)/.exec(warning);
    if (found) marks.push(place("warning", { start: +found[1], end: +found[1] + 1 }));
  }
  return marks;
}

// Moves marks along when a text is changed, until the server has read it again: what stands before
// and behind the change stays where it is, what is in the change goes.
export function moved(marks, before, after) {
  const shorter = Math.min(before.length, after.length);
  let head = 0;
  while (head < shorter && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const shift = after.length - before.length;
  return marks.flatMap((mark) => {
    if (mark.end <= head) return [mark];
    if (mark.start >= before.length - tail) {
      return [{ ...mark, start: mark.start + shift, end: mark.end + shift }];
    }
    const holds = mark.start <= head && mark.end >= before.length - tail;
    return holds ? [{ ...mark, end: mark.end + shift }] : [];
  });
}

// Cuts a text where marks begin and end: {text, marks} in order, borders as pieces without text.
export function piecesOf(text, marks) {
  const cuts = new Set([0, text.length]);
  for (const { start, end } of marks) cuts.add(start).add(end);
  const places = [...cuts].filter((cut) => cut <= text.length).sort((a, b) => a - b);
  const borders = marks.filter((mark) => mark.kind === "border");
  const others = marks.filter((mark) => mark.kind !== "border");
  const pieces = [];
  places.forEach((start, index) => {
    for (const border of borders) if (border.start === start) pieces.push({ border });
    const end = places[index + 1];
    if (end === undefined) return;
    const inside = others.filter((mark) => mark.start <= start && mark.end >= end);
    pieces.push({ text: text.slice(start, end), marks: inside });
  });
  return pieces;
}
