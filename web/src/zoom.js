// What part of a map its plane shows: all of it, or a part that is zoomed and moved by wheel, fingers, keys or buttons.

/** A place on the map, across and up, each from 0 to 1. @typedef {[number, number]} Place */
/** A place on the plane in pixels, from its left and from its top. @typedef {[number, number]} Pixel */

export const MARGIN = 8; // pixels that the shown part keeps off the plane's edge, as in the style of the outline
const MOST = 64; // zoomed; from there on the steps of points can be told apart
const STEP = 2; // a press of a key zooms so much
const PAN = 0.25; // of the plane, by a press of an arrow
const WHEEL = 0.002; // of a notch, whose size is some 100
const PINCH = 0.01; // browsers tell of two fingers on a touchpad as of a wheel with Ctrl, in smaller steps

export class View {
  zoom = 1;
  left = 0; // where the shown part begins, across
  low = 0; // and up

  /** @param {any} plane @param {() => void} changed is called when it shows another part */
  constructor(plane, changed) {
    this.plane = plane;
    this.changed = changed;
  }

  /** @param {Pixel} pixel @returns {Place} */
  place([x, y]) {
    const [width, height] = this.#size();
    return [this.left + (x - MARGIN) / width / this.zoom, this.low + (1 - (y - MARGIN) / height) / this.zoom];
  }

  /** Where a pointer is. @param {MouseEvent} event @returns {Pixel} */
  pixel(event) {
    const box = this.plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** Zoom so that a place lies at a pixel, as far as the map reaches. @param {number} zoom @param {Place} place @param {Pixel} pixel */
  put(zoom, [across, up], [x, y]) {
    const [width, height] = this.#size();
    this.zoom = Math.min(MOST, Math.max(1, zoom));
    const inside = (/** @type {number} */ start) => Math.min(1 - 1 / this.zoom, Math.max(0, start));
    this.left = inside(across - (x - MARGIN) / width / this.zoom);
    this.low = inside(up - (1 - (y - MARGIN) / height) / this.zoom);
    this.changed();
  }

  /** Zoom by a factor about a pixel that keeps its place. @param {number} factor @param {Pixel} [pixel] of itself the middle */
  by(factor, pixel = this.#middle()) {
    this.put(this.zoom * factor, this.place(pixel), pixel);
  }

  /** Move what is shown, in parts of the plane. @param {number} right @param {number} up */
  move(right, up) {
    const [x, y] = this.#middle();
    const [width, height] = this.#size();
    this.put(this.zoom, this.place([x + right * width, y - up * height]), [x, y]);
  }

  /** Show all of the map. */
  all() {
    this.put(1, [0.5, 0.5], this.#middle());
  }

  /** @returns {Pixel} */
  #middle() {
    return [this.plane.clientWidth / 2, this.plane.clientHeight / 2];
  }

  #size() {
    return [this.plane.clientWidth - 2 * MARGIN, this.plane.clientHeight - 2 * MARGIN];
  }
}

/** A key on the plane; true if it is one of those that steer. @param {View} view @param {string} key */
function pressed(view, key) {
  const moved = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] }[key];
  if (moved) view.move(moved[0], moved[1]);
  else if (key === "+" || key === "=") view.by(STEP);
  else if (key === "-") view.by(1 / STEP);
  else if (key === "0") view.all();
  else return false;
  return true;
}

/**
 * Steer a view: by the wheel, by two fingers, by a drag with Shift or the middle button, and by keys. Of a pointer that
 * does so, listeners of the plane that are added later hear nothing.
 * @param {View} view @param {() => void} begun a pointer that they heard of has begun to steer
 */
export function steer(view, begun) {
  const { plane } = view;
  const held = /** @type {Map<number, Pixel>} */ (new Map());
  let steers = false;
  const middle = () => /** @type {Pixel} */ ([0, 1].map((i) => [...held.values()].reduce((sum, one) => sum + one[i], 0) / held.size));
  const apart = () => {
    const [one, other] = held.values();
    return other ? Math.hypot(one[0] - other[0], one[1] - other[1]) || 1 : 1;
  };
  plane.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 33; // of some browsers, three to a notch
    view.by(Math.exp(-event.deltaY * lines * (event.ctrlKey ? PINCH : WHEEL)), view.pixel(event));
  }, { passive: false });
  plane.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && pressed(view, event.key)) event.preventDefault();
  });
  plane.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    if (event.button === 2 || held.size === 2) return event.stopImmediatePropagation();
    plane.setPointerCapture(event.pointerId);
    held.set(event.pointerId, view.pixel(event));
    if (held.size === 2) begun();
    else steers = event.button === 1 || event.shiftKey;
    steers ||= held.size === 2;
    if (steers) event.stopImmediatePropagation();
  });
  plane.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!steers) return;
    event.stopImmediatePropagation();
    if (!held.has(event.pointerId)) return;
    const [place, wide] = [view.place(middle()), apart()];
    held.set(event.pointerId, view.pixel(event));
    view.put((view.zoom * apart()) / wide, place, middle());
  });
  for (const end of ["pointerup", "pointercancel"]) {
    plane.addEventListener(end, (/** @type {PointerEvent} */ event) => {
      held.delete(event.pointerId);
      if (steers) event.stopImmediatePropagation();
      steers &&= held.size > 0; // a finger that stays goes on moving the map
    });
  }
}
