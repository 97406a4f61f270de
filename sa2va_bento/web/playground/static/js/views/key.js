import { keepKey, key } from "../api/http.js";
import { byId } from "../dom.js";

/**
 * The key: asked for where the service wants one, kept for this session only.
 * @param {import("../store.js").Store} store
 * @param {() => void} onGiven
 */
export function mountKey(store, onGiven) {
  const dialog = byId("key-dialog", HTMLDialogElement);
  const field = byId("key", HTMLInputElement);
  const button = byId("key-button", HTMLButtonElement);
  let wasAsked = false;

  byId("key-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(field.value.trim());
    store.set({ hasKey: key() !== null, said: key() ? "The key is kept for this session." : "The key is forgotten." });
    const retry = wasAsked && key() !== null;
    dialog.close();
    if (retry) onGiven();
  });
  byId("key-forget", HTMLButtonElement).addEventListener("click", () => {
    keepKey(null);
    store.set({ hasKey: false, said: "The key is forgotten." });
    dialog.close();
  });
  byId("key-close", HTMLButtonElement).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    field.value = "";
    store.set({ askKey: false });
  });
  button.addEventListener("click", () => {
    wasAsked = false;
    dialog.showModal();
  });

  store.set({ hasKey: key() !== null });
  store.watch((state, before) => {
    button.textContent = state.hasKey ? "Key: set" : "Key";
    byId("key-forget", HTMLButtonElement).hidden = !state.hasKey;
    if (!state.askKey || before?.askKey || dialog.open) return;
    wasAsked = true;
    dialog.showModal();
  });
}
