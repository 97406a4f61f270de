import { ApiError } from "./http.js";

/** @typedef {import("../types.js").Problem} Problem */

/** @type {Record<number, [string, string]>} */
const WORDS = {
  0: ["The service does not answer", "This page looks for it, and says when it is back."],
  400: ["The service can't use that", ""],
  401: ["A key is needed", "Ask whoever runs this service for one."],
  404: ["That is not there any more", "Finished videos are kept for a while only."],
  408: ["Sending took too long", "Try again, or take a smaller file."],
  413: ["That is too large", "Take a smaller file or a shorter question."],
  415: ["That kind of file is not read", "Pictures: JPEG, PNG, WebP, GIF, BMP, TIFF. Videos: MP4, MOV, WebM, MKV, AVI."],
  429: ["Too many requests", "This caller may ask so and so often."],
  500: ["The model failed on this request", "Another picture or question may do."],
  503: ["The service is busy", "More people ask than it can answer."],
  504: ["No answer in time", "A shorter answer or a smaller picture may do."],
  507: ["There is no room for another video", "Somebody has to remove old ones, or wait until they go."],
};

/**
 * What went wrong, for people: what it is, and what the service says of it.
 * @param {unknown} error
 * @returns {Problem}
 */
export function explain(error) {
  if (!(error instanceof ApiError)) {
    return { status: 0, title: "This page failed", detail: String(error), retryAfter: null };
  }
  const { status, message, retryAfter } = error;
  const [title, advice] = wordsFor(status, message);
  const said = message && status !== 0 ? sentence(message) : "";
  return { status, title, detail: [said, advice].filter(Boolean).join(" "), retryAfter };
}

/**
 * @param {number} status
 * @param {string} message
 * @returns {[string, string]}
 */
function wordsFor(status, message) {
  if (status === 503 && /load/.test(message)) return ["The model is still loading", "It answers as soon as it is ready."];
  return WORDS[status] ?? (status >= 500 ? ["The service failed", ""] : ["The service refused that", ""]);
}

/** @param {string} text */
function sentence(text) {
  const trimmed = text.trim();
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? "" : "."}`;
}
