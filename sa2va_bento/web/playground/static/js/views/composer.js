/** Where questions are typed, and suggestions of what to ask. */

import { byId, el, fill } from "../dom.js";
import { runningTurn } from "../store.js";

/** @typedef {import("../store.js").Store} Store */

const DESCRIBE =
  "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts of the answer.";
/** @type {Record<string, string[]>} */
const SUGGESTIONS = {
  picture: ["Please segment the red circle.", "What is in the picture?", DESCRIBE],
  clip: ["Please segment the orange circle.", "Please segment the blue square."],
};

/**
 * @param {Store} store
 * @param {{ onAsk: (prompt: string) => void, onStop: () => void }} handlers
 * @returns {(prompt: string) => void} writes a question into the field
 */
export function mountComposer(store, { onAsk, onStop }) {
  const form = byId("ask", HTMLFormElement);
  const field = byId("prompt", HTMLTextAreaElement);
  const send = byId("send", HTMLButtonElement);
  const halt = byId("stop", HTMLButtonElement);
  const restart = byId("restart", HTMLButtonElement);
  const suggestions = byId("suggestions", HTMLElement);

  function submit() {
    const prompt = field.value.trim();
    const state = store.get();
    if (!state.media) return store.set({ said: "Open a picture or a video first." });
    if (!prompt || runningTurn(state)) return;
    field.value = "";
    onAsk(prompt);
  }
  /** @param {string} prompt */
  function write(prompt) {
    field.value = prompt;
    if (!matchMedia("(pointer: coarse)").matches) field.focus(); // on a phone a keyboard would cover the picture
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  halt.addEventListener("click", onStop);
  restart.addEventListener("click", () => {
    store.set({ turns: [], shown: null, lit: null, said: "A new conversation about the same." });
    field.focus();
  });
  document.addEventListener("keydown", (event) => {
    const isOpen = document.querySelector("dialog[open]");
    if (event.key === "Escape" && !isOpen && runningTurn(store.get()) && store.get().tool === "select") onStop();
  });

  store.watch((state, before) => {
    const isRunning = runningTurn(state) !== null;
    const wasFocused = document.activeElement === send || document.activeElement === halt;
    halt.hidden = !isRunning;
    send.hidden = isRunning;
    restart.hidden = isRunning || !state.turns.length;
    if (wasFocused && isRunning !== (before !== null && runningTurn(before) !== null)) (isRunning ? halt : field).focus();
    send.disabled = !state.media || state.service.state === "loading";
    if (state.media === before?.media) return;
    const prompts = state.media ? SUGGESTIONS[state.media.kind] : [];
    fill(suggestions, ...prompts.map((prompt) => suggestion(prompt, () => write(prompt))));
  });
  return write;
}

/**
 * @param {string} prompt
 * @param {() => void} onclick
 */
function suggestion(prompt, onclick) {
  const short = prompt === DESCRIBE ? "Describe it, with masks" : prompt;
  return el("button", { type: "button", className: "small", onclick }, short);
}
