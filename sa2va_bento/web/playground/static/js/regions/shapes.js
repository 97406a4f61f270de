/** Regions: their geometry, and how the API takes them. */

import { contextOf } from "../masks/grid.js";

/** @typedef {import("../types.js").Region} Region */
/** @typedef {import("../types.js").Point} Point */
/** @typedef {{ width: number, height: number }} Size */

/**
 * @param {Region} region
 * @param {Size} size
 */
export function shapeOf(region, size) {
  if (region.kind === "box") return { box: [region.x, region.y, region.w, region.h] };
  if (region.kind === "lasso") return { polygon: region.points.map(({ x, y }) => [x, y]) };
  return { mask: { data: strokePng(region, size) } };
}

/**
 * @param {import("../types.js").Brush} region
 * @param {Size} size
 */
function strokePng({ points, width }, size) {
  const context = contextOf(size.width, size.height);
  context.fillStyle = "black";
  context.fillRect(0, 0, size.width, size.height);
  context.strokeStyle = "white";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(points[0].x, points[0].y);
  for (const { x, y } of [...points, points[points.length - 1]]) context.lineTo(x, y);
  context.stroke();
  return context.canvas.toDataURL("image/png");
}

/**
 * The box around a region: x, y, w, h.
 * @param {Region} region
 * @returns {{ x: number, y: number, w: number, h: number }}
 */
export function boundsOf(region) {
  if (region.kind === "box") return region;
  const [xs, ys] = [region.points.map(({ x }) => x), region.points.map(({ y }) => y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, w: Math.max(...xs) - x, h: Math.max(...ys) - y };
}

/**
 * A region moved, not beyond the picture.
 * @param {Region} region
 * @param {number} dx
 * @param {number} dy
 * @param {Size} size
 * @returns {Region}
 */
export function moved(region, dx, dy, size) {
  const { x, y, w, h } = boundsOf(region);
  const right = clamp(dx, -x, size.width - x - w);
  const down = clamp(dy, -y, size.height - y - h);
  if (region.kind === "box") return { ...region, x: x + right, y: y + down };
  return { ...region, points: region.points.map((point) => ({ x: point.x + right, y: point.y + down })) };
}

/**
 * A box whose corner was pulled to a point, or whose sides were typed.
 * @param {Partial<import("../types.js").Box> & { x: number, y: number, w: number, h: number }} box
 * @param {Size} size
 * @returns {import("../types.js").Box}
 */
export function fitted({ x, y, w, h }, size) {
  const left = clamp(Math.round(x), 0, size.width - 1);
  const top = clamp(Math.round(y), 0, size.height - 1);
  return {
    kind: "box",
    x: left,
    y: top,
    w: clamp(Math.round(w), 1, size.width - left),
    h: clamp(Math.round(h), 1, size.height - top),
  };
}

/**
 * @param {number} value
 * @param {number} least
 * @param {number} most
 */
export function clamp(value, least, most) {
  return Math.max(least, Math.min(most, value));
}

/**
 * What was drawn with a tool from the first point to the last; null of a mere touch.
 * @param {"box" | "lasso" | "brush"} tool
 * @param {Point[]} points
 * @param {number} width of the brush, in pixels
 * @param {Size} size
 * @returns {Region | null}
 */
export function drawn(tool, points, width, size) {
  if (tool === "brush") return { kind: "brush", points, width };
  const ends = tool === "box" ? [points[0], points[points.length - 1]] : points;
  const { x, y, w, h } = boundsOf({ kind: "lasso", points: ends });
  if (w < 2 || h < 2) return null;
  if (tool === "box") return fitted({ x, y, w, h }, size);
  return points.length > 2 ? { kind: "lasso", points: thinned(points, 2000) } : null;
}

/**
 * @param {Point[]} points
 * @param {number} most
 */
function thinned(points, most) {
  const step = Math.ceil(points.length / most);
  return points.filter((_, i) => i % step === 0);
}
