/** What people are told apart from answers: how the service is, what went wrong, what the embedded model can do. */

import { byId, el, fill } from "../dom.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").Service} Service */

const EMBEDDED = "sa2va-nano";

/** @param {Service} service */
function wordsFor({ state, model, device }) {
  return {
    unknown: "Looking for the service",
    ready: `${model} on ${device}`,
    loading: "The model is loading",
    gone: "The service does not answer",
  }[state];
}

/** @param {Store} store */
export function mountNotices(store) {
  const status = byId("service", HTMLElement);
  const problem = byId("problem", HTMLElement);
  const nano = byId("nano", HTMLElement);
  const live = byId("live", HTMLElement);
  store.watch((state, before) => {
    const { service } = state;
    if (service !== before?.service) {
      status.dataset.state = service.state;
      status.textContent = wordsFor(service);
      nano.hidden = service.model !== EMBEDDED;
    }
    if (state.problem !== before?.problem || service.state !== before?.service.state) {
      problem.hidden = !state.problem && !["loading", "gone"].includes(service.state);
      fill(problem, ...problemNodes(state, store));
    }
    if (state.said !== before?.said) live.textContent = state.said;
  });
}

/**
 * @param {import("../types.js").State} state
 * @param {Store} store
 */
function problemNodes({ problem, service }, store) {
  if (problem) {
    const close = el("button", { type: "button", className: "small", onclick: () => store.set({ problem: null }) }, "Close");
    return [el("p", {}, el("strong", {}, `${problem.title}.`), ` ${problem.detail}`), close];
  }
  if (service.state === "loading") {
    return [el("p", {}, el("strong", {}, "The model is loading."), " Questions are answered as soon as it is ready; this page looks for itself.")];
  }
  if (service.state === "gone") {
    return [el("p", {}, el("strong", {}, "The service does not answer."), " What is on this page stays; it looks again every second or two.")];
  }
  return [];
}
