/** Whether the service is there, and with what model: asked now and then, more often while it is not. */

import { urlOf } from "./api/http.js";

/** @typedef {import("./store.js").Store} Store */

const CALM_MS = 15_000;
const EAGER_MS = 1_500;
const PATIENCE_MS = 10_000;

/**
 * Watches the service as long as the page is open.
 * @param {Store} store
 */
export function watchService(store) {
  /** @type {number | undefined} */
  let timer;
  let isLooking = false;
  async function look() {
    if (isLooking) return;
    isLooking = true;
    clearTimeout(timer);
    const before = store.get().service;
    const found = document.hidden ? before : await lookNow(before);
    if (JSON.stringify(found) !== JSON.stringify(store.get().service)) store.set({ service: found, ...news(before, found) });
    const isUneasy = found.state !== "ready" || store.get().turns.some(({ state }) => state === "waiting");
    timer = window.setTimeout(look, isUneasy ? EAGER_MS : CALM_MS);
    isLooking = false;
  }
  store.watch((state, before) => {
    const wentAway = state.service.state === "gone" && before?.service.state !== "gone";
    const waits = state.turns !== before?.turns && state.turns.at(-1)?.state === "waiting";
    if (before && (wentAway || (waits && before.turns.at(-1)?.state !== "waiting"))) {
      clearTimeout(timer);
      timer = window.setTimeout(look, EAGER_MS);
    }
  });
  document.addEventListener("visibilitychange", () => document.hidden || look());
  window.addEventListener("online", look);
  look();
}

/**
 * @param {import("./types.js").Service} before
 * @returns {Promise<import("./types.js").Service>}
 */
async function lookNow(before) {
  try {
    const response = await fetch(urlOf("health"), { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) });
    const answer = await response.json();
    if (!response.ok) return { ...before, state: response.status === 503 ? "loading" : "gone" };
    return { state: "ready", model: answer.model_path, device: answer.device, queue: answer.queue_depth };
  } catch {
    return { ...before, state: "gone" };
  }
}

/**
 * What a screen reader is told of a change.
 * @param {import("./types.js").Service} before
 * @param {import("./types.js").Service} now
 */
function news(before, now) {
  if (before.state === now.state || before.state === "unknown") return {};
  return { said: { ready: "The service is back.", loading: "The model is loading.", gone: "The service does not answer.", unknown: "" }[now.state] };
}
