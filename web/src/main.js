// The page of `curate browse`.

import { ask, at, count, tried } from "./dom.js";
import * as compare from "./compare.js";
import * as decide from "./decide.js";
import * as find from "./find.js";
import * as map from "./map.js";
import { shut } from "./inspect.js";
import { onShow, show } from "./views.js";

/** @param {KeyboardEvent} event */
function pressed(event) {
  const typing = /** @type {HTMLElement} */ (event.target).matches("input, select");
  if (event.key === "Escape" && !at("save").open && !at("inspect").hidden) shut();
  else if (event.key === "/" && !typing) {
    event.preventDefault();
    show("find");
    at("search").focus();
  }
}

async function begin() {
  onShow("decide", decide.open);
  onShow("compare", compare.open);
  onShow("map", map.open);
  for (const button of at("views").querySelectorAll("button")) button.addEventListener("click", () => show(button.dataset.view));
  document.addEventListener("keydown", pressed);
  await tried(async () => {
    const about = await ask("about");
    document.title = `${about.name} · curate browse`;
    at("name").textContent = about.name;
    const { total, kept } = about.counts.samples;
    at("sums").textContent = `version ${about.version} · ${count(kept)} of ${count(total)} samples kept`;
    at("views").querySelector("[data-view=compare]").hidden = !about.compared;
    map.begin(about);
    await find.begin(about);
  });
}

begin();
