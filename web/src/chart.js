// A histogram whose rules are lines that are dragged, by pointer or by keys.

import { count, make, short } from "./dom.js";

/** @typedef {{name: string, unit: string, about: string, range: (number | null)[], whole: boolean, edges: number[],
 *   ticks: [number, string][], counts: number[], count: number}} Field */
/** One end of a rule: where it stands, or null where it is off.
 * @typedef {{op: ">=" | "<=", value: number | null, label: string, movable: boolean,
 *   move: (value: number | null) => void}} Line */

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 100; // of the drawing, in its own units; width is a bin each

/** The place of a value along the axis, 0 to 1. @param {number[]} edges @param {number} value */
export function placeOf(edges, value) {
  const bins = edges.length - 1;
  if (value <= edges[0]) return 0;
  if (value >= edges[bins]) return 1;
  let low = 0;
  for (let high = bins; high - low > 1;) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= value) low = middle;
    else high = middle;
  }
  return (low + (value - edges[low]) / (edges[low + 1] - edges[low])) / bins;
}

/**
 * The value at a place along the axis, with no more digits than can be told apart there.
 * @param {Field} field @param {number} place
 */
export function valueAt(field, place) {
  const bins = field.edges.length - 1;
  const at = Math.min(bins - 1e-9, Math.max(0, place * bins));
  const i = Math.floor(at);
  const width = field.edges[i + 1] - field.edges[i];
  const step = 10 ** Math.floor(Math.log10(width / 4));
  const value = field.edges[i] + width * (at - i);
  const round = field.whole ? Math.round(value) : Number((Math.round(value / step) * step).toPrecision(12));
  const [low, high] = field.range;
  return Math.min(high ?? Infinity, Math.max(low ?? -Infinity, round));
}

/** @param {number[]} counts @param {number} most */
function path(counts, most) {
  let drawn = "";
  counts.forEach((n, i) => {
    if (n) drawn += `M${i} ${HEIGHT}V${(HEIGHT - Math.max(1, (n / most) * HEIGHT)).toFixed(1)}h.92V${HEIGHT}z`;
  });
  return drawn;
}

/** @param {string} tag @param {Record<string, string>} attributes */
function svg(tag, attributes) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** @param {[number, string][]} ticks */
function axis(ticks) {
  return make("div", { className: "ticks", "aria-hidden": "true" }, ...ticks.map(([place, label]) => {
    const tick = make("span", {}, label);
    tick.style.left = `${100 * place}%`;
    return tick;
  }));
}

/**
 * A chart without lines: layers of counts, one over the other.
 * @param {[string, number[]][]} layers @param {[number, string][]} ticks @param {number} most
 */
export function bars(layers, ticks, most) {
  const drawing = svg("svg", { viewBox: `0 0 ${layers[0][1].length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(...layers.map(([name, counts]) => svg("path", { class: name, d: path(counts, most) })));
  return make("div", { className: "chart" }, make("div", { className: "plot" }, drawing), axis(ticks));
}

/** A chart of a field; `draw` shows counts, and lines where they now stand. */
export class Chart {
  /** @param {Field} field @param {(line: number) => void} [grabbed] a line was taken hold of */
  constructor(field, grabbed = () => {}) {
    this.field = field;
    this.grabbed = grabbed;
    this.layers = ["all", "rest", "kept"].map((name) => svg("path", { class: name }));
    const drawing = svg("svg", { viewBox: `0 0 ${field.counts.length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    drawing.append(...this.layers);
    this.plot = make("div", { className: "plot" }, drawing);
    this.element = make("div", { className: "chart" }, this.plot, axis(field.ticks));
    this.most = Math.max(1, ...field.counts);
    this.layers[0].setAttribute("d", path(field.counts, this.most));
    this.handles = /** @type {any[]} */ ([]);
  }

  /** @param {{rest: number[], kept: number[]} | undefined} counts @param {Line[]} lines */
  draw(counts, lines) {
    if (counts) {
      this.layers[1].setAttribute("d", path(counts.rest, this.most));
      this.layers[2].setAttribute("d", path(counts.kept, this.most));
    }
    while (this.handles.length > lines.length) this.handles.pop().remove();
    while (this.handles.length < lines.length) this.#handle(this.handles.length);
    lines.forEach((line, i) => this.#place(this.handles[i], line));
  }

  /** @param {number} i */
  #handle(i) {
    const shade = make("span", { className: "shade" });
    const handle = make("div", { className: "line", role: "slider", tabIndex: 0, on: {
      pointerdown: (/** @type {PointerEvent} */ event) => {
        if (handle.ariaDisabled === "true") return;
        event.preventDefault();
        handle.focus();
        handle.setPointerCapture(event.pointerId);
        this.grabbed(i);
      },
      pointermove: (/** @type {PointerEvent} */ event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const box = this.plot.getBoundingClientRect();
        this.#move(handle.of, (event.clientX - box.left) / box.width);
      },
      focus: () => this.grabbed(i),
      keydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowLeft: -0.005, ArrowDown: -0.005, ArrowRight: 0.005, ArrowUp: 0.005, PageDown: -0.05, PageUp: 0.05, Home: -1, End: 1 }[event.key];
        if (!step || handle.ariaDisabled === "true") return;
        event.preventDefault();
        this.#move(handle.of, this.#at(handle.of) + step);
      },
    } }, shade, make("span", { className: "grip" }));
    this.handles.push(handle);
    this.plot.append(handle);
  }

  /** Where a line stands, 0 to 1; one that is off, at its end. @param {Line} line */
  #at(line) {
    return line.value === null ? Number(line.op === "<=") : placeOf(this.field.edges, line.value);
  }

  /** @param {Line} line @param {number} place */
  #move(line, place) {
    const off = line.op === ">=" ? place <= 0 : place >= 1;
    line.move(off ? null : valueAt(this.field, Math.min(1, Math.max(0, place))));
  }

  /** @param {any} handle @param {Line} line */
  #place(handle, line) {
    handle.of = line;
    const place = this.#at(line);
    handle.style.left = `${100 * place}%`;
    handle.className = `line ${line.op === ">=" ? "least" : "most"} ${line.value === null ? "off" : ""}`;
    handle.ariaDisabled = String(!line.movable);
    handle.ariaLabel = line.label;
    handle.ariaValueMin = String(this.field.edges[0]);
    handle.ariaValueMax = String(this.field.edges[this.field.edges.length - 1]);
    handle.ariaValueNow = String(line.value ?? (line.op === ">=" ? this.field.edges[0] : this.field.edges[this.field.edges.length - 1]));
    handle.ariaValueText = line.value === null ? "off" : `${line.op === ">=" ? "at least" : "at most"} ${short(line.value)} ${this.field.unit}`;
  }
}

/** @param {Field} field */
export const title = (field) => make("span", { className: "title", title: field.about }, make("b", {}, field.name),
  make("span", { className: "soft" }, ` ${field.unit} · ${count(field.count)}`));
