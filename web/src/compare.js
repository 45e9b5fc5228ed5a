// Compare: what two builds differ in, and the samples that changed sides.

import { bars } from "./chart.js";
import { ask, at, count, make, shot, tried } from "./dom.js";
import { inspect } from "./inspect.js";

/** @typedef {{was: string, was_why: string, now: string, now_why: string, count: number}} Way */
/** @typedef {{build: string, version: number, counts: Record<string, number>, causes: {outcome: string, why: string, count: number}[]}} Side */

let opened = false;

export async function open() {
  if (opened) return;
  opened = true;
  await tried(async () => {
    const told = /** @type {{was: Side, now: Side, common: number, flips: Way[]}} */ (await ask("compare"));
    at("sides").replaceChildren(...sums(told.was, told.now, told.common));
    at("ways").replaceChildren(...(told.flips.length ? told.flips.map(way) : [make("p", { className: "soft" }, "None: every sample has the same outcome in both.")]));
    at("spreads").replaceChildren(...(await ask("spreads")).map(spread));
  });
}

/** @param {Side} was @param {Side} now @param {number} common */
function sums(was, now, common) {
  const key = (/** @type {{outcome: string, why: string}} */ one) => (one.why ? `${one.outcome}: ${one.why}` : one.outcome);
  const sums = new Map([...now.causes, ...was.causes].map((one) => [key(one), { outcome: one.outcome, was: 0, now: 0 }]));
  for (const one of was.causes) /** @type {any} */ (sums.get(key(one))).was = one.count;
  for (const one of now.causes) /** @type {any} */ (sums.get(key(one))).now = one.count;
  const order = ["kept", "duplicate", "dropped", "failed"];
  const rows = [...sums].sort(([, a], [, b]) => order.indexOf(a.outcome) - order.indexOf(b.outcome));
  rows.push(["samples", { outcome: "", was: was.counts.total, now: now.counts.total }]);
  return [
    make("h2", {}, `${now.build} against ${was.build}`),
    make("p", { className: "soft" }, common ? `${count(common)} samples are in both` : "No sample is in both: what changed sides cannot be said, only sums and distributions."),
    make("table", {}, make("thead", {}, make("tr", {}, ...["outcome", "before", "now", "change"].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows.map(([name, { outcome, was: before, now: after }]) => make("tr", {},
        make("th", { scope: "row", className: outcome }, name), make("td", {}, count(before)), make("td", {}, count(after)),
        make("td", {}, after === before ? "" : `${after > before ? "+" : "\u2212"}${count(Math.abs(after - before))}`))))),
  ];
}

/** @param {Way} one */
function way(one) {
  const said = (/** @type {string} */ outcome, /** @type {string} */ why) =>
    make("span", { className: `verdict ${outcome}` }, why ? `${outcome}: ${why}` : outcome);
  const button = make("button", { type: "button", "aria-pressed": "false", on: { click: () => look(one, button) } },
    said(one.was, one.was_why), " \u2192 ", said(one.now, one.now_why), make("span", { className: "soft" }, ` ${count(one.count)}`));
  return button;
}

/** @param {Way} one @param {HTMLElement} button */
function look(one, button) {
  for (const other of at("ways").children) other.setAttribute("aria-pressed", String(other === button));
  return tried(async () => {
    const rows = /** @type {{now_n: number | null, was_n: number | null, uri: string}[]} */ (await ask("flips", one));
    at("flipped").replaceChildren(make("div", { className: "thumbs" }, ...rows.map((row) => {
      const [n, side] = row.now_n === null ? [Number(row.was_n), "other/"] : [row.now_n, ""];
      const name = row.uri.split("/").pop() || row.uri;
      return make("button", { type: "button", title: row.uri, "data-n": `${side}${n}`, on: { click: () => inspect(n, side) } },
        shot({ n }, side), make("span", { className: "verdict" }, name));
    })));
  });
}

/** @param {{name: string, unit: string, about: string, ticks: [number, string][], was: number[], now: number[]}} one */
function spread(one) {
  const most = Math.max(1, ...one.was, ...one.now);
  return make("div", { className: "card", title: one.about }, make("span", { className: "title" }, make("b", {}, one.name), make("span", { className: "soft" }, ` ${one.unit}`)),
    bars([["all", one.was], ["now", one.now]], one.ticks, most));
}
