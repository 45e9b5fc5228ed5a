// Labels: samples that are marked good or bad by keys; the server keeps them.

import { ask, at, badge, count, labels, tried } from "./dom.js";

const KEYS = /** @type {Record<string, string | null>} */ ({ g: "good", b: "bad", u: null });

let marking = Promise.resolve();

/** Whether a key marks samples. @param {KeyboardEvent} event */
export const marks = (event) => Object.hasOwn(KEYS, event.key) && !event.ctrlKey && !event.metaKey && !event.altKey;

/** Marks a row by a key, after those that were marked before. @param {string} row @param {string} key */
export function mark(row, key) {
  marking = marking.then(() => tried(async () => {
    if (!/^\d+$/.test(row)) throw new Error("This sample is of the other build: only those of the build itself are labelled.");
    take(await ask("label", { n: Number(row), label: KEYS[key] }));
    document.dispatchEvent(new Event("labelled"));
  }));
}

/** Shows labels as the server has them. @param {{good: number, bad: number, rows: Record<string, string>}} told */
export function take({ good, bad, rows }) {
  labels.clear();
  for (const [row, label] of Object.entries(rows)) labels.set(row, label);
  for (const old of document.querySelectorAll("[data-labelled]")) old.replaceWith(badge(/** @type {string} */ (old.getAttribute("data-labelled"))));
  at("labelled").textContent = good + bad ? `${count(good)} good, ${count(bad)} bad` : "Keys g, b and u mark a sample good, bad or neither";
  at("export").hidden = !(good + bad);
}
