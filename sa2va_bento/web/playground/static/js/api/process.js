import { decodeGrid } from "../masks/grid.js";
import { shapeOf } from "../regions/shapes.js";
import { ApiError, request } from "./http.js";
import { eventsOf } from "./sse.js";

/** @typedef {import("../types.js").Segment} Segment */
/**
 * @typedef {{
 *   onStart: () => void, onText: (text: string) => void, onSegment: (segment: Segment) => void,
 *   onDone: (answer: any, segments: Segment[]) => void
 * }} Listener
 */

/**
 * Asks about a picture (`POST /process_stream`) and tells what comes. Whoever aborts frees the model.
 * @param {import("../types.js").Picture} picture
 * @param {import("../types.js").Turn} turn
 * @param {Listener} listener
 * @param {AbortSignal} signal
 */
export async function askAboutPicture(picture, turn, listener, signal) {
  const response = await request("process_stream", { method: "POST", body: formOf(picture, turn), signal });
  /** @type {Map<number, Promise<Segment>>} */
  const segments = new Map();
  for await (const { name, data } of eventsOf(response)) {
    if (name === "start") listener.onStart();
    else if (name === "token") listener.onText(data.text);
    else if (name === "segment") {
      const segment = toSegment(data);
      segments.set(data.id, segment);
      listener.onSegment(await segment);
    } else if (name === "error") throw new ApiError(data.status, data.error);
    else if (name === "done") {
      const all = data.segments.map((/** @type {any} */ one) => segments.get(one.id) ?? toSegment(one));
      return listener.onDone(data, await Promise.all(all));
    }
  }
  throw new ApiError(0, "the answer broke off");
}

/**
 * @param {import("../types.js").Picture} picture
 * @param {import("../types.js").Turn} turn
 */
function formOf(picture, turn) {
  const form = new FormData();
  form.append("image", picture.file, picture.name);
  form.append("prompt", turn.prompt);
  form.append("mask_format", "probability");
  if (turn.history.length) form.append("history", JSON.stringify(turn.history));
  if (turn.regions.length) {
    form.append("regions", JSON.stringify(turn.regions.map((region) => shapeOf(region, picture))));
  }
  return form;
}

/**
 * @param {any} data
 * @returns {Promise<Segment>}
 */
async function toSegment(data) {
  const { id, phrase, score, object_score } = data;
  return { id, phrase, score, object_score, grid: await decodeGrid(data.mask.data) };
}
