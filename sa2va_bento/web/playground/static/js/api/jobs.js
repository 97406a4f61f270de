import { ApiError, broken, keyHeader, refusal, request, urlOf } from "./http.js";
import { eventsOf } from "./sse.js";

/** @typedef {import("../types.js").JobStatus} JobStatus */

const PATIENCE_S = 60;

/**
 * Hands a clip in. `fetch` does not say how much has been sent; this does.
 * @param {import("../types.js").Clip} clip
 * @param {import("../types.js").Turn} turn
 * @param {(share: number) => void} onSent
 * @param {AbortSignal} signal
 * @returns {Promise<JobStatus>}
 */
export function submitClip(clip, turn, onSent, signal) {
  const form = new FormData();
  form.append("prompt", turn.prompt);
  if (turn.history.length) form.append("history", JSON.stringify(turn.history));
  form.append("video", clip.file, clip.name);
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", urlOf("process_video"));
    for (const [name, value] of Object.entries(keyHeader())) call.setRequestHeader(name, value);
    call.setRequestHeader("Idempotency-Key", crypto.getRandomValues(new Uint32Array(4)).join("-"));
    call.upload.onprogress = (event) => onSent(event.total ? event.loaded / event.total : 0);
    call.onerror = () => reject(new ApiError(0, "no answer came"));
    call.onabort = () => reject(new DOMException("stopped", "AbortError"));
    call.onload = () => {
      if (call.status < 300) resolve(JSON.parse(call.responseText));
      else reject(refusal(call.status, call.responseText, call.getResponseHeader("retry-after")));
    };
    signal.addEventListener("abort", () => call.abort());
    call.send(form);
  });
}

/**
 * The events of a job until its last. Where the connection breaks it is taken up again, after the last event that came.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(isConnected: boolean) => void} onConnection
 * @returns {AsyncGenerator<import("./sse.js").ServerEvent>}
 */
export async function* eventsOfJob(id, signal, onConnection) {
  let last = "";
  let brokenAt = 0;
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": last } : undefined;
      const response = await request(`jobs/${id}/events?mask_format=rle`, { signal, headers });
      onConnection(true);
      brokenAt = 0;
      for await (const event of eventsOf(response)) {
        last = event.id ?? last;
        yield event;
        if (["done", "error", "cancelled"].includes(event.name)) return;
      }
    } catch (error) {
      const passes = error instanceof ApiError && (error.status === 0 || error.status === 503);
      brokenAt ||= Date.now();
      if (!passes || Date.now() - brokenAt > PATIENCE_S * 1000) throw error;
      onConnection(false);
    }
    await pause(1000, signal);
  }
}

/**
 * @param {string} id
 * @returns {Promise<void>}
 */
export async function cancelJob(id) {
  await request(`jobs/${id}`, { method: "DELETE" });
}

/**
 * A job's result as a file.
 * @param {string} id
 * @param {string} format
 */
export async function resultOf(id, format) {
  const response = await request(`jobs/${id}/result?format=${format}`);
  return response.blob().catch((error) => Promise.reject(broken(error)));
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
