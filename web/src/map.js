// Map: samples as points on a plane by one of their embeddings; a lasso, or a rectangle in numbers, chooses some of them.

import { ask, askBytes, at, count, make, tried } from "./dom.js";
import { lassoed } from "./find.js";
import { inspect, thumbs } from "./inspect.js";
import { show } from "./views.js";
import { MARGIN, View, steer } from "./zoom.js";

/** What colours say: classes, or a number's axis. @typedef {{by: string, classes?: {label: string, count: number, rest: boolean}[],
 *   ticks?: [number, string][], none?: number}} Legend */
/** @typedef {import("./zoom.js").Place} Place */

const SIDE = 65535; // of the map, in steps of its points
const BINS = 60;
const NONE = 63;
const SHOWN = 12; // of what the lasso holds
const NEAR = 12; // pixels from a press to its point
const STEP = 4; // pixels between two corners
const CORNERS = 500;
const WORDS = /** @type {Record<string, string>} */ ({ outcome: "verdict", source: "source", kind: "kind" });

let opened = false;
let points = new Uint16Array();
let codes = new Uint8Array();
let legend = /** @type {Legend} */ ({ by: "", classes: [] });
let polygon = /** @type {Place[]} */ ([]);
let asked = 0;
let view = /** @type {View} */ (/** @type {any} */ (null));

/** @param {{embeddings: string[], numbers: string[]}} about */
export function begin(about) {
  at("views").querySelector("[data-view=map]").hidden = !about.embeddings.length;
  at("map-field").append(...about.embeddings.map((name) => make("option", { value: name }, name)));
  at("map-by").append(...[...Object.keys(WORDS), ...about.numbers].map((name) => make("option", { value: name }, WORDS[name] ?? name)));
  at("map-field").addEventListener("change", () => { choose([]); view.all(); load(); });
  at("map-by").addEventListener("change", load);
  at("map-select").addEventListener("click", typed);
  at("map-clear").addEventListener("click", () => choose([]));
  at("map-find").addEventListener("click", () => { show("find"); lassoed({ field: at("map-field").value, polygon }); });
  view = new View(at("plane"), moved);
  for (const [name, act] of /** @type {const} */ ([["in", () => view.by(2)], ["out", () => view.by(0.5)], ["all", () => view.all()]])) at(`map-${name}`).addEventListener("click", act);
  new ResizeObserver(draw).observe(at("plane"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { draw(); drawLegend(); });
  lasso(at("plane"));
}

export async function open() {
  if (opened) return;
  opened = true;
  await load();
}

/** Reads the points of the embedding that is chosen, and their colours. */
async function load() {
  const mine = ++asked;
  const field = at("map-field").value;
  const by = at("map-by").value;
  at("map").ariaBusy = "true";
  at("map-about").textContent = "Reading the vectors …";
  let said = "";
  await tried(async () => {
    const told = await ask("map/about", { field }); // the first time, this makes the map
    const [places, coloured, about] = await Promise.all([askBytes("map/points", { field }), askBytes("map/codes", { field, by }), ask("map/legend", { field, by })]);
    if (mine !== asked) return;
    points = new Uint16Array(places);
    codes = new Uint8Array(coloured);
    legend = { ...about, by };
    const [across, up] = told.shares.map((/** @type {number} */ share) => `${(100 * share).toFixed(1)} %`);
    said = `${count(told.count)} samples. Of what their vectors differ in, the map shows ${across} across and ${up} up.`;
    draw();
    drawLegend();
  });
  if (mine !== asked) return;
  at("map-about").textContent = said;
  at("map").ariaBusy = "false";
}

/** A colour of the page's style as red, green and blue. @param {string} name @returns {[number, number, number]} */
function colour(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hex = value.length === 4 ? value.slice(1).replace(/./g, "$&$&") : value.slice(1);
  return /** @type {any} */ ([0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)));
}

/** Colours by code. */
function palette() {
  const found = /** @type {[number, number, number][]} */ ([]);
  if (legend.classes) {
    const { by } = legend;
    legend.classes.forEach(({ label, rest }, i) => found.push(colour(rest ? "--soft" : by === "outcome" ? `--${label}` : `--c${i}`)));
  } else {
    const stops = ["--low", "--mid", "--high"].map((name) => colour(name));
    for (let bin = 0; bin < BINS; bin++) {
      const place = (2 * bin) / (BINS - 1);
      const from = Math.min(1, Math.floor(place));
      found.push(/** @type {any} */ (stops[from].map((value, i) => value + (stops[from + 1][i] - value) * (place - from))));
    }
    found[NONE] = colour("--soft");
  }
  return found;
}

/** Draws all points: where several meet, their mean colour, the less faint the more they are. */
function draw() {
  const box = at("plane");
  const canvas = at("points");
  const [width, height] = [box.clientWidth, box.clientHeight].map((side) => Math.max(1, Math.round(side * devicePixelRatio)));
  if (!box.clientWidth || !points.length) return;
  canvas.width = width;
  canvas.height = height;
  const margin = MARGIN * devicePixelRatio;
  const right = (view.zoom * (width - 2 * margin)) / SIDE;
  const down = (view.zoom * (height - 2 * margin)) / SIDE;
  const [left, low] = [view.left * SIDE, view.low * SIDE];
  const end = SIDE / view.zoom;
  const total = points.length / 2;
  let seen = 0;
  for (let i = 0; i < total; i++) seen += Number(Math.abs(2 * (points[2 * i] - left) - end) <= end && Math.abs(2 * (points[2 * i + 1] - low) - end) <= end);
  const radius = Math.round(devicePixelRatio * (seen > 200000 ? 0 : seen > 20000 ? 1 : seen > 2000 ? 2 : 4));
  const met = new Uint32Array(width * height);
  const sums = new Float32Array(3 * width * height);
  const colours = palette();
  const flat = new Float32Array(3 * (NONE + 1));
  colours.forEach((one, i) => flat.set(one, 3 * i));
  let most = 1;
  for (let i = 0; i < total; i++) {
    const x = Math.floor(margin + (points[2 * i] - left) * right);
    const y = Math.floor(height - margin - (points[2 * i + 1] - low) * down);
    if (x < radius || y < radius || x >= width - radius || y >= height - radius) continue;
    const code = 3 * codes[i];
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) {
        const pixel = (y + dy) * width + x + dx;
        if (++met[pixel] > most) most = met[pixel];
        sums[3 * pixel] += flat[code];
        sums[3 * pixel + 1] += flat[code + 1];
        sums[3 * pixel + 2] += flat[code + 2];
      }
    }
  }
  const image = new ImageData(width, height);
  const scale = 135 / Math.log1p(most);
  for (let i = 0; i < met.length; i++) {
    const n = met[i];
    if (!n) continue;
    image.data[4 * i] = sums[3 * i] / n;
    image.data[4 * i + 1] = sums[3 * i + 1] / n;
    image.data[4 * i + 2] = sums[3 * i + 2] / n;
    image.data[4 * i + 3] = 120 + scale * Math.log1p(n);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawLegend() {
  const swatch = (/** @type {[number, number, number]} */ rgb) => {
    const box = make("i");
    box.style.background = `rgb(${rgb.join(" ")})`;
    return box;
  };
  const colours = palette();
  if (legend.classes) {
    at("map-legend").replaceChildren(...legend.classes.map(({ label, count: n }, i) =>
      make("li", {}, swatch(colours[i]), make("bdi", {}, label), make("span", { className: "soft" }, count(n)))));
    return;
  }
  const bar = make("div", { className: "ramp" });
  bar.style.background = `linear-gradient(to right, ${[0, (BINS - 1) >> 1, BINS - 1].map((bin) => `rgb(${colours[bin].join(" ")})`).join(", ")})`;
  const ticks = (legend.ticks ?? []).map(([place, label]) => {
    const tick = make("span", {}, label);
    tick.style.left = `${100 * place}%`;
    return tick;
  });
  at("map-legend").replaceChildren(make("li", { className: "scale" }, bar, make("div", { className: "ticks" }, ...ticks)),
    ...(legend.none ? [make("li", {}, swatch(colours[NONE]), "no value", make("span", { className: "soft" }, count(legend.none)))] : []));
}

/** Draw a polygon by pointer, or press on a point to inspect it. @param {HTMLElement} plane */
function lasso(plane) {
  let drawn = /** @type {Place[]} */ ([]);
  let last = [0, 0];
  const corner = (/** @type {PointerEvent} */ event) => view.place(view.pixel(event));
  const cancel = () => {
    drawn = [];
    outline(polygon);
  };
  steer(view, cancel);
  plane.addEventListener("pointerdown", (event) => {
    drawn = [corner(event)];
    last = [event.clientX, event.clientY];
  });
  plane.addEventListener("pointermove", (event) => {
    if (!drawn.length || Math.hypot(event.clientX - last[0], event.clientY - last[1]) < STEP) return;
    drawn.push(corner(event));
    last = [event.clientX, event.clientY];
    outline(drawn);
  });
  plane.addEventListener("pointerup", (event) => {
    const step = Math.ceil(drawn.length / CORNERS);
    if (drawn.length > 2) choose(drawn.filter((_, i) => i % step === 0));
    else if (drawn.length) press(corner(event));
    drawn = [];
  });
  plane.addEventListener("pointercancel", cancel);
}

/** Inspects the point next to a place; where none is near, the lasso is taken away. @param {Place} place */
function press([x, y]) {
  const [width, height] = [at("plane").clientWidth, at("plane").clientHeight].map((side) => (view.zoom * (side - 2 * MARGIN)) / SIDE);
  let [point, least] = [-1, NEAR ** 2];
  for (let i = 0; 2 * i < points.length; i++) {
    const distance = ((points[2 * i] - x * SIDE) * width) ** 2 + ((points[2 * i + 1] - y * SIDE) * height) ** 2;
    if (distance < least) [point, least] = [i, distance];
  }
  if (point < 0) choose([]);
  else tried(async () => inspect(await ask("map/row", { field: at("map-field").value, point })));
}

/** The rectangle that is typed. */
function typed() {
  const [left, right, low, high] = ["left", "right", "low", "high"].map((name) => Number(at(`map-${name}`).value) / 100);
  choose([[left, low], [right, low], [right, high], [left, high]]);
}

let drawing = 0;

/** Draws what the view shows now, once for all that moved it since the last frame. */
function moved() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    const side = 1 / view.zoom;
    at("window").setAttribute("viewBox", `${view.left} ${1 - view.low - side} ${side} ${side}`);
    at("map-zoom").textContent = `× ${view.zoom.toFixed(1)}`;
    draw();
  });
}

/** @param {Place[]} corners */
function outline(corners) {
  at("outline").setAttribute("points", corners.map(([x, y]) => `${x},${1 - y}`).join(" "));
}

/** Choose what lies in a polygon, or nothing. @param {Place[]} corners */
function choose(corners) {
  polygon = corners;
  outline(polygon);
  at("map-clear").disabled = at("map-find").disabled = true;
  at("map-total").textContent = "";
  at("map-some").replaceChildren();
  if (!polygon.length) return;
  tried(async () => {
    const found = await ask("page", { lasso: { field: at("map-field").value, polygon: corners }, limit: SHOWN });
    if (polygon !== corners) return;
    at("map-total").textContent = `${count(found.total)} ${found.total === 1 ? "sample" : "samples"} in the lasso`;
    at("map-clear").disabled = false;
    at("map-find").disabled = !found.total;
    at("map-some").replaceChildren(thumbs(found.rows));
  });
}
