/** The question as code, to copy. */

import { byId } from "../dom.js";
import { SNIPPETS, questionOf } from "../snippets.js";
import { shownTurn } from "../store.js";

/** @param {import("../store.js").Store} store */
export function mountCode(store) {
  const panel = byId("code", HTMLDetailsElement);
  const language = byId("language", HTMLSelectElement);
  const text = byId("snippet", HTMLElement);

  function write() {
    const state = store.get();
    const turn = shownTurn(state);
    panel.hidden = !turn || !state.media;
    if (turn && state.media && panel.open) {
      text.textContent = SNIPPETS[language.value](questionOf(turn, state.media, state.hasKey));
    }
  }

  language.addEventListener("change", write);
  panel.addEventListener("toggle", write);
  byId("copy", HTMLButtonElement).addEventListener("click", async () => {
    const isCopied = await copy(text);
    store.set({ said: isCopied ? "Copied." : "Select it and copy it by hand." });
    byId("copied", HTMLElement).textContent = isCopied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (byId("copied", HTMLElement).textContent = ""), 3000);
  });
  store.watch((state, before) => {
    if (state.shown !== before?.shown || state.media !== before.media || state.hasKey !== before.hasKey) write();
  });
}

/**
 * Copies an element's text; where the browser lets no page write to the clipboard (without HTTPS), selects it.
 * @param {HTMLElement} element
 */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    getSelection()?.selectAllChildren(element);
    return false;
  }
}
