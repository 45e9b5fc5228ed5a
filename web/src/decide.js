// Decide: rules are lines on histograms; what they keep follows as they are dragged. The build stays as it is.

import { Chart, title } from "./chart.js";
import { ask, at, count, make, short, shot, tried } from "./dom.js";
import { inspect } from "./inspect.js";

/** @typedef {import("./chart.js").Field} Field */
/** @typedef {{rule: number, key: string, name: string, field: string | null, op: ">=" | "<=", value: number | null,
 *   percentile: number | null, kinds: string[], first: number, alone: number, fails: boolean, labels: Agreement | null}} Bound */
/** How well what passes is what was labelled good. @typedef {{precision: number | null, recall: number | null}} Agreement */
/** @typedef {{rule: number, key: string, value?: number | null, at?: number}} Change */
/** @typedef {{n: number, outcome: string, value: number | null}} Shown */
/** @typedef {{counts: Record<string, number>, was: Record<string, number>, failed_first: number, bounds: Bound[],
 *   histograms: Record<string, {rest: number[], kept: number[]}>, falls: {count: number, rows: Shown[]},
 *   back: {count: number, rows: Shown[]}, unseen: number,
 *   near: {below: Shown[], above: Shown[], drops: string} | null, labelled: number, labels: Agreement | null}} Judged */

const changes = /** @type {Map<string, Change>} */ (new Map());
let added = /** @type {{field: string, key: string, value: number, at?: number}[]} */ ([]);
let about = /** @type {any} */ (null);
let judged = /** @type {Judged} */ (/** @type {any} */ (null));
let focused = ""; // field of the large chart
let line = /** @type {number | null} */ (null); // bound whose neighbours are shown
let chosen = /** @type {{op: string, rule: number} | null} */ (null); // the line that was taken hold of
const charts = /** @type {Map<string, Chart>} */ (new Map());
let large = /** @type {Chart | null} */ (null);

/** Shows the view; asks for what it needs the first time. */
export async function open() {
  if (about) return;
  at("kept").textContent = "Reading the build …";
  await tried(async () => {
    about = await ask("rules");
    focused ||= about.bounds.find((/** @type {Bound} */ one) => about.fields.some((/** @type {Field} */ field) => field.name === one.field))?.field ?? about.fields[0]?.name ?? "";
    charts.clear();
    at("charts").replaceChildren(...about.fields.map(small));
    focus(focused);
    await redraw();
  });
}

/** @param {Field} field */
function small(field) {
  const chart = new Chart(field, (i) => grab(field.name, i));
  charts.set(field.name, chart);
  const button = make("button", { type: "button", className: "pick", on: { click: () => { focus(field.name); changed(); } } }, title(field));
  return make("div", { className: "card", "data-field": field.name }, button, chart.element);
}

/** Make a field the one of the large chart. @param {string} name */
function focus(name) {
  const field = about.fields.find((/** @type {Field} */ one) => one.name === name);
  if (!field) return;
  focused = name;
  chosen = null;
  large = new Chart(field, (i) => grab(name, i));
  const ends = ["least", "most"].map((which) => make("label", {}, `at ${which} `,
    make("input", { type: "number", step: "any", id: which, on: { change: (/** @type {any} */ event) => typed(which, event.target.value) } })));
  at("focus").replaceChildren(make("div", { className: "bar" }, make("h2", {}, title(field)), make("span", { className: "soft about" }, field.about), ...ends),
    make("div", { className: "bar" }, ...[["all", "all samples"], ["rest", "no other rule drops them"], ["kept", "kept"]].map(([name, said]) =>
      make("span", { className: "legend" }, make("i", { className: name }), said))),
    large.element, make("div", { id: "strip" }), make("div", { id: "near" }));
  for (const card of at("charts").children) card.classList.toggle("on", card.dataset.field === name);
  tried(async () => {
    const found = /** @type {(Shown & {at: number})[]} */ (await ask("strip", { field: name }));
    if (focused !== name) return;
    at("strip").replaceChildren(...found.map((row) => {
      const button = thumb(row, name);
      button.style.left = `${100 * row.at}%`;
      return button;
    }));
  });
}

/** @param {string} name @param {number} i */
function grab(name, i) {
  if (name !== focused) focus(name);
  const { op, rule } = /** @type {any} */ (lines(name)[i]);
  if (chosen?.op === op && chosen?.rule === rule) return;
  chosen = { op, rule };
  changed();
}

/** @param {string} which @param {string} text */
function typed(which, text) {
  const op = which === "least" ? ">=" : "<=";
  const mine = lines(focused).find((one) => one.op === op && one.movable);
  mine?.move(text === "" ? null : Number(text));
}

/** The lines of a field: one for each bound, and one that is off for each end that has none. @param {string} name */
function lines(name) {
  const out = /** @type {(import("./chart.js").Line & {rule: number})[]} */ ([]);
  for (const bound of judged?.bounds ?? []) {
    if (bound.field !== name) continue;
    const change = changes.get(id(bound)) ?? added[bound.rule - about.count];
    const value = change?.at ?? change?.value ?? bound.value; // where it is now, which may not be drawn yet
    out.push({ op: bound.op, value, rule: bound.rule, movable: bound.key !== "", label: `${bound.name}${bound.key ? "" : ", set by cut"}`,
      move: (to) => move(bound, to) });
  }
  for (const op of /** @type {const} */ ([">=", "<="])) {
    if (out.some((one) => one.op === op && one.movable)) continue;
    const key = op === ">=" ? "min" : "max";
    out.push({ op, value: null, rule: -2, movable: true, label: `${name}, at ${op === ">=" ? "least" : "most"}`,
      move: (value) => { if (value !== null) begin(name, key, op, value); } });
  }
  return out.sort((a, b) => Number(a.op === "<=") - Number(b.op === "<=")); // a line keeps its handle when it begins
}

/** @param {string} field @param {string} key @param {">=" | "<="} op @param {number} value */
function begin(field, key, op, value) {
  const old = about.bounds.find((/** @type {Bound} */ one) => one.field === field && one.op === op && changes.get(id(one))?.value === null);
  if (old) return move(old, value); // it was taken away on this page
  const mine = added.find((one) => one.field === field && one.key === key);
  if (mine) mine.value = value;
  else added.push({ field, key, value });
  chosen = { op, rule: -2 };
  changed();
}

/** @param {{rule: number, key: string}} bound */
const id = (bound) => `${bound.rule}.${bound.key}`;

/** @param {Bound} bound @param {number | null} value */
function move(bound, value) {
  const mine = added[bound.rule - about.count];
  if (mine && value === null) added = added.filter((one) => one !== mine);
  else if (mine) mine.value = /** @type {number} */ (value);
  else if (value === null) changes.set(id(bound), { rule: bound.rule, key: bound.key, value: null });
  else if (bound.percentile !== null) changes.set(id(bound), { rule: bound.rule, key: bound.key, at: value });
  else changes.set(id(bound), { rule: bound.rule, key: bound.key, value });
  chosen = { op: bound.op, rule: mine ? -2 : bound.rule };
  changed();
}

const question = () => ({ changes: [...changes.values()], added });

const REST = 120; // ms
let resting = 0;
let busy = false;
let dirty = false;
let since = 0; // when the oldest change that is not drawn was made

function changed() {
  if (!dirty) since = performance.now();
  dirty = true;
  clearTimeout(resting);
  at("decide").ariaBusy = "true";
  for (const chart of [charts.get(focused), large]) chart?.draw(undefined, lines(focused));
  if (!busy) redraw();
}

/** Ask until what is drawn is what the lines say. */
async function redraw() {
  busy = true;
  do {
    const start = dirty ? since : performance.now();
    dirty = false;
    await tried(async () => {
      judged = await ask("judge", { ...question(), fields: visible(), line });
      draw();
      requestAnimationFrame(() => performance.measure("redraw", { start, end: performance.now() }));
    });
  } while (dirty || aim());
  busy = false;
  resting = window.setTimeout(drawSamples, REST);
}

/** Fields whose charts can be seen: others are counted when they are scrolled to. */
function visible() {
  const { top, bottom } = at("work").getBoundingClientRect();
  const seen = [...charts].filter(([, chart]) => {
    const box = chart.element.getBoundingClientRect();
    return box.bottom >= top && box.top <= bottom;
  });
  return [...new Set([focused, ...seen.map(([name]) => name)])];
}

/** Finds the bound whose neighbours are to be shown; true if it is another one. */
function aim() {
  const found = (judged?.bounds ?? []).findIndex((one) => one.field === focused && (!chosen || (one.op === chosen.op &&
    (chosen.rule === one.rule || (chosen.rule === -2 && one.rule >= about.count)))));
  const next = found < 0 ? null : found;
  if (next === line) return false;
  line = next;
  return true;
}

function draw() {
  for (const [name, chart] of charts) chart.draw(judged.histograms[name], lines(name));
  large?.draw(judged.histograms[focused], lines(focused));
  for (const which of ["least", "most"]) {
    const mine = lines(focused).find((one) => one.op === (which === "least" ? ">=" : "<=") && one.movable);
    const input = at(which);
    if (input && document.activeElement !== input) input.value = mine?.value ?? "";
  }
  drawSide();
}

/** Samples follow when a line rests: their thumbnails would keep the server from counting. */
function drawSamples() {
  at("decide").ariaBusy = "false";
  if (!judged) return;
  drawNear();
  same(at("changed"), [["What falls", judged.falls, "falls"], ["What comes back", judged.back, "comes back"]].flatMap(([name, some, said]) => {
    const { count: n, rows: shown } = /** @type {any} */ (some);
    return n ? [make("h2", {}, `${name}: ${count(n)}`), make("div", { className: "thumbs" }, ...shown.map((/** @type {Shown} */ row) => thumb(row, "", /** @type {string} */ (said))))] : [];
  }));
}

function drawSide() {
  const { counts, was, bounds } = judged;
  const change = counts.kept - was.kept;
  at("kept").replaceChildren(make("b", {}, count(counts.kept)), ` of ${count(counts.total)} kept`,
    make("span", { className: "soft" }, change ? ` · ${change > 0 ? "+" : "−"}${count(Math.abs(change))} against the build` : " · as in the build"), ...agreement(judged.labels));
  let left = counts.total;
  const rows = /** @type {Node[]} */ ([]);
  /** @param {string} name @param {number} lost @param {Bound} [bound] */
  const step = (name, lost, bound) => {
    left -= lost;
    const label = bound?.field ? make("button", { type: "button", className: "pick", title: `${count(bound.alone)} break it, whatever other rules say`,
      on: { click: () => { focus(/** @type {string} */ (bound.field)); chosen = { op: bound.op, rule: bound.rule >= about.count ? -2 : bound.rule }; changed(); } } }, name) : name;
    rows.push(make("tr", {}, make("th", { scope: "row" }, label, ...agreement(bound?.labels ?? null)), make("td", {}, lost ? `−${count(lost)}` : "0"),
      make("td", {}, make("meter", { min: 0, max: counts.total || 1, value: left, "aria-label": `left after ${name}` })), make("td", {}, count(left))));
  };
  step("failed", judged.failed_first);
  for (const bound of bounds) step(bound.percentile === null || bound.value === null ? bound.name : `${bound.name} (${short(bound.value)})`, bound.first, bound);
  step("near duplicates", counts.duplicate);
  const rest = counts.failed - judged.failed_first - bounds.reduce((sum, one) => sum + (one.fails ? one.first : 0), 0);
  if (rest) step("failed later", rest);
  at("funnel").tBodies[0].replaceChildren(...rows);
  const caveats = [];
  if (!about.groups) caveats.push("The groups of near duplicates are not in the build any more: duplicates are left as they were.");
  if (judged.unseen) caveats.push(`${count(judged.unseen)} that come back were not looked at by ${about.second.join(", ")}: these rules can still drop them.`);
  at("caveats").textContent = caveats.join(" ");
  const moved = changes.size + added.length > 0;
  at("keep").disabled = at("reset").disabled = !moved;
}

/** @param {Agreement | null} found */
function agreement(found) {
  const told = (/** @type {number | null} */ share) => (share === null ? "–" : share.toFixed(2));
  return found ? [make("span", { className: "soft agreement" },
    `precision ${told(found.precision)}, recall ${told(found.recall)} on ${count(judged.labelled)} ${judged.labelled === 1 ? "label" : "labels"}`)] : [];
}

function drawNear() {
  const { near } = judged;
  if (!near) return at("near").replaceChildren(make("p", { className: "soft" }, "Drag a line in from an end of the axis: what lies next to it on both sides is shown here."));
  same(at("near"), ["below", "above"].flatMap((side) => {
    const rows = /** @type {Shown[]} */ (/** @type {any} */ (near)[side]);
    const drops = near.drops === side;
    const said = `just ${side} the line: ${drops ? "dropped" : "not dropped"}`;
    return [make("h3", { className: drops ? "dropped" : "pass" }, said[0].toUpperCase() + said.slice(1)),
      make("div", { className: "thumbs" }, ...(rows.length ? rows.map((row) => thumb(row, focused, said)) : [make("p", { className: "soft" }, "nothing")]))];
  }));
}

/** Puts elements into a box, if they are not what is there: images that stay do not flicker. @param {any} box @param {HTMLElement[]} parts */
function same(box, parts) {
  const next = make("div", {}, ...parts);
  if (box.innerHTML !== next.innerHTML) box.replaceChildren(...next.childNodes);
}

/** @param {Shown} row @param {string} field of its value @param {string} [said] where it stands */
function thumb(row, field, said = "") {
  const value = row.value === null ? "" : short(row.value);
  const told = [`sample ${row.n}`, value && `${field} ${value}`, said, `${row.outcome} in the build`];
  return make("button", { type: "button", "data-n": row.n, title: value, "aria-label": told.filter(Boolean).join(", "),
    on: { click: () => inspect(row.n) } }, shot(row), make("span", { className: `verdict ${value ? "" : row.outcome}` }, value || row.outcome));
}

async function preview() {
  await tried(async () => {
    const shown = await ask("preview", question());
    at("save-title").textContent = shown.file ? `What changes in ${shown.file}` : "No recipe was named: the rules to copy into yours";
    at("diff").replaceChildren(...shown.diff.split("\n").map((/** @type {string} */ text) =>
      make("span", { className: (shown.file && { "+": "plus", "-": "minus" }[text[0]]) || "" }, `${text}\n`)));
    at("then").textContent = "Then the build follows with:";
    at("command").textContent = shown.command;
    at("write").hidden = !shown.file;
    at("write").disabled = false;
    at("write").onclick = () => write(shown.digest);
    at("save").showModal();
  });
}

/** @param {string} digest of what was shown */
async function write(digest) {
  at("write").disabled = true;
  try {
    const done = await ask("save", { ...question(), digest });
    at("save-title").textContent = `${done.file} is written`;
    reset(true);
  } catch (error) {
    at("save-title").textContent = /** @type {Error} */ (error).message;
  }
}

/** @param {boolean} [again] ask for the rules of the recipe anew */
function reset(again = false) {
  changes.clear();
  added = [];
  chosen = null;
  if (again) about = null;
  if (again) open();
  else changed();
}

document.addEventListener("labelled", () => { if (about) changed(); });
at("work").addEventListener("scroll", () => { if (about) changed(); });
at("keep").addEventListener("click", preview);
at("reset").addEventListener("click", () => reset());
at("close").addEventListener("click", () => at("save").close());
