// What all views use: elements, questions to the server, numbers. All text is set as text, never as markup.

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] set on the element; `aria-` and `data-` ones, and `role`, as attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(aria-|data-|role$)/.test(name)) element.setAttribute(name, value);
    else if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, /** @type {any} */ (act));
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...children);
  return element;
}

/** @param {string} path @param {object} [question] @returns {Promise<any>} */
export const ask = async (path, question) => (await answer(path, question)).json();

/** @param {string} path @param {object} question @returns {Promise<ArrayBuffer>} */
export const askBytes = async (path, question) => (await answer(path, question)).arrayBuffer();

/** What the server says; an error with its sentence where it refuses, or does not answer.
 * @param {string} path @param {object} [question] @returns {Promise<Response>} */
export async function answer(path, question) {
  const how = question && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question) };
  let given;
  try {
    given = await fetch(path, how);
  } catch {
    throw new Error("The server does not answer: is curate browse still running?");
  }
  if (!given.ok) throw new Error((await given.json()).error);
  return given;
}

/**
 * Does some work, and says on the page what goes wrong.
 * @param {() => Promise<void>} work
 */
export async function tried(work) {
  at("error").hidden = true;
  try {
    await work();
  } catch (error) {
    at("error").textContent = error instanceof Error ? error.message : String(error);
    at("error").hidden = false;
  }
}

const grouped = new Intl.NumberFormat("en");

/** @param {number} value a count @returns {string} */
export const count = (value) => grouped.format(value);

/** @param {number} value @returns {string} */
export const short = (value) => (Number.isInteger(value) ? grouped.format(value) : String(Number(value.toPrecision(4))));

/** What was said of samples, by the numbers of their rows: `good` or `bad`. */
export const labels = /** @type {Map<string, string>} */ (new Map());

/** The label of a row, empty where it has none. @param {string} row its number, with `other/` before it of the build that is compared */
export function badge(row) {
  const label = labels.get(row) ?? "";
  return make("span", { className: `label ${label}`, "data-labelled": row }, label);
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * How a row looks; a clip moves, without sound, while a pointer is on it.
 * @param {{n: number, stored?: boolean, kind?: string | null}} row
 * @param {string} [side] `other/` of a row of the build that is compared
 * @returns {HTMLElement}
 */
export function shot(row, side = "") {
  const box = make("span", { className: "shot" });
  if (row.stored === false) box.textContent = "no medium";
  else {
    const gone = () => { image.replaceWith("cannot be shown"); };
    const image = make("img", { alt: "", loading: "lazy", fetchPriority: "low", src: `${side}look/${row.n}/small`, on: { error: gone } });
    box.append(image);
    if (row.kind === "video") {
      const swap = (/** @type {string} */ size) => { if (!still.matches) image.src = `${side}look/${row.n}/${size}`; };
      box.addEventListener("pointerenter", () => swap("moving"));
      box.addEventListener("pointerleave", () => swap("small"));
    }
  }
  box.append(badge(`${side}${row.n}`));
  return box;
}

/** @param {{outcome: string, rule?: string | null, error?: string | null}} row */
export function verdict(row) {
  const said = row.rule ?? row.error ?? "";
  return make("span", { className: `verdict ${row.outcome}` }, said ? `${row.outcome}: ${said}` : row.outcome);
}
