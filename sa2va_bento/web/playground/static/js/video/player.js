/** Plays a clip under its tracks: play, scrub, step by step, and a row for each track that shows where it is. */

import { resultOf } from "../api/jobs.js";
import { explain } from "../api/explain.js";
import { cssColor } from "../colors.js";
import { byId, download, el, fill } from "../dom.js";
import { shownTurn } from "../store.js";
import { framesOf, presence, tracksOf } from "./frames.js";
import { toggled } from "../views/masks.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Turn} Turn */

const STEP_S = 1 / 12;
const INTO_FRAME_S = 0.01;

/** @param {Store} store */
export function mountPlayer(store) {
  const film = byId("film", HTMLVideoElement);
  const play = byId("play", HTMLButtonElement);
  const scrub = byId("scrub", HTMLInputElement);
  const rows = byId("tracks", HTMLUListElement);

  play.addEventListener("click", () => (film.paused ? film.play() : film.pause()));
  for (const name of ["play", "pause", "ended"]) {
    film.addEventListener(name, () => (play.textContent = film.paused ? "Play" : "Pause"));
  }
  scrub.addEventListener("input", () => {
    film.pause();
    film.currentTime = scrub.valueAsNumber + INTO_FRAME_S; // at its very start some browsers show the frame before
  });
  const showTime = (/** @type {number} */ time) => time !== store.get().time && store.set({ time });
  followFrames(film, showTime);
  film.addEventListener("loadedmetadata", () => (scrub.max = String(Math.max(0.01, film.duration || 0))));
  film.addEventListener("error", () => film.src && store.set({ problem: unplayable }));
  byId("save-overlay", HTMLButtonElement).addEventListener("click", () => save(store, "overlay", "overlay.mp4"));
  byId("save-tracks", HTMLButtonElement).addEventListener("click", () => save(store, "youtube_vis", "tracks.json"));

  store.watch((state, before) => {
    const turn = state.media?.kind === "clip" ? shownTurn(state) : null;
    byId("player", HTMLElement).hidden = state.media?.kind !== "clip";
    if (turn !== null && turn.frames.size > 1) scrub.step = String(stepOf(turn));
    if (state.time !== before?.time) showClock(scrub, state.time, film.duration);
    byId("clip-downloads", HTMLElement).hidden = turn?.state !== "done" || !turn.frames.size;
    const isSame = before && state.turns === before.turns && state.shown === before.shown && state.hidden === before.hidden;
    if (!isSame) fill(rows, ...(turn ? rowsOf(turn, state, store) : []));
    markNow(rows, turn, state);
  });
}

/**
 * Seconds from one frame that was looked at to the next.
 * @param {Turn} turn
 */
function stepOf(turn) {
  const [first, second] = framesOf(turn);
  return second.time > first.time ? second.time - first.time : STEP_S;
}

const unplayable = {
  status: 415,
  title: "This browser can't play that video",
  detail: "It can be asked about all the same; when the answer is there, download it with its masks drawn in.",
  retryAfter: null,
};

/**
 * Tells the time of every frame that is shown, so that masks move with it. What is told of a frame after it was sought
 * comes late, and not in every browser: while the film stands, its own clock counts.
 * @param {HTMLVideoElement} film
 * @param {(time: number) => void} onTime
 */
function followFrames(film, onTime) {
  film.addEventListener("seeked", () => onTime(film.currentTime));
  if (!film.requestVideoFrameCallback) {
    film.addEventListener("timeupdate", () => onTime(film.currentTime));
    return;
  }
  /** @type {VideoFrameRequestCallback} */
  const follow = (_, { mediaTime }) => {
    if (!film.paused) onTime(mediaTime);
    film.requestVideoFrameCallback(follow);
  };
  film.requestVideoFrameCallback(follow);
}

/**
 * @param {HTMLInputElement} scrub
 * @param {number} time
 * @param {number} length
 */
function showClock(scrub, time, length) {
  scrub.value = String(time);
  const words = `${time.toFixed(2)} s${Number.isFinite(length) ? ` of ${length.toFixed(2)} s` : ""}`;
  scrub.setAttribute("aria-valuetext", words);
  byId("clock", HTMLOutputElement).value = words;
}

/**
 * @param {Turn} turn
 * @param {State} state
 * @param {Store} store
 */
function rowsOf(turn, state, store) {
  const frames = framesOf(turn);
  const total = Math.max(frames.length, turn.job?.frames_total ?? 0);
  return tracksOf(frames).map((id) => {
    const runs = presence(frames, id);
    const count = runs.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const bars = runs.map(([first, last]) => barOf(first, last, total));
    const words = `In ${count} of ${frames.length} frames: ${runs.map(([first, last]) => (first === last ? first : `${first} to ${last}`)).join(", ") || "none"}`;
    const toggle = el("input", { type: "checkbox", checked: !state.hidden.has(id), "data-key": `track-${id}`, onchange: () => store.set({ hidden: toggled(store.get().hidden, id) }) });
    return el(
      "li",
      { color: cssColor(id), "data-mask": id },
      el("label", {}, toggle, el("span", { className: "swatch" }, `${id + 1}`), ` Track ${id + 1}`),
      el("span", { className: "presence", role: "img", "aria-label": words, title: words }, ...bars, el("span", { className: "now" })),
      el("span", { className: "figures" }, `${count} of ${frames.length} frames`),
    );
  });
}

/**
 * @param {number} first
 * @param {number} last
 * @param {number} total
 */
function barOf(first, last, total) {
  const bar = el("span", { className: "bar" });
  bar.style.setProperty("left", `${(100 * first) / total}%`);
  bar.style.setProperty("width", `${(100 * (last - first + 1)) / total}%`);
  return bar;
}

/**
 * Where the clip stands, in each row.
 * @param {Element} rows
 * @param {Turn | null} turn
 * @param {State} state
 */
function markNow(rows, turn, { time }) {
  if (!turn) return;
  const place = framesOf(turn).findLastIndex((frame) => frame.time <= time + 0.001);
  const total = Math.max(turn.frames.size, turn.job?.frames_total ?? 0, 1);
  for (const now of rows.querySelectorAll(".now")) {
    if (now instanceof HTMLElement) now.style.setProperty("left", `${(100 * (Math.max(0, place) + 0.5)) / total}%`);
  }
}

/**
 * @param {Store} store
 * @param {string} format
 * @param {string} name
 */
async function save(store, format, name) {
  const turn = shownTurn(store.get());
  if (!turn?.job) return;
  store.set({ said: "The file is being made." });
  try {
    download(await resultOf(turn.job.id, format), name);
  } catch (error) {
    store.set({ problem: explain(error) });
  }
}
