// Find: a grid of what matches, with filters beside it.

import { ask, at, count, make, short, shot, tried, verdict } from "./dom.js";
import { inspect, inspected } from "./inspect.js";

/** @typedef {{n: number, level: string, id: string, kind: string | null, outcome: string, rule: string | null,
 *   error: string | null, uri: string, source: string, duration: number | null, stored: boolean,
 *   caption: string | null, sorted?: number | null, cosine?: number}} Row */
/** What rows are the nearest to: a row, or a text; `said` names it. @typedef {{field: string, row?: number, text?: string, said: string}} Near */
/** Rows in a part of a map. @typedef {{field: string, polygon: [number, number][]}} Lasso */

const PAGE = 60;
const NAMES = /** @type {Record<string, string>} */ ({
  label: "Label",
  outcome: "Verdict", rule: "Rule that dropped it", error: "Failure", stage: "Stage of failure", source: "Source",
  kind: "Kind", licence: "Licence", level: "What it is", record: "Record", duplicates: "Duplicates of",
});
const state = { where: /** @type {{field: string, is: string[]}[]} */ ([]), search: "", sort: "", descending: false, offset: 0,
  near: /** @type {Near | null} */ (null), lasso: /** @type {Lasso | null} */ (null) };
let asked = 0;

/** Asks for what the filters say, and shows it. */
export async function refresh() {
  const mine = ++asked;
  drawChosen();
  await tried(async () => {
    const [found, groups] = await Promise.all([ask("page", { ...state, limit: PAGE }), ask("facets", state)]);
    if (mine !== asked) return; // a later question is under way
    drawGrid(found);
    drawFacets(groups);
  });
}

/** Counts anew what rows can be filtered by; rows stay, also those that do not match any more. */
async function recount() {
  const mine = asked;
  await tried(async () => {
    const groups = await ask("facets", state);
    if (mine === asked) drawFacets(groups);
  });
}

/** @param {Partial<typeof state>} change */
function search(change) {
  Object.assign(state, { offset: 0 }, change);
  refresh();
}

/** @param {{rows: Row[], total: number}} found */
function drawGrid(found) {
  at("total").textContent = `${count(found.total)} ${found.total === 1 ? "match" : "matches"}`;
  const end = Math.min(found.total, state.offset + PAGE);
  at("where").textContent = found.total ? `${count(state.offset + 1)} to ${count(end)}` : "none";
  at("before").disabled = state.offset === 0;
  at("after").disabled = end >= found.total;
  at("grid").replaceChildren(...found.rows.map((row) => {
    const sorted = row.cosine != null ? `cosine ${row.cosine.toFixed(4)}` : state.sort && row.sorted != null ? `${state.sort} ${short(row.sorted)}` : "";
    const words = make("span", { className: "words" }, verdict(row), make("span", {}, row.uri.split("/").pop() || row.uri),
      make("span", { className: "soft" }, sorted || row.caption || row.kind || row.level));
    return make("li", {}, make("button", { type: "button", title: row.uri, "aria-current": String(String(row.n) === inspected()), "data-n": row.n,
      on: { click: () => inspect(row.n) } }, shot(row), words));
  }));
  at("grid").scrollTop = 0;
}

/** @param {Record<string, {value: string, n: number}[]>} groups */
function drawFacets(groups) {
  const nav = at("facets");
  const focused = document.activeElement?.getAttribute("data-facet");
  const parts = /** @type {Node[]} */ ([]);
  for (const [field, values] of Object.entries(groups)) {
    if (!values.length) continue;
    parts.push(make("h2", {}, NAMES[field] ?? field));
    for (const { value, n } of values) {
      const on = state.where.some((one) => one.field === field && one.is.includes(value));
      parts.push(make("button", { type: "button", title: value, "aria-pressed": String(on), "data-facet": `${field} ${value}`,
        on: { click: () => toggle(field, value) } }, make("bdi", {}, value), make("span", {}, count(n))));
    }
  }
  nav.replaceChildren(...parts);
  if (focused) [...nav.querySelectorAll("button")].find((button) => button.dataset.facet === focused)?.focus();
}

/** Filters as buttons that take them away. */
function drawChosen() {
  const chip = (/** @type {string} */ name, /** @type {string} */ value, /** @type {() => void} */ act) =>
    make("button", { type: "button", "aria-label": `Remove the filter ${name}: ${value}`, on: { click: act } }, `${name}: `, make("bdi", {}, value), " ×");
  const chips = state.where.flatMap((one) => one.is.map((value) => chip(NAMES[one.field], value, () => toggle(one.field, value))));
  if (state.near) chips.push(chip(`Nearest by ${state.near.field} to`, state.near.said, () => { at("like").value = ""; search({ near: null }); }));
  if (state.lasso) chips.push(chip(`On the map of ${state.lasso.field}`, "in the lasso", () => search({ lasso: null })));
  at("chosen").replaceChildren(...chips);
}

/** @param {string} field @param {string} value */
function toggle(field, value) {
  const one = state.where.find((filter) => filter.field === field);
  if (!one) state.where.push({ field, is: [value] });
  else if (one.is.includes(value)) one.is = one.is.filter((other) => other !== value);
  else one.is.push(value);
  search({ where: state.where.filter((filter) => filter.is.length) });
}

/** Show rows that have something in common, and nothing else. @param {string} field @param {string} value */
export function only(field, value) {
  alone({ where: [{ field, is: [value] }] });
}

/** Show rows by their cosine with one of them. @param {Near} near */
export function nearest(near) {
  alone({ near });
}

/** Show what lies in a part of a map. @param {Lasso} lasso */
export function lassoed(lasso) {
  alone({ lasso });
}

/** Ask for nothing else. @param {Partial<typeof state>} change */
function alone(change) {
  at("search").value = at("like").value = "";
  search({ where: [], search: "", near: null, lasso: null, ...change });
}

/** @param {{numbers: string[], about: Record<string, {about: string}>, texts: string[]}} about */
export function begin(about) {
  at("sort").append(...about.numbers.map((name) => make("option", { value: name, title: about.about[name]?.about ?? "" }, name)));
  let waiting = 0;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = window.setTimeout(() => search({ search: at("search").value }), 200);
  });
  const [field] = about.texts;
  at("like").parentElement.hidden = !field;
  at("like").addEventListener("change", () => {
    const text = at("like").value.trim();
    search({ near: text ? { field, text, said: text } : null });
  });
  at("sort").addEventListener("change", () => search({ sort: at("sort").value }));
  at("descending").addEventListener("change", () => search({ descending: at("descending").checked }));
  document.addEventListener("labelled", recount);
  at("before").addEventListener("click", () => search({ offset: Math.max(0, state.offset - PAGE) }));
  at("after").addEventListener("click", () => search({ offset: state.offset + PAGE }));
  at("grid").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const all = [...at("grid").querySelectorAll("button")];
    if (step) all[all.indexOf(/** @type {any} */ (event.target)) + step]?.focus();
  });
}
