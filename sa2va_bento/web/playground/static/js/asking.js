/** Questions on their way: asked, told of as the answer comes, stopped, asked again. */

import { cancelJob, eventsOfJob, submitClip } from "./api/jobs.js";
import { explain } from "./api/explain.js";
import { ApiError } from "./api/http.js";
import { askAboutPicture } from "./api/process.js";
import { runningTurn, setTurn } from "./store.js";
import { frameOf } from "./video/frames.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./types.js").Turn} Turn */
/** @typedef {import("./types.js").Media} Media */

const MOST_TURNS = 30;
let count = 0;
/** @type {AbortController | null} */
let running = null;

/**
 * What was said before, of turns that were answered whole.
 * @param {Turn[]} turns
 * @returns {import("./types.js").HistoryTurn[]}
 */
export function historyOf(turns) {
  return turns
    .filter((turn) => turn.state === "done" && turn.result.trim())
    .slice(-MOST_TURNS)
    .flatMap((turn) => [
      { role: "user", content: turn.prompt },
      { role: "assistant", content: turn.result },
    ]);
}

/**
 * Asks about what is open; one question at a time.
 * @param {Store} store
 * @param {string} prompt
 */
export async function ask(store, prompt) {
  const { media, turns, regions } = store.get();
  if (!media || running) return;
  count += 1;
  /** @type {Turn} */
  const turn = {
    id: count,
    prompt,
    state: "sending",
    result: "",
    segments: [],
    regions: media.kind === "picture" ? regions : [],
    history: historyOf(turns),
    startedAt: Date.now(),
    sent: 0,
    job: null,
    frames: new Map(),
    seconds: null,
    warnings: [],
    problem: null,
  };
  store.set({ turns: [...turns, turn], shown: turn.id, hidden: new Set(), lit: null, problem: null });
  running = new AbortController();
  try {
    if (media.kind === "picture") await askPicture(store, media, turn, running.signal);
    else await askClip(store, media, turn, running.signal);
  } catch (error) {
    fail(store, turn.id, error);
  } finally {
    running = null;
  }
}

/**
 * @param {Store} store
 * @param {import("./types.js").Picture} picture
 * @param {Turn} turn
 * @param {AbortSignal} signal
 */
async function askPicture(store, picture, turn, signal) {
  const now = () => store.get().turns.find(({ id }) => id === turn.id) ?? turn;
  await askAboutPicture(picture, turn, {
    onStart: () => setTurn(store, turn.id, { state: "waiting" }),
    onText: (text) => setTurn(store, turn.id, { state: "speaking", result: now().result + text }),
    onSegment: (segment) => setTurn(store, turn.id, { segments: [...now().segments, segment] }),
    onDone(answer, segments) {
      const seconds = answer.timings_ms.total / 1000;
      setTurn(store, turn.id, { state: "done", result: answer.result, segments, seconds, warnings: answer.warnings });
      store.set({ said: `${answer.text} ${masksFound(segments.length)}` });
    },
  }, signal);
}

/** @param {number} number */
function masksFound(number) {
  return number === 1 ? "1 mask." : number ? `${number} masks.` : "";
}

/**
 * @param {Store} store
 * @param {import("./types.js").Clip} clip
 * @param {Turn} turn
 * @param {AbortSignal} signal
 */
async function askClip(store, clip, turn, signal) {
  const { id } = turn;
  const job = await submitClip(clip, turn, (sent) => setTurn(store, id, { sent }), signal);
  setTurn(store, id, { state: "waiting", job, sent: 1 });
  let [text, frames] = ["", turn.frames];
  const onConnection = (/** @type {boolean} */ isConnected) => {
    const { service } = store.get();
    if (!isConnected && service.state !== "gone") store.set({ service: { ...service, state: "gone" } });
  };
  for await (const { name, data } of eventsOfJob(job.id, signal, onConnection)) {
    if (name === "state") setTurn(store, id, { job: data });
    else if (name === "restart") [text, frames] = ["", new Map()];
    else if (name === "text") setTurn(store, id, { state: "speaking", result: (text += data.text) });
    else if (name === "reply") setTurn(store, id, { state: "speaking", result: (text = data.result) });
    else if (name === "frame") {
      frames = new Map(frames).set(data.frame_index, frameOf(data));
      setTurn(store, id, { frames });
    } else if (name === "error") throw new ApiError(data.status, data.error);
    else if (name === "cancelled") setTurn(store, id, { state: "stopped" });
    else if (name === "done") {
      setTurn(store, id, { state: "done", seconds: (Date.now() - turn.startedAt) / 1000 });
      store.set({ said: `Done: ${frames.size} frames.` });
    }
  }
}

/**
 * @param {Store} store
 * @param {number} id
 * @param {unknown} error
 */
function fail(store, id, error) {
  if (error instanceof DOMException && error.name === "AbortError") {
    setTurn(store, id, { state: "stopped" });
    return store.set({ said: "Stopped." });
  }
  const problem = explain(error);
  setTurn(store, id, { state: "failed", problem });
  const { service } = store.get();
  store.set({
    askKey: problem.status === 401,
    service: problem.status === 0 ? { ...service, state: "gone" } : service,
  });
}

/**
 * Stops what is being answered. A picture's request is hung up, which frees the model; a clip's job is cancelled.
 * @param {Store} store
 */
export async function stop(store) {
  const turn = runningTurn(store.get());
  running?.abort();
  if (!turn?.job) return;
  await cancelJob(turn.job.id).catch((error) => store.set({ problem: explain(error) }));
}

/**
 * Asks once more what failed or was stopped.
 * @param {Store} store
 * @param {Turn} turn
 */
export async function askAgain(store, turn) {
  store.set({ turns: store.get().turns.filter(({ id }) => id !== turn.id) });
  await ask(store, turn.prompt);
}
