/** How pictures and videos come in: dropped, pasted, chosen, photographed, or one of the examples. */

import { explain } from "../api/explain.js";
import { request } from "../api/http.js";
import { byId } from "../dom.js";
import { closeMedia, fileOf, openMedia } from "../pictures.js";
import { stop } from "../asking.js";
import { mountCamera } from "./camera.js";

/** @typedef {import("../store.js").Store} Store */

/**
 * @param {Store} store
 * @param {(prompt: string) => void} onPrompt
 */
export function mountOpener(store, onPrompt) {
  const input = byId("file", HTMLInputElement);
  /**
   * @param {Blob} file
   * @param {string} name
   */
  const open = (file, name) => openFile(store, file, name);
  const shoot = mountCamera(open);

  input.addEventListener("change", async () => {
    const file = input.files?.[0];
    if (file) await open(file, file.name);
    input.value = "";
  });
  for (const button of document.querySelectorAll("[data-open=file]")) button.addEventListener("click", () => input.click());
  for (const button of document.querySelectorAll("[data-open=camera]")) button.addEventListener("click", shoot);
  for (const button of document.querySelectorAll("[data-example]")) {
    if (button instanceof HTMLElement) button.addEventListener("click", () => openExample(store, button, onPrompt));
  }
  mountDrop(open);
  document.addEventListener("paste", (event) => {
    const file = fileOf(event.clipboardData);
    if (file) open(file, file.name || "pasted.png");
  });
}

/**
 * Opens a file in place of what is open. What was said is about that, and goes with it.
 * @param {Store} store
 * @param {Blob} file
 * @param {string} name
 */
async function openFile(store, file, name) {
  try {
    const media = await openMedia(file, name);
    await stop(store);
    closeMedia(store.get().media);
    const said = `Opened: ${name}.`;
    store.set({ media, turns: [], shown: null, lit: null, hidden: new Set(), regions: [], selected: null, tool: "select", problem: null, time: 0, said });
  } catch (error) {
    store.set({ problem: explain(error) });
  }
}

/**
 * Opens an example, and suggests what to ask about it, unless something is typed while it comes.
 * @param {Store} store
 * @param {HTMLElement} button
 * @param {(prompt: string) => void} onPrompt
 */
async function openExample(store, button, onPrompt) {
  const name = button.dataset.example ?? "";
  const field = byId("prompt", HTMLTextAreaElement);
  const typed = field.value;
  try {
    const response = await request(`ui/examples/${name}`);
    await openFile(store, await response.blob(), name);
    if (field.value === typed) onPrompt(button.dataset.prompt ?? "");
  } catch (error) {
    store.set({ problem: explain(error) });
  }
}

/** @param {(file: Blob, name: string) => void} open */
function mountDrop(open) {
  const target = document.body;
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("dropping");
  });
  target.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) target.classList.remove("dropping");
  });
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("dropping");
    const file = fileOf(event.dataTransfer);
    if (file) open(file, file.name);
  });
}
