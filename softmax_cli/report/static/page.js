"use strict";
// What all parts of the page share: its data, new elements, numbers as text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const [ROWS, COLS] = DATA.shape;
const MIDDLE_ROW = Math.floor(ROWS / 2), MIDDLE_COL = Math.floor(COLS / 2);
const CLASSES = DATA.classes;
const LN_CLASSES = Math.log(CLASSES.length);

const byId = (id) => document.getElementById(id);
const show = (id, text) => { byId(id).textContent = text; };

// Show the value that a slider stands for, if its scale is logarithmic.
function showOf(slider, text) {
  show(`${slider.id}-text`, text);
  slider.setAttribute("aria-valuetext", text);
}

// A new element with attributes, and text or children inside.
function element(name, attributes = {}, ...inside) {
  return filled(document.createElement(name), attributes, inside);
}

// A new SVG element.
function shape(name, attributes = {}, ...inside) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, inside);
}

function filled(made, attributes, inside) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const sumOf = (values) => values.reduce((a, b) => a + b, 0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const argmax = (values) => values.reduce((best, value, k) => (value > values[best] ? k : best), 0);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
// Four decimals, or a power of ten if these would be 0.
const precise = (value) =>
  (value !== 0 && Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(4))
    .replace("-0.0000", "0.0000").replace(/^-/, "−");
