// The page's views, of which one is shown.

import { at } from "./dom.js";

const opened = /** @type {Record<string, () => void>} */ ({});

/** What is done when a view is shown. @param {string} view @param {() => void} act */
export function onShow(view, act) {
  opened[view] = act;
}

/** @param {string} view */
export function show(view) {
  for (const button of at("views").querySelectorAll("button")) {
    const on = button.dataset.view === view;
    if (on) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    at(button.dataset.view).hidden = !on;
  }
  opened[view]?.();
}
