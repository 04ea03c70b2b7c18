// Signs that do not show, made to: with them a text can hide words, or be read in another order than
// it is written.

import { element } from "/page/common.js";

// What Unicode says is not drawn, or turns the direction; controls; a blank of Braille.
const HIDDEN = /([\p{Default_Ignorable_Code_Point}\p{Bidi_Control}\p{Cc}\u2028\u2029\u2800\ufff9-\ufffb])\1*/gu;
// Of these, what belongs to lines and to pictures: the end of a line, a coloured sign, joined ones.
const PLAIN = new RegExp([
  /\r(?=\n)/u, /(?<=\p{Extended_Pictographic})\ufe0f/u, /(?<=[0-9#*])\ufe0f(?=\u20e3)/u,
  /(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])\u200d(?=\p{Extended_Pictographic})/u,
].map((one) => one.source).join("|"), "uy");
const NAMES = {
  0xad: "SHY", 0x34f: "CGJ", 0x61c: "ALM", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM",
  0x200f: "RLM", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ",
  0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
};

// A text in parts: what shows, and names of what does not with how often it stands there.
function parts(text) {
  const found = [];
  let end = 0;
  for (const { 0: run, 1: sign, index } of text.matchAll(HIDDEN)) {
    if (sign === "\n" || sign === "\t") continue;
    PLAIN.lastIndex = index;
    if (run === sign && PLAIN.test(text)) continue;
    const code = sign.codePointAt(0), count = run.length / sign.length;
    found.push({ text: text.slice(end, index) });
    found.push({ name: named(code) + (count > 1 ? ` ×${count}` : ""), code: `U+${hexadecimal(code)}` });
    end = index + run.length;
  }
  return [...found, { text: text.slice(end) }];
}

const hexadecimal = (code) => code.toString(16).toUpperCase().padStart(4, "0");

// Tags are letters of ASCII once more, of which none is drawn.
function named(code) {
  const tag = code > 0xe0020 && code < 0xe007f;
  return NAMES[code] ?? (tag ? `TAG ${String.fromCodePoint(code - 0xe0000)}` : `U+${hexadecimal(code)}`);
}

// The nodes of a text, with a mark for each sign that does not show.
export const marked = (text) =>
  parts(text).map((one) => one.text ?? element("span", { className: "sign", textContent: one.name, title: one.code }));

// The same as a string.
export const spelled = (text) => parts(text).map((one) => one.text ?? `[${one.name}]`).join("");
