// The page of `curate browse`.

import { ask, at, count, tried } from "./dom.js";
import * as compare from "./compare.js";
import * as decide from "./decide.js";
import * as find from "./find.js";
import * as map from "./map.js";
import { inspected, shut } from "./inspect.js";
import { mark, marks, take } from "./labels.js";
import { onShow, show } from "./views.js";

/** @param {KeyboardEvent} event */
function pressed(event) {
  const typing = /** @type {HTMLElement} */ (event.target).matches("input, select");
  if (event.key === "Escape" && !at("save").open && !at("inspect").hidden) shut();
  else if (event.key === "/" && !typing) {
    event.preventDefault();
    show("find");
    at("search").focus();
  } else if (marks(event) && !typing && !at("save").open) {
    const row = /** @type {HTMLElement} */ (event.target).closest("[data-n]")?.getAttribute("data-n") ?? inspected();
    if (row) mark(row, event.key);
  }
}

async function begin() {
  onShow("decide", decide.open);
  onShow("compare", compare.open);
  onShow("map", map.open);
  for (const button of at("views").querySelectorAll("button")) button.addEventListener("click", () => show(button.dataset.view));
  document.addEventListener("keydown", pressed);
  await tried(async () => {
    const shown = find.refresh(); // it needs neither
    const [about, told] = await Promise.all([ask("about"), ask("labels")]);
    document.title = `${about.name} · curate browse`;
    at("name").textContent = about.name;
    const { total, kept } = about.counts.samples;
    at("sums").textContent = `version ${about.version} · ${count(kept)} of ${count(total)} samples kept`;
    at("views").querySelector("[data-view=compare]").hidden = !about.compared;
    map.begin(about);
    take(told);
    find.begin(about);
    await shown;
  });
}

begin();
