/** Drawing and moving regions, with a pointer or with keys: Enter puts the pen down and lifts it, arrows move it. */

import { boundsOf, clamp, drawn, fitted, moved } from "./shapes.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").Point} Point */
/** @typedef {{ points: Point[], drag: null | { place: number, isCorner: boolean, from: Point } }} Stroke */
/** @typedef {{ cursor: Point | null, points: Point[], width: number }} Sketch */

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const BRUSH = 0.08;
const CORNER = 0.03;

/**
 * @param {Store} store
 * @param {SVGSVGElement} surface over the picture
 * @param {(sketch: Sketch) => void} onSketch what is being drawn
 */
export function installPen(store, surface, onSketch) {
  /** @type {Stroke | null} */
  let stroke = null;
  /** @type {Point | null} */
  let cursor = null;

  function size() {
    const { media } = store.get();
    return media?.kind === "picture" ? { width: media.width, height: media.height } : { width: 1, height: 1 };
  }
  const width = () => Math.round(BRUSH * Math.max(size().width, size().height));
  const show = () => onSketch({ cursor, points: stroke && !stroke.drag ? stroke.points : [], width: width() });

  /** @param {PointerEvent} event */
  function place(event) {
    const box = surface.getBoundingClientRect();
    const { width: w, height: h } = size();
    return {
      x: clamp(Math.round(((event.clientX - box.left) / box.width) * w), 0, w),
      y: clamp(Math.round(((event.clientY - box.top) / box.height) * h), 0, h),
    };
  }

  /** @param {Point} point */
  function down(point) {
    const { tool, regions } = store.get();
    if (tool !== "select") stroke = { points: [point], drag: null };
    else {
      const hit = grabbed(regions, point, size());
      stroke = hit && { points: [point], drag: { ...hit, from: point } };
      store.set({ selected: hit ? hit.place : null });
    }
    show();
  }

  /** @param {Point} point */
  function move(point) {
    if (!stroke) return;
    if (stroke.drag) drag(point, stroke.drag);
    else stroke.points.push(point);
    show();
  }

  /**
   * @param {Point} point
   * @param {NonNullable<Stroke["drag"]>} grip
   */
  function drag(point, grip) {
    const region = store.get().regions[grip.place];
    const [dx, dy] = [point.x - grip.from.x, point.y - grip.from.y];
    const isPulled = grip.isCorner && region.kind === "box";
    const next = isPulled ? fitted({ ...region, w: region.w + dx, h: region.h + dy }, size()) : moved(region, dx, dy, size());
    store.set({ regions: store.get().regions.map((one, i) => (i === grip.place ? next : one)) });
    grip.from = point;
  }

  function up() {
    const { tool, regions } = store.get();
    if (stroke && !stroke.drag && tool !== "select") {
      const region = drawn(tool, stroke.points, width(), size());
      if (region) {
        const name = `region${regions.length + 1}`;
        store.set({ regions: [...regions, region], selected: regions.length, said: `Drawn: ${name}.` });
      }
    }
    stroke = null;
    show();
  }

  function giveUp() {
    stroke = null;
    show();
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (store.get().tool === "select") return;
    const { width: w, height: h } = size();
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(w, h) / 50));
    const arrow = ARROWS[event.key];
    cursor ??= { x: Math.round(w / 2), y: Math.round(h / 2) };
    if (arrow) {
      cursor = { x: clamp(cursor.x + step * arrow[0], 0, w), y: clamp(cursor.y + step * arrow[1], 0, h) };
      move(cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      if (stroke) up();
      else {
        down(cursor);
        store.set({ said: "Pen down: move with the arrow keys, Enter ends." });
      }
    } else if (event.key === "Escape" && stroke) giveUp();
    else return;
    event.preventDefault();
    show();
  }

  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    cursor = null;
    down(place(event));
    if (stroke) surface.setPointerCapture(event.pointerId);
  });
  surface.addEventListener("pointermove", (event) => move(place(event)));
  surface.addEventListener("pointerup", up);
  surface.addEventListener("pointercancel", giveUp);
  surface.addEventListener("keydown", onKey);
  surface.addEventListener("blur", () => {
    cursor = null;
    giveUp();
  });
}

/**
 * The topmost region at a point, and whether it is held by the lower right corner of its box.
 * @param {import("../types.js").Region[]} regions
 * @param {Point} point
 * @param {{ width: number, height: number }} size
 */
function grabbed(regions, point, size) {
  const near = CORNER * Math.max(size.width, size.height);
  for (let place = regions.length - 1; place >= 0; place -= 1) {
    const { x, y, w, h } = boundsOf(regions[place]);
    const isCorner = Math.hypot(point.x - x - w, point.y - y - h) < near;
    const isInside = point.x >= x && point.y >= y && point.x <= x + w && point.y <= y + h;
    if (isCorner || isInside) return { place, isCorner };
  }
  return null;
}
