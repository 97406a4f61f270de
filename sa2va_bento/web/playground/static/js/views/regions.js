/** The tools to draw regions, and the list in which they are edited. */

import { byId, el, fill } from "../dom.js";
import { boundsOf, fitted, moved } from "../regions/shapes.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").Region} Region */
/** @typedef {import("../types.js").Picture} Picture */

/** @type {Record<string, string>} */
const HINTS = {
  select: "Box, lasso and brush point at a part of the picture.",
  box: "Drag across the picture. With keys: go to the picture, Enter, arrows, Enter.",
  lasso: "Draw around something. With keys: go to the picture, Enter, arrows, Enter.",
  brush: "Paint over something. With keys: go to the picture, Enter, arrows, Enter.",
};

/**
 * @param {Store} store
 * @param {(prompt: string) => void} onPrompt
 */
export function mountRegions(store, onPrompt) {
  const tools = byId("tools", HTMLElement);
  const list = byId("region-list", HTMLUListElement);
  const buttons = [...tools.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => store.set({ tool: /** @type {any} */ (button.dataset.tool) }));
  }
  store.watch((state, before) => {
    const { media, regions, selected, tool } = state;
    byId("regions", HTMLElement).hidden = media?.kind !== "picture";
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    byId("tool-hint", HTMLElement).textContent = HINTS[tool];
    if (media?.kind !== "picture" || (before && regions === before.regions && selected === before.selected)) return;
    fill(list, ...regions.map((region, place) => rowOf(region, place, place === selected, media, store, onPrompt)));
  });
}

/**
 * @param {Region} region
 * @param {number} place
 * @param {boolean} isSelected
 * @param {Picture} picture
 * @param {Store} store
 * @param {(prompt: string) => void} onPrompt
 */
function rowOf(region, place, isSelected, picture, store, onPrompt) {
  const name = `region${place + 1}`;
  const remove = () => {
    const regions = store.get().regions.filter((_, i) => i !== place);
    store.set({ regions, selected: null, said: `Removed: ${name}. ${regions.length} left.` });
    byId("tools", HTMLElement).querySelector("button")?.focus();
  };
  return el(
    "li",
    { className: isSelected ? "selected" : "" },
    el("strong", {}, name),
    el("span", { className: "fields" }, ...fieldsOf(region, place, picture, store, name)),
    el("button", { type: "button", className: "small", "data-key": `ask-${place}`, onclick: () => onPrompt(`What is ${name}?`) }, `Ask about ${name}`),
    el("button", { type: "button", className: "small", "data-key": `remove-${place}`, "aria-label": `Delete ${name}`, onclick: remove }, "Delete"),
  );
}

/**
 * Numbers by which a region is moved, and a box resized, without a pointer.
 * @param {Region} region
 * @param {number} place
 * @param {Picture} picture
 * @param {Store} store
 * @param {string} name
 */
function fieldsOf(region, place, picture, store, name) {
  const { x, y, w, h } = boundsOf(region);
  const fields = { x, y, ...(region.kind === "box" ? { w, h } : {}) };
  return Object.entries(fields).map(([field, value]) => {
    const input = el("input", {
      type: "number",
      value: String(Math.round(value)),
      "data-key": `${field}-${place}`,
      "aria-label": `${name}: ${{ x: "left", y: "top", w: "width", h: "height" }[field]} in pixels`,
      onfocus: () => store.set({ selected: place }),
      onchange: () => edit(place, field, input.valueAsNumber, picture, store),
    });
    return el("label", {}, `${field} `, input);
  });
}

/**
 * @param {number} place
 * @param {string} field
 * @param {number} value
 * @param {Picture} picture
 * @param {Store} store
 */
function edit(place, field, value, picture, store) {
  const region = store.get().regions[place];
  if (!region || !Number.isFinite(value)) return;
  const bounds = boundsOf(region);
  const next =
    region.kind === "box"
      ? fitted({ ...region, [field]: value }, picture)
      : moved(region, field === "x" ? value - bounds.x : 0, field === "y" ? value - bounds.y : 0, picture);
  store.set({ regions: store.get().regions.map((one, i) => (i === place ? next : one)) });
}
