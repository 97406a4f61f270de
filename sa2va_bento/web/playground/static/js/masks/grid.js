/** Probabilities and what a threshold makes of them. */

/** @typedef {import("../types.js").Grid} Grid */
/** @typedef {{ data: Uint8Array, area: number, bbox: [number, number, number, number] }} Cut 1 inside; bbox x, y, w, h. */

/**
 * The levels of a grey PNG (a data URL), as they are written in it.
 * @param {string} url
 * @returns {Promise<Grid>}
 */
export async function decodeGrid(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (character) => character.charCodeAt(0));
  const options = /** @type {const} */ ({ colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), options);
  const { width: w, height: h } = bitmap;
  const context = contextOf(w, h);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, w, h);
  const levels = new Uint8Array(w * h);
  for (let i = 0; i < levels.length; i += 1) levels[i] = data[4 * i];
  return { w, h, data: levels };
}

/**
 * The context of a new canvas that is read.
 * @param {number} w
 * @param {number} h
 */
export function contextOf(w, h) {
  const canvas = document.createElement("canvas");
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser draws nothing");
  return context;
}

/** @type {WeakMap<Grid, { threshold: number, cut: Cut }>} */
const cuts = new WeakMap();

/**
 * The mask at a threshold, as `mask_threshold` cuts it: what is above.
 * @param {Grid} grid
 * @param {number} threshold 0 to 1
 * @returns {Cut}
 */
export function cutAt(grid, threshold) {
  const known = cuts.get(grid);
  if (known && known.threshold === threshold) return known.cut;
  const cut = cutNow(grid, 255 * threshold);
  cuts.set(grid, { threshold, cut });
  return cut;
}

/**
 * @param {Grid} grid
 * @param {number} level
 * @returns {Cut}
 */
function cutNow({ w, h, data }, level) {
  const inside = new Uint8Array(w * h);
  let [area, left, top, right, bottom] = [0, w, h, -1, -1];
  for (let y = 0, i = 0; y < h; y += 1) {
    for (let x = 0; x < w; x += 1, i += 1) {
      if (data[i] <= level) continue;
      inside[i] = 1;
      area += 1;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  }
  return { data: inside, area, bbox: area ? [left, top, right - left + 1, bottom - top + 1] : [0, 0, 0, 0] };
}

/** @type {WeakMap<Grid, Grid>} */
const scaledGrids = new WeakMap();

/**
 * A grid at the size at which it is drawn (nearest neighbour).
 * @param {Grid} grid
 * @param {number} w
 * @param {number} h
 * @returns {Grid}
 */
export function scaled(grid, w, h) {
  if (grid.w === w && grid.h === h) return grid;
  const known = scaledGrids.get(grid);
  if (known && known.w === w && known.h === h) return known;
  const data = new Uint8Array(w * h);
  for (let y = 0, i = 0; y < h; y += 1) {
    const row = Math.floor(((y + 0.5) * grid.h) / h) * grid.w;
    for (let x = 0; x < w; x += 1, i += 1) data[i] = grid.data[row + Math.floor(((x + 0.5) * grid.w) / w)];
  }
  const small = { w, h, data };
  scaledGrids.set(grid, small);
  return small;
}
