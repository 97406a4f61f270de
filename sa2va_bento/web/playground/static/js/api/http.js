/** How the service is asked: where it is, with which key, and what it says when it refuses. */

const KEY = "sa2va-key";

/** Where the API is: beside the page, whatever prefix a proxy put in front. */
export const BASE = new URL(".", document.baseURI);

/** A refusal, or (status 0) no answer at all. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {number | null} retryAfter seconds
   */
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** @param {string} path */
export function urlOf(path) {
  return new URL(path.replace(/^\//, ""), BASE);
}

/** The key of this session; it is gone with the tab. */
export function key() {
  return sessionStorage.getItem(KEY);
}

/** @param {string | null} value */
export function keepKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/**
 * The key as a header; one with letters beyond ASCII goes as UTF-8, byte by byte.
 * @returns {Record<string, string>}
 */
export function keyHeader() {
  const bytes = new TextEncoder().encode(key() ?? "");
  return bytes.length ? { Authorization: `Bearer ${String.fromCharCode(...bytes)}` } : {};
}

/**
 * A response that is no error.
 * @param {string} path
 * @param {RequestInit} [options]
 */
export async function request(path, options = {}) {
  const headers = { ...keyHeader(), .../** @type {Record<string, string>} */ (options.headers) };
  let response;
  try {
    response = await fetch(urlOf(path), { ...options, headers, credentials: "omit" });
  } catch (error) {
    throw broken(error);
  }
  if (response.ok) return response;
  throw refusal(response.status, await response.text().catch(() => ""), response.headers.get("retry-after"));
}

/**
 * What a fetch or a read that failed means: stopped on purpose, or a connection that broke.
 * @param {unknown} error
 */
export function broken(error) {
  return error instanceof DOMException && error.name === "AbortError" ? error : new ApiError(0, "no answer came");
}

/**
 * @param {number} status
 * @param {string} body
 * @param {string | null} retryAfter
 */
export function refusal(status, body, retryAfter) {
  const seconds = Number.parseInt(retryAfter ?? "", 10);
  return new ApiError(status, messageOf(body), Number.isFinite(seconds) ? seconds : null);
}

/** @param {string} body */
function messageOf(body) {
  try {
    const answer = JSON.parse(body);
    return typeof answer.error === "string" ? answer.error : "";
  } catch {
    return "";
  }
}
