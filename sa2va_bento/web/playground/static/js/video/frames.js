/** Frames of a clip as a job tells of them, and what of them is drawn. */

import { decodeRle } from "../masks/rle.js";

/** @typedef {import("../types.js").Frame} Frame */
/** @typedef {import("../types.js").Turn} Turn */

/**
 * A line of the result as the page keeps it; masks stay run lengths until they are drawn.
 * @param {any} line
 * @returns {Frame}
 */
export function frameOf(line) {
  /** @type {Frame["seen"]} */
  const seen = new Map();
  for (const { id, present, bbox, area, score, mask } of line.segments) {
    seen.set(id, { id, present, bbox, area, score, counts: mask.counts });
  }
  const [h, w] = line.segments[0]?.mask.size ?? [0, 0];
  return { index: line.frame_index, time: line.timestamp_s ?? line.frame_index / 10, size: [w, h], seen };
}

/**
 * Frames in order.
 * @param {Turn} turn
 * @returns {Frame[]}
 */
export function framesOf(turn) {
  return [...turn.frames.values()].sort((a, b) => a.index - b.index);
}

/**
 * The frame that is shown at a time: the last that has begun.
 * @param {Frame[]} frames in order
 * @param {number} time seconds
 */
export function frameAt(frames, time) {
  return frames.findLast((frame) => frame.time <= time + 0.001) ?? frames[0] ?? null;
}

/** @type {WeakMap<Frame, { id: number, grid: import("../types.js").Grid }[]>} */
const layers = new WeakMap();

/**
 * The tracks of a frame as layers, those that are there.
 * @param {Frame} frame
 */
export function layersOf(frame) {
  let known = layers.get(frame);
  if (!known) {
    const [w, h] = frame.size;
    const present = [...frame.seen.values()].filter((track) => track.present);
    known = present.map(({ id, counts }) => ({ id, grid: { w, h, data: decodeRle(counts, w, h, 255) } }));
    layers.set(frame, known);
  }
  return known;
}

/**
 * Runs of frames in which a track is there, [first, last] by place.
 * @param {Frame[]} frames in order
 * @param {number} id
 * @returns {[number, number][]}
 */
export function presence(frames, id) {
  /** @type {[number, number][]} */
  const runs = [];
  frames.forEach((frame, place) => {
    if (!frame.seen.get(id)?.present) return;
    const last = runs[runs.length - 1];
    if (last && last[1] === place - 1) last[1] = place;
    else runs.push([place, place]);
  });
  return runs;
}

/**
 * The tracks' ids in order.
 * @param {Frame[]} frames
 */
export function tracksOf(frames) {
  return [...(frames[0]?.seen.keys() ?? [])];
}
