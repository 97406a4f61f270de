/** Masks as files, each at the picture's own size and cut as the page shows it. */

import { contextOf, cutAt } from "./grid.js";
import { outlines } from "./contours.js";
import { paint } from "./paint.js";
import { encodeRle } from "./rle.js";

/** @typedef {import("../types.js").Segment} Segment */
/** @typedef {import("../types.js").Picture} Picture */
/** @typedef {import("../types.js").View} View */

/** @param {Segment} segment */
export function nameOf(segment) {
  return segment.phrase ?? `mask ${segment.id + 1}`;
}

/**
 * A mask as a grey PNG, 255 inside.
 * @param {Segment} segment
 * @param {number} threshold
 */
export function maskPng({ grid }, threshold) {
  const context = contextOf(grid.w, grid.h);
  const image = context.createImageData(grid.w, grid.h);
  cutAt(grid, threshold).data.forEach((inside, i) => image.data.set([255 * inside, 255 * inside, 255 * inside, 255], 4 * i));
  context.putImageData(image, 0, 0);
  return toPng(context.canvas);
}

/**
 * COCO's annotations, with compressed run lengths.
 * @param {Segment[]} segments
 * @param {Picture} picture
 * @param {number} threshold
 */
export function cocoJson(segments, picture, threshold) {
  const names = [...new Set(segments.map(nameOf))];
  const annotations = segments.map((segment) => {
    const { w, h } = segment.grid;
    const { data, area, bbox } = cutAt(segment.grid, threshold);
    const segmentation = { size: [h, w], counts: encodeRle(data, w, h) };
    const category_id = names.indexOf(nameOf(segment)) + 1;
    return { id: segment.id + 1, image_id: 1, category_id, segmentation, bbox, area, iscrowd: 0, score: segment.score };
  });
  const { width, height, name } = picture;
  const categories = names.map((category, i) => ({ id: i + 1, name: category }));
  const whole = { images: [{ id: 1, file_name: name, width, height }], categories, annotations };
  return new Blob([JSON.stringify(whole, null, 1)], { type: "application/json" });
}

/**
 * YOLO's segmentation labels: a line for each connected part, its class and corners as shares of width and height.
 * @param {Segment[]} segments
 * @param {number} threshold
 */
export function yoloText(segments, threshold) {
  const names = [...new Set(segments.map(nameOf))];
  const lines = segments.flatMap((segment) => {
    const { w, h } = segment.grid;
    const parts = outlines(cutAt(segment.grid, threshold).data, w, h);
    const numbers = parts.map((part) => part.map(([x, y]) => `${share(x / w)} ${share(y / h)}`).join(" "));
    return numbers.map((corners) => `${names.indexOf(nameOf(segment))} ${corners}`);
  });
  return new Blob([lines.map((line) => `${line}\n`).join("")], { type: "text/plain" });
}

/** @param {number} number */
function share(number) {
  return Number(number.toFixed(6));
}

/**
 * The picture as it is seen, at its own size; what a cut-out leaves out is transparent.
 * @param {Segment[]} segments those that are not hidden
 * @param {Picture} picture
 * @param {View} view
 */
export function overlayPng(segments, picture, view) {
  const context = contextOf(picture.width, picture.height);
  context.drawImage(picture.bitmap, 0, 0);
  if (view.background === "cutout" && segments.length) keepInside(context, segments, view.threshold);
  else {
    const above = contextOf(picture.width, picture.height);
    paint(above, picture.bitmap, segments, view, null);
    context.drawImage(above.canvas, 0, 0);
  }
  return toPng(context.canvas);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Segment[]} segments
 * @param {number} threshold
 */
function keepInside(context, segments, threshold) {
  const image = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  const cuts = segments.map(({ grid }) => cutAt(grid, threshold).data);
  for (let i = 0; i < image.width * image.height; i += 1) {
    if (!cuts.some((cut) => cut[i])) image.data[4 * i + 3] = 0;
  }
  context.putImageData(image, 0, 0);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {Promise<Blob>}
 */
function toPng(canvas) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture can't be written"))), "image/png");
  });
}
