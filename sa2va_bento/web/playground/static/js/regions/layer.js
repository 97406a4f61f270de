/** Regions as they are drawn over the picture. */

import { boundsOf } from "./shapes.js";

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {import("../types.js").Region} Region */

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function node(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  return element;
}

/** @param {import("../types.js").Point[]} points */
function pathOf(points) {
  const places = points.map(({ x, y }) => `${x} ${y}`);
  return `M${places.join("L")}${places.length === 1 ? `L${places[0]}` : ""}`;
}

/**
 * @param {Region} region
 * @param {number} number from 1
 * @param {boolean} isSelected
 * @param {number} unit a line's width, in pixels of the picture
 */
function drawing(region, number, isSelected, unit) {
  const group = node("g", { class: `region ${region.kind}${isSelected ? " selected" : ""}` });
  if (region.kind === "box") {
    const { x, y, w, h } = region;
    group.append(node("rect", { x, y, width: w, height: h, class: "shape" }));
    if (isSelected) group.append(node("circle", { cx: x + w, cy: y + h, r: 4 * unit, class: "grip" }));
  } else if (region.kind === "lasso") group.append(node("path", { d: `${pathOf(region.points)}Z`, class: "shape" }));
  else group.append(node("path", { d: pathOf(region.points), class: "stroke", "stroke-width": region.width }));
  const { x, y } = boundsOf(region);
  const size = 11 * unit;
  const [left, top] = [Math.max(0, x), Math.max(0, y - 1.5 * size)];
  group.append(node("rect", { x: left, y: top, width: 5 * size, height: 1.4 * size, rx: 2 * unit, class: "plate" }));
  group.append(node("text", { x: left + 0.3 * size, y: top + 1.05 * size, "font-size": size }, `region${number}`));
  return group;
}

/**
 * @param {SVGSVGElement} surface
 * @param {{ width: number, height: number }} size
 * @param {Region[]} regions
 * @param {number | null} selected
 * @param {import("../types.js").Tool} tool
 * @param {import("./pen.js").Sketch} sketch
 */
export function drawRegions(surface, size, regions, selected, tool, sketch) {
  const unit = size.width / Math.max(1, surface.clientWidth || size.width);
  surface.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  surface.style.setProperty("--unit", String(unit));
  const shapes = regions.map((region, i) => drawing(region, i + 1, i === selected, unit));
  surface.replaceChildren(...shapes, ...drawSketch(sketch, tool, unit));
}

/**
 * @param {import("./pen.js").Sketch} sketch
 * @param {import("../types.js").Tool} tool
 * @param {number} unit
 */
function drawSketch({ cursor, points, width }, tool, unit) {
  const nodes = [];
  if (points.length && tool === "box") {
    const [first, last] = [points[0], points[points.length - 1]];
    const { x, y, w, h } = boundsOf({ kind: "lasso", points: [first, last] });
    nodes.push(node("rect", { x, y, width: w, height: h, class: "shape sketch" }));
  } else if (points.length) {
    const attributes = { d: pathOf(points), class: tool === "brush" ? "stroke sketch" : "shape sketch" };
    nodes.push(node("path", tool === "brush" ? { ...attributes, "stroke-width": width } : attributes));
  }
  if (cursor) {
    const { x, y } = cursor;
    const arm = 10 * unit;
    nodes.push(node("path", { d: `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`, class: "cursor" }));
  }
  return nodes;
}
