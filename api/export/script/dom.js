"use strict";
// Building blocks. Every text enters the page as a text node; nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const known = (value) => value !== null && value !== undefined;
const probability = (logp) => (known(logp) ? Math.exp(logp) : null);

function percent(value, digits = 1) {
  if (!known(value)) return "–";
  const shown = 100 * value;
  return Math.abs(shown) > 0 && Math.abs(shown) < 0.5 * 10 ** -digits
    ? `${shown.toExponential(1)} %`
    : `${shown.toFixed(digits)} %`;
}

function signed(value, digits = 3) {
  return known(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits) : "–";
}

function compact(value, unit = "") {
  if (!known(value)) return "–";
  const scales = [
    [1e18, "E"],
    [1e15, "P"],
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  const [scale, prefix] = scales.find(([one]) => Math.abs(value) >= one) ?? [1, ""];
  return `${Number((value / scale).toPrecision(3))} ${prefix}${unit}`.trim();
}

function duration(seconds) {
  if (!known(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const moment = (iso) => (iso ? `${iso.slice(0, 16).replace("T", " ")} UTC` : "–");

// Whitespace and what does not show, as glyphs: the same as in the dashboard.
const GLYPHS = { " ": "·", "\t": "⇥", "\n": "↵", "\r": "␍", "\u00a0": "⍽" };

function glyph(character) {
  if (character in GLYPHS) return GLYPHS[character];
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return /[\p{C}\p{Z}]/u.test(character) ? `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›` : character;
}

const visible = (text) => [...text].map(glyph).join("") || "∅";
const readable = (text) => [...String(text)].map((one) => (" \t\n".includes(one) ? one : glyph(one))).join("");

// A strong colour for a large value. The style sheet mixes it for the light or the dark page.
function tint(element, value, limit, kind) {
  element.classList.remove("neg", "pos", "mag", "strong");
  if (!known(value)) return;
  const part = Math.min(1, Math.abs(value) / limit);
  element.classList.add(kind === "signed" ? (value < 0 ? "neg" : "pos") : "mag");
  element.classList.toggle("strong", part > 0.6);
  element.style.setProperty("--part", `${Math.round(100 * part)}%`);
}

// Where the colours end: the 98 % quantile of the sizes, so that one extreme does not pale the rest.
function scaleLimit(values, atLeast = 1e-6) {
  const sizes = values
    .filter(known)
    .map(Math.abs)
    .sort((a, b) => a - b);
  if (!sizes.length) return Math.max(1, atLeast);
  const quantile = sizes[Math.min(sizes.length - 1, Math.ceil(0.98 * sizes.length) - 1)];
  return Math.max(quantile > 0 ? quantile : sizes[sizes.length - 1], atLeast);
}

function table(headings, rows, attributes) {
  const head = el(
    "thead",
    null,
    el(
      "tr",
      null,
      headings.map((text) => el("th", { scope: "col" }, text)),
    ),
  );
  const body = rows.map((cells) =>
    el(
      "tr",
      null,
      cells.map((cell) => el("td", null, cell)),
    ),
  );
  return el("div", { class: "scroll" }, el("table", attributes, head, el("tbody", null, body)));
}

function section(title, ...content) {
  return el("section", null, el("h2", null, title), ...content);
}

const note = (...text) => el("p", { class: "note" }, ...text);

function figure(label, value, explanation) {
  return el("div", { class: "figure", title: explanation }, el("span", null, label), el("b", null, value));
}
