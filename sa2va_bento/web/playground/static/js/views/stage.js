/** The picture or the clip, and over it masks and regions. */

import { byId } from "../dom.js";
import { contextOf } from "../masks/grid.js";
import { layerAt, paint } from "../masks/paint.js";
import { drawRegions } from "../regions/layer.js";
import { installPen } from "../regions/pen.js";
import { shownTurn } from "../store.js";
import { frameAt, framesOf, layersOf } from "../video/frames.js";

/** @typedef {import("../store.js").Store} Store */
/** @typedef {import("../types.js").State} State */

const MOST_SIDE = 1600;

/** @param {Store} store */
export function mountStage(store) {
  const drop = byId("drop", HTMLElement);
  const frame = byId("frame", HTMLElement);
  const picture = byId("picture", HTMLCanvasElement);
  const film = byId("film", HTMLVideoElement);
  const overlay = byId("overlay", HTMLCanvasElement);
  const surface = byId("pen", SVGSVGElement);
  const context = overlay.getContext("2d", { willReadFrequently: true }) ?? contextOf(1, 1);
  /** @type {import("../regions/pen.js").Sketch} */
  let sketch = { cursor: null, points: [], width: 1 };
  let isQueued = false;

  /**
   * @param {number} width
   * @param {number} height
   */
  function resize(width, height) {
    const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
    for (const canvas of [picture, overlay]) {
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
    }
    frame.style.setProperty("--ratio", String(width / height));
  }

  /** @param {State} state */
  function show({ media }) {
    drop.hidden = media !== null;
    frame.hidden = media === null;
    film.hidden = media?.kind !== "clip";
    surface.toggleAttribute("hidden", media?.kind === "clip");
    picture.hidden = media?.kind === "clip";
    if (media?.kind === "picture") {
      resize(media.width, media.height);
      picture.getContext("2d")?.drawImage(media.bitmap, 0, 0, picture.width, picture.height);
    }
    if (media?.kind === "clip") film.src = media.url;
    else film.removeAttribute("src");
  }

  function paintNow() {
    isQueued = false;
    const state = store.get();
    const layers = layersShown(state);
    const source = state.media?.kind === "clip" ? film : picture;
    paint(context, source, layers, state.view, state.lit);
    overlay.setAttribute("aria-label", describe(state, layers.length));
  }

  function paintSoon() {
    if (!isQueued) requestAnimationFrame(paintNow);
    isQueued = true;
  }

  const drawPen = () => {
    const { media, regions, selected, tool } = store.get();
    if (media?.kind === "picture") drawRegions(surface, media, regions, selected, tool, sketch);
  };

  installPen(store, surface, (next) => {
    sketch = next;
    drawPen();
  });
  film.addEventListener("loadedmetadata", () => {
    resize(film.videoWidth || 16, film.videoHeight || 9);
    paintSoon();
  });
  surface.addEventListener("pointermove", (event) => {
    const { tool, view, lit } = store.get();
    if (tool !== "select" || event.buttons) return;
    const box = surface.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const id = layerAt(layersShown(store.get()), view.threshold, x, y);
    if (id !== lit) store.set({ lit: id });
  });
  surface.addEventListener("pointerleave", () => store.set({ lit: null }));
  new ResizeObserver(drawPen).observe(frame);

  store.watch((state, before) => {
    if (state.media !== before?.media) show(state);
    surface.setAttribute("class", `tool-${state.tool}`);
    drawPen();
    if (!before || /** @type {const} */ (["media", "turns", "shown", "lit", "hidden", "view", "time"]).some((key) => state[key] !== before[key])) {
      paintSoon();
    }
  });
}

/**
 * The masks that are drawn now.
 * @param {State} state
 * @returns {import("../masks/paint.js").Layer[]}
 */
export function layersShown(state) {
  const turn = shownTurn(state);
  if (!turn) return [];
  const frame = state.media?.kind === "clip" ? frameAt(framesOf(turn), state.time) : null;
  const layers = state.media?.kind === "clip" ? (frame ? layersOf(frame) : []) : turn.segments;
  return layers.filter(({ id }) => !state.hidden.has(id));
}

/**
 * What the drawing is, in words.
 * @param {State} state
 * @param {number} masks
 */
function describe({ media }, masks) {
  if (!media) return "Nothing is open";
  const what = media.kind === "clip" ? "A video" : `A picture of ${media.width} by ${media.height} pixels`;
  return `${what}, ${masks === 0 ? "no masks" : masks === 1 ? "1 mask" : `${masks} masks`} drawn over it`;
}
