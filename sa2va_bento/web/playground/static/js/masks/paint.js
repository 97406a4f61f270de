/** Draws masks over a picture or a frame: what is outside of them, their fill, their outline. */

import { colorOf } from "../colors.js";
import { contextOf, cutAt, scaled } from "./grid.js";

/** @typedef {import("../types.js").View} View */
/** @typedef {{ id: number, grid: import("../types.js").Grid }} Layer */
/** @typedef {{ rgb: number[], alpha: number, edge: number }} Ink */

const CHECKER = [206, 236];
const SQUARE = 12;
const BLUR = 24;
const LIT = 0.8;
const DIMMED = 0.35;
const RIM = [255, 255, 255];

/**
 * @param {CanvasRenderingContext2D} context of a canvas above the picture
 * @param {CanvasImageSource} source the picture
 * @param {Layer[]} layers
 * @param {View} view
 * @param {number | null} lit
 */
export function paint(context, source, layers, view, lit) {
  const { width: w, height: h } = context.canvas;
  context.clearRect(0, 0, w, h);
  const isCut = view.background !== "picture" && layers.length > 0;
  if (isCut && view.background === "blur") drawBlurred(context, source);
  const image = isCut && view.background === "blur" ? context.getImageData(0, 0, w, h) : context.createImageData(w, h);
  if (isCut && view.background === "cutout") drawChecker(image);
  for (const { id, grid } of layers) {
    const cut = cutAt(scaled(grid, w, h), view.threshold);
    blend(image, cut, inkOf(id, view, lit, isCut, Math.max(w, h)));
  }
  context.putImageData(image, 0, 0);
}

/**
 * @param {number} id
 * @param {View} view
 * @param {number | null} lit
 * @param {boolean} isCut
 * @param {number} side
 * @returns {Ink}
 */
function inkOf(id, view, lit, isCut, side) {
  const share = lit === null ? 1 : lit === id ? 1 : DIMMED;
  const fill = isCut ? 0 : lit === id ? Math.max(view.opacity, LIT) : view.opacity * share;
  const edge = view.outline || lit === id ? Math.max(2, Math.round(side / 200)) : 0;
  return { rgb: colorOf(id), alpha: Math.round(255 * fill), edge };
}

/**
 * Writes a mask into the layer's pixels; what was there, of the outside or another mask, gives way.
 * @param {ImageData} image
 * @param {import("./grid.js").Cut} cut
 * @param {Ink} ink
 */
function blend({ data, width: w, height: h }, cut, { rgb, alpha, edge }) {
  const [left, top, across, down] = cut.bbox;
  for (let y = top; y < top + down; y += 1) {
    for (let x = left; x < left + across; x += 1) {
      const i = y * w + x;
      if (!cut.data[i]) continue;
      const near = edge ? edgeDistance(cut.data, x, y, w, h, edge) : 0;
      const ink = near === 1 ? RIM : rgb;
      data[4 * i] = ink[0];
      data[4 * i + 1] = ink[1];
      data[4 * i + 2] = ink[2];
      data[4 * i + 3] = near ? 255 : alpha;
    }
  }
}

/**
 * How far a pixel inside is from the outside, 0 where that is more than `reach`; the picture's border is no outside.
 * @param {Uint8Array} inside
 * @param {number} x
 * @param {number} y
 * @param {number} w
 * @param {number} h
 * @param {number} reach
 */
function edgeDistance(inside, x, y, w, h, reach) {
  for (let step = 1; step <= reach; step += 1) {
    if (x >= step && !inside[y * w + x - step]) return step;
    if (x + step < w && !inside[y * w + x + step]) return step;
    if (y >= step && !inside[(y - step) * w + x]) return step;
    if (y + step < h && !inside[(y + step) * w + x]) return step;
  }
  return 0;
}

/** @param {ImageData} image */
function drawChecker({ data, width: w, height: h }) {
  for (let y = 0, i = 0; y < h; y += 1) {
    for (let x = 0; x < w; x += 1, i += 4) {
      const grey = CHECKER[(Math.floor(x / SQUARE) + Math.floor(y / SQUARE)) % 2];
      data[i] = data[i + 1] = data[i + 2] = grey;
      data[i + 3] = 255;
    }
  }
}

/**
 * Blurs by way of a small copy: filters of canvases are not in every browser.
 * @param {CanvasRenderingContext2D} context
 * @param {CanvasImageSource} source
 */
function drawBlurred(context, source) {
  const { width: w, height: h } = context.canvas;
  const small = contextOf(Math.max(2, Math.round(w / BLUR)), Math.max(2, Math.round(h / BLUR)));
  small.imageSmoothingQuality = "high";
  small.drawImage(source, 0, 0, small.canvas.width, small.canvas.height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small.canvas, 0, 0, w, h);
}

/**
 * The mask at a pixel, the topmost.
 * @param {Layer[]} layers
 * @param {number} threshold
 * @param {number} x share of the width
 * @param {number} y share of the height
 */
export function layerAt(layers, threshold, x, y) {
  const hit = layers.findLast(({ grid }) => {
    const [column, row] = [Math.floor(x * grid.w), Math.floor(y * grid.h)];
    return column >= 0 && row >= 0 && column < grid.w && row < grid.h && grid.data[row * grid.w + column] > 255 * threshold;
  });
  return hit ? hit.id : null;
}
