/** The conversation: what was asked, what is being answered, and what became of it. */

import { piecesOf } from "../answer.js";
import { cssColor } from "../colors.js";
import { byId, el, fill } from "../dom.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").Turn} Turn */
/** @typedef {import("../types.js").State} State */
/** @typedef {{ onAgain: (turn: Turn) => void }} Handlers */

const SLOW_MS = 4000;

/**
 * @param {Store} store
 * @param {Handlers} handlers
 */
export function mountTranscript(store, handlers) {
  const list = byId("turns", HTMLOListElement);
  /** @type {Map<number, { turn: Turn, item: HTMLElement }>} */
  let items = new Map();

  /** @param {Turn} turn */
  function itemOf(turn) {
    const known = items.get(turn.id);
    if (known?.turn === turn) return known.item;
    const item = known?.item ?? el("li", { "data-turn": turn.id });
    fill(item, el("p", { className: "asked" }, el("span", { className: "hidden" }, "You: "), turn.prompt), answerOf(turn, store, handlers));
    return item;
  }

  store.watch((state, before) => {
    if (state.turns !== before?.turns) {
      const next = new Map(state.turns.map((turn) => [turn.id, { turn, item: itemOf(turn) }]));
      const isNew = [...next.keys()].some((id) => !items.has(id));
      if (isNew || next.size !== items.size) list.replaceChildren(...[...next.values()].map(({ item }) => item));
      items = next;
      if (isNew) list.lastElementChild?.scrollIntoView({ block: "nearest" });
    }
    if (state.turns !== before?.turns || state.lit !== before?.lit || state.shown !== before?.shown) light(list, state);
  });
  setInterval(() => tick(list, store.get()), 500);
}

/**
 * @param {Turn} turn
 * @param {Store} store
 * @param {Handlers} handlers
 */
function answerOf(turn, store, handlers) {
  const parts = piecesOf(turn.result).map((piece) => pieceNode(piece, turn, store));
  return el(
    "div",
    { className: `answer ${turn.state}` },
    el("p", { className: "said" }, el("span", { className: "hidden" }, "Sa2VA: "), ...parts),
    progressOf(turn),
    ...turn.warnings.map((warning) => el("p", { className: "note" }, `Note: ${warning}`)),
    problemOf(turn),
    footOf(turn, store, handlers),
  );
}

/**
 * @param {import("../answer.js").Piece} piece
 * @param {Turn} turn
 * @param {Store} store
 */
function pieceNode(piece, turn, store) {
  if (piece.mask === null) return document.createTextNode(piece.text);
  const { mask } = piece;
  const point = () => store.set({ lit: mask, shown: turn.id });
  const leave = () => store.set({ lit: null });
  const listeners = { onpointerenter: point, onpointerleave: leave, onfocus: point, onblur: leave };
  const common = { color: cssColor(mask), "data-mask": mask, ...listeners };
  if (!piece.isMark) return el("span", { className: "phrase", ...common }, piece.text);
  const label = `Mask ${mask + 1}`;
  return el("button", { type: "button", className: "mark", "aria-label": label, "data-key": `${turn.id}-${mask}`, onclick: point, ...common }, `${mask + 1}`);
}

/** @param {Turn} turn */
function progressOf(turn) {
  if (["done", "failed", "stopped"].includes(turn.state)) return null;
  const { job } = turn;
  const bar = el("progress", { max: 1, "aria-label": "Progress" });
  if (turn.state === "sending" && turn.sent > 0 && turn.sent < 1) bar.value = turn.sent;
  else if (job?.frames_total) bar.value = Math.max(turn.frames.size, job.frames_done) / job.frames_total;
  const words = el("span", { className: "wait", "data-started": turn.startedAt, "data-state": turn.state }, waitWords(turn, 0, 0));
  return el("p", { className: "progress" }, bar, words);
}

/**
 * What is told while one waits.
 * @param {Turn} turn
 * @param {number} elapsed milliseconds
 * @param {number} queue requests that the service has accepted
 */
function waitWords({ state, job, sent, frames }, elapsed, queue) {
  if (job?.state === "queued") return job.queue_place ? `In the queue, ${job.queue_place} before it` : "In the queue, next";
  if (job?.state === "running") return jobWords(job, Math.max(frames.size, job.frames_done));
  if (state === "sending") return sent > 0 && sent < 1 ? `Sending, ${Math.round(100 * sent)} %` : "Sending";
  const seconds = Math.round(elapsed / 1000);
  if (elapsed < SLOW_MS) return state === "speaking" ? "Answering" : "Waiting for the model";
  const others = Math.max(0, queue - 1);
  const crowd = others ? `, ${others} other ${others === 1 ? "question" : "questions"} with the model` : "";
  return `${state === "speaking" ? "Answering" : "Still waiting"}, ${seconds} s${crowd}`;
}

/**
 * @param {import("../types.js").JobStatus} job
 * @param {number} done frames
 */
function jobWords(job, done) {
  if (!done) return "Looking at the first frames";
  const of = job.frames_total ? ` of ${job.frames_total}` : "";
  const speed = job.frames_per_second ? `, ${job.frames_per_second.toFixed(1)} a second` : "";
  const left = job.seconds_left ? `, ${Math.ceil(job.seconds_left)} s left` : "";
  return `Frame ${done}${of}${speed}${left}`;
}

/**
 * @param {Element} list
 * @param {State} state
 */
function tick(list, state) {
  for (const words of list.querySelectorAll(".wait")) {
    const turn = state.turns.find(({ id }) => String(id) === words.closest("li")?.getAttribute("data-turn"));
    if (turn) words.textContent = waitWords(turn, Date.now() - turn.startedAt, state.service.queue);
  }
}

/** @param {Turn} turn */
function problemOf({ problem }) {
  if (!problem) return null;
  const again = problem.retryAfter ? ` Try again in ${problem.retryAfter} s.` : "";
  return el("p", { className: "trouble", role: "alert" }, el("strong", {}, `${problem.title}.`), ` ${problem.detail}${again}`);
}

/**
 * @param {Turn} turn
 * @param {Store} store
 * @param {Handlers} handlers
 */
function footOf(turn, store, handlers) {
  const isOver = ["failed", "stopped"].includes(turn.state);
  const again = isOver ? el("button", { type: "button", className: "small", "data-key": `again-${turn.id}`, onclick: () => handlers.onAgain(turn) }, "Ask again") : null;
  const hasMasks = turn.segments.length || turn.frames.size;
  const show = hasMasks
    ? el("button", { type: "button", className: "small show", "data-key": `show-${turn.id}`, onclick: () => store.set({ shown: turn.id, hidden: new Set() }) }, "Show its masks")
    : null;
  const took = turn.seconds === null ? "" : `${turn.seconds.toFixed(turn.seconds < 10 ? 2 : 0)} s`;
  const stopped = turn.state === "stopped" ? "Stopped" : "";
  return el("p", { className: "foot" }, el("span", {}, took || stopped), show, again);
}

/**
 * Marks the phrases of the mask that is pointed at, and the answer whose masks are drawn.
 * @param {Element} list
 * @param {State} state
 */
function light(list, { lit, shown }) {
  for (const item of list.children) {
    const isShown = item.getAttribute("data-turn") === String(shown);
    item.classList.toggle("shown", isShown);
    for (const mark of item.querySelectorAll("[data-mask]")) {
      mark.classList.toggle("lit", isShown && mark.getAttribute("data-mask") === String(lit));
    }
  }
}
