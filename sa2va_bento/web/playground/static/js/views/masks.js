/** The masks of the answer that is shown: which are drawn and how, and what can be taken away. */

import { cssColor } from "../colors.js";
import { byId, download, el, fill } from "../dom.js";
import { cutAt } from "../masks/grid.js";
import { cocoJson, maskPng, nameOf, overlayPng, yoloText } from "../masks/downloads.js";
import { shownTurn } from "../store.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Segment} Segment */

/** @param {Store} store */
export function mountMasks(store) {
  const panel = byId("masks", HTMLElement);
  const list = byId("mask-list", HTMLUListElement);
  mountView(store);
  mountDownloads(store);
  store.watch((state, before) => {
    const segments = shownTurn(state)?.segments ?? [];
    const isClip = state.media?.kind === "clip";
    panel.hidden = !segments.length && !(isClip && shownTurn(state)?.frames.size);
    byId("threshold-row", HTMLElement).hidden = isClip;
    byId("downloads", HTMLElement).hidden = isClip;
    const isSame = before && segments === shownTurn(before)?.segments && state.hidden === before.hidden;
    if (!isSame || state.view.threshold !== before.view.threshold) {
      fill(list, ...segments.map((segment) => rowOf(segment, state, store)));
    }
    for (const row of list.children) row.classList.toggle("lit", row.getAttribute("data-mask") === String(state.lit));
  });
}

/**
 * @param {Segment} segment
 * @param {State} state
 * @param {Store} store
 */
function rowOf(segment, { hidden, view }, store) {
  const { id, score } = segment;
  const name = nameOf(segment);
  const point = () => store.set({ lit: id });
  const leave = () => store.set({ lit: null });
  const toggle = el("input", { type: "checkbox", checked: !hidden.has(id), "data-key": `toggle-${id}`, onchange: () => store.set({ hidden: toggled(store.get().hidden, id) }) });
  const { area } = cutAt(segment.grid, view.threshold);
  const share = ((100 * area) / (segment.grid.w * segment.grid.h)).toFixed(1);
  const png = el("button", { type: "button", className: "small", "data-key": `png-${id}`, "aria-label": `PNG of ${name}`, onclick: async () => download(await maskPng(segment, store.get().view.threshold), `mask-${id + 1}.png`) }, "PNG");
  return el(
    "li",
    { "data-mask": id, color: cssColor(id), onpointerenter: point, onpointerleave: leave, onfocusin: point, onfocusout: leave },
    el("label", {}, toggle, el("span", { className: "swatch" }, `${id + 1}`), ` ${name}`),
    el("span", { className: "figures" }, `score ${score.toFixed(2)}, ${share} % of the picture`),
    png,
  );
}

/**
 * @param {ReadonlySet<number>} ids
 * @param {number} id
 */
export function toggled(ids, id) {
  const next = new Set(ids);
  if (!next.delete(id)) next.add(id);
  return next;
}

/**
 * Sliders and switches of how masks are drawn.
 * @param {Store} store
 */
function mountView(store) {
  const threshold = byId("threshold", HTMLInputElement);
  const opacity = byId("opacity", HTMLInputElement);
  const outline = byId("outline", HTMLInputElement);
  const background = byId("background", HTMLSelectElement);
  const change = (/** @type {Partial<import("../types.js").View>} */ part) => store.set({ view: { ...store.get().view, ...part } });
  threshold.addEventListener("input", () => change({ threshold: threshold.valueAsNumber }));
  opacity.addEventListener("input", () => change({ opacity: opacity.valueAsNumber }));
  outline.addEventListener("change", () => change({ outline: outline.checked }));
  background.addEventListener("change", () => change({ background: /** @type {any} */ (background.value) }));
  store.watch(({ view }) => {
    threshold.value = String(view.threshold);
    byId("threshold-value", HTMLOutputElement).value = view.threshold.toFixed(2);
    opacity.value = String(view.opacity);
    byId("opacity-value", HTMLOutputElement).value = `${Math.round(100 * view.opacity)} %`;
    outline.checked = view.outline;
    background.value = view.background;
  });
}

/** @param {Store} store */
function mountDownloads(store) {
  /** @type {Record<string, (segments: Segment[], picture: import("../types.js").Picture, view: import("../types.js").View) => Blob | Promise<Blob>>} */
  const kinds = {
    "masks.coco.json": (segments, picture, view) => cocoJson(segments, picture, view.threshold),
    "masks.yolo.txt": (segments, _, view) => yoloText(segments, view.threshold),
    "overlay.png": (segments, picture, view) => overlayPng(segments, picture, view),
  };
  for (const button of byId("downloads", HTMLElement).querySelectorAll("button")) {
    button.addEventListener("click", async () => {
      const state = store.get();
      const { media, hidden, view } = state;
      const name = button.dataset.file ?? "";
      const segments = (shownTurn(state)?.segments ?? []).filter(({ id }) => !hidden.has(id));
      if (media?.kind === "picture") download(await kinds[name](segments, media, view), name);
    });
  }
}
