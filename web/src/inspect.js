// Inspect: all that is known of one row.

import { answer, ask, at, badge, count, make, short, shot, tried, verdict } from "./dom.js";
import { nearest, only } from "./find.js";
import { show } from "./views.js";

const ALIKE = 9; // of a record or of a group of duplicates
const NEAREST = 24;

let shown = /** @type {string | null} */ (null); // the build, `other/` or nothing, and the number of its row
let opener = /** @type {HTMLElement | null} */ (null);

export const inspected = () => shown;

/** @param {number} n @param {string} [side] `other/` of a row of the build that is compared */
export async function inspect(n, side = "") {
  const key = `${side}${n}`;
  if (at("inspect").hidden) opener = /** @type {HTMLElement} */ (document.activeElement);
  mark(key);
  await tried(async () => {
    const told = await ask(`${side}sample/${n}`);
    const { row } = told;
    const [alike, siblings] = await Promise.all([
      ask(`${side}page`, { where: [{ field: "duplicates", is: [row.duplicate_of ?? row.id] }], limit: ALIKE }),
      ask(`${side}page`, { where: [{ field: "record", is: [row.record_id] }], limit: ALIKE }),
    ]);
    if (shown !== key) return;
    const box = at("inspect");
    box.replaceChildren(...parts(told, alike, siblings, side));
    box.hidden = false;
    box.scrollTop = 0;
    box.focus({ preventScroll: true });
    if (row.outcome !== "kept") return;
    const streams = await ask(`${side}tokens/${n}`);
    if (shown === key) box.append(...tokens(streams, `${side}decoded/${n}`));
  });
}

/** @param {string | null} key */
function mark(key) {
  shown = key;
  for (const button of document.querySelectorAll("[data-n]")) button.setAttribute("aria-current", String(button.getAttribute("data-n") === key));
}

export function shut() {
  at("inspect").hidden = true;
  mark(null);
  opener?.focus();
}

/** @param {any} row @param {string} name @param {string} side */
function medium(row, name, side) {
  if (!row.member) return [make("p", { className: "soft" }, "No medium of this is stored.")];
  const problem = make("p", { className: "soft" });
  const image = make("img", { className: "medium", alt: name, src: `${side}look/${row.n}/large` });
  image.addEventListener("error", async () => {
    image.remove();
    try {
      await answer(image.src);
    } catch (error) {
      problem.textContent = `It cannot be shown: ${error instanceof Error ? error.message : error}`;
    }
  });
  if (row.kind !== "video" && row.kind !== "audio") return [image, problem];
  const span = row.end_us > row.start_us ? `#t=${row.start_us / 1e6},${row.end_us / 1e6}` : "";
  const player = make(row.kind, { className: "medium", controls: true, preload: "metadata", src: `${side}medium/${row.n}${span}`, "aria-label": name });
  player.addEventListener("error", () => {
    player.replaceWith(...(row.kind === "video" ? [image] : []));
    problem.textContent = "This browser does not play the file as it came.";
  });
  return row.kind === "video" ? [player, problem] : [image, player, problem];
}

/** @param {any} told @param {any} alike @param {any} siblings @param {string} side */
function* parts({ row, numbers, texts, others, limits, embeddings }, alike, siblings, side) {
  const name = row.uri.split("/").pop() || row.uri;
  yield make("header", {}, make("h2", {}, row.uri), make("button", { type: "button", "aria-label": "Close", on: { click: shut } }, "×"));
  yield* medium(row, name, side);
  yield make("h3", {}, "Verdict");
  yield make("p", {}, verdict(row), badge(`${side}${row.n}`));
  if (row.value !== null && row.threshold !== null) yield make("p", {}, `its value ${short(row.value)}, the threshold ${short(row.threshold)}`);
  if (row.value_text !== null) yield make("p", {}, `its value: ${row.value_text}`);
  if (row.message) yield make("p", {}, row.message);
  if (row.similarity !== null) yield make("p", {}, `cosine ${row.similarity.toFixed(4)} with the one that is kept`);
  yield* kin(`It and its duplicates`, "duplicates", row.duplicate_of ?? row.id, alike, side);
  yield* kin("Samples of its record", "record", row.record_id, siblings, side);
  if (embeddings.length) yield* near(row, name, embeddings, side);
  const said = Object.entries(texts);
  if (said.length) yield make("h3", {}, "Texts");
  for (const [field, text] of said) {
    yield make("p", { className: "caption", tabIndex: 0 }, make("span", { className: "soft" }, `${field === "text" ? "as it came" : field}: `), make("bdi", {}, text));
  }
  yield make("h3", {}, "Numbers, and the share of samples at or below");
  yield make("table", {}, make("tbody", {}, ...numbers.map((/** @type {any} */ one) =>
    make("tr", {}, make("th", { scope: "row" }, one.field, ...(limits[one.field] ? [make("span", { className: "soft" }, ` ${limits[one.field]}`)] : [])),
      make("td", {}, short(one.value)),
      make("td", {}, ...(one.share === null ? [] : [make("meter", { min: 0, max: 1, value: one.share, "aria-label": `${one.field}: share at or below` }), ` ${(100 * one.share).toFixed(0)} %`]))))));
  const about = [["id", row.id], ["kind", row.kind], ["source", row.source], ["licence", row.licence], ["record", row.record_id],
    ["span", row.end_us > row.start_us ? `${row.start_us / 1e6} to ${row.end_us / 1e6} s` : ""], ["said with it", row.meta === "{}" ? "" : row.meta],
    ...Object.entries(others)];
  yield make("h3", {}, "About");
  yield list(about.filter(([, value]) => value));
}

/** @param {string} title @param {string} field @param {string} value @param {{rows: any[], total: number}} found @param {string} side */
function* kin(title, field, value, found, side) {
  if (found.total < 2) return;
  yield make("h3", {}, `${title} (${count(found.total)})`);
  yield thumbs(found.rows, side);
  if (found.total > found.rows.length && !side) {
    yield make("button", { type: "button", on: { click: () => { show("find"); only(field, value); } } }, `Show all ${count(found.total)}`);
  }
}

/** What is nearest to a row by each embedding, when asked for. @param {any} row @param {string} name @param {string[]} fields @param {string} side */
function* near(row, name, fields, side) {
  const box = make("div", { "aria-live": "polite" });
  const look = (/** @type {string} */ field) => tried(async () => {
    box.replaceChildren(make("p", { className: "soft" }, "Comparing …"));
    try {
      const found = await ask(`${side}page`, { near: { field, row: row.n }, limit: NEAREST + 1 });
      const others = found.rows.filter((/** @type {any} */ one) => one.n !== row.n).slice(0, NEAREST);
      box.replaceChildren(make("h3", {}, `By ${field}, the cosine`), thumbs(others, side, (one) => make("span", { className: `verdict ${one.outcome}` }, one.cosine.toFixed(4))));
      if (!side) box.append(make("button", { type: "button", on: { click: () => { show("find"); nearest({ field, row: row.n, said: name }); } } }, `Show all ${count(found.total)}`));
    } catch (error) {
      box.replaceChildren();
      throw error;
    }
  });
  yield make("h3", {}, "Nearest by");
  yield make("div", { className: "row" }, ...fields.map((field) => make("button", { type: "button", on: { click: () => look(field) } }, field)));
  yield box;
}

/** Rows to be inspected. @param {any[]} rows @param {string} [side] @param {(row: any) => Node} [said] what stands below each */
export const thumbs = (rows, side = "", said = verdict) => make("div", { className: "thumbs" }, ...rows.map((row) => {
  const words = said(row);
  return make("button", { type: "button", title: row.uri, "aria-label": `${words.textContent}: ${row.uri}`, "aria-current": String(`${side}${row.n}` === shown),
    "data-n": `${side}${row.n}`, on: { click: () => inspect(row.n, side) } }, shot(row, side), words);
}));

/** @param {Record<string, string>} streams @param {string} path where they are decoded */
function* tokens(streams, path) {
  const said = Object.entries(streams);
  if (!said.length) return;
  const box = make("div", { "aria-live": "polite" });
  const decode = async () => {
    box.replaceChildren(make("p", { className: "soft" }, "Decoding …"));
    try {
      box.replaceChildren(...decoded(await ask(path), path));
    } catch (error) {
      box.replaceChildren(make("p", {}, `They cannot be decoded: ${error instanceof Error ? error.message : error}`));
    }
  };
  yield make("h3", {}, "Tokens");
  yield list(said);
  yield make("p", { className: "row" }, make("button", { type: "button", on: { click: decode } }, "Decode its tokens"));
  yield box;
}

/** What tokens decode to, next to the original. @param {any} panel @param {string} path */
function* decoded(panel, path) {
  const image = (/** @type {number} */ file, /** @type {string} */ name) => make("figure", {}, make("img", { alt: name, src: `${path}/${file}` }), make("figcaption", {}, name));
  const player = (/** @type {number} */ file, /** @type {string} */ name) => make("audio", { className: "medium", controls: true, preload: "metadata", src: `${path}/${file}`, "aria-label": name });
  for (const [stream, steps] of Object.entries(panel.images)) {
    yield make("h3", {}, stream);
    for (const one of steps) {
      const sized = one.grid.join(" x ");
      yield make("div", { className: "trip" }, image(one.original, "original"), image(one.ids, `${sized} ids`), image(one.decoded, "decoded"));
      const quality = one.psnr_db === null ? "equal" : `PSNR ${one.psnr_db.toFixed(1)} dB, SSIM ${one.ssim.toFixed(3)}`;
      yield make("p", { className: "soft" }, steps.length > 1 ? `at ${one.time.toFixed(2)} s: ${quality}` : quality);
    }
  }
  for (const [stream, one] of Object.entries(panel.audio)) {
    yield make("h3", {}, stream);
    yield make("div", { className: "trip two" }, image(one.original_image, "original"), image(one.decoded_image, "decoded"));
    yield player(one.original, `${stream}: original`);
    yield player(one.decoded, `${stream}: decoded`);
    yield make("p", { className: "soft" }, `the original above, decoded below; ${one.seconds.toFixed(1)} s${one.si_sdr_db === null ? "" : `, SI-SDR ${one.si_sdr_db.toFixed(1)} dB`}`);
  }
  for (const [stream, one] of Object.entries(panel.texts)) {
    yield make("h3", {}, stream);
    yield make("p", { className: "caption", tabIndex: 0 }, make("bdi", {}, one.decoded));
    yield make("p", { className: "soft" }, `${count(one.tokens)} ids${one.exact === null ? "" : one.exact ? ", which decode to the text" : ", which decode to another text"}`);
  }
  for (const problem of panel.problems) yield make("p", {}, problem);
}

/** @param {string[][]} pairs */
const list = (pairs) => make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, make("bdi", {}, value))]));
