/** @typedef {import("./types.js").State} State */
/** @typedef {{ get: () => State, set: (change: Partial<State>) => void, watch: (render: Render) => void }} Store */
/** @typedef {(state: State, before: State | null) => void} Render */

/**
 * The one state. Views are told of it once after all changes of a task, and draw what differs.
 * @param {State} initial
 * @returns {Store}
 */
export function createStore(initial) {
  let state = initial;
  /** @type {State | null} */
  let drawn = null;
  /** @type {Render[]} */
  const renders = [];
  let isQueued = false;

  function draw() {
    isQueued = false;
    const before = drawn;
    drawn = state;
    for (const render of renders) render(state, before);
  }

  return {
    get: () => state,
    set(change) {
      state = { ...state, ...change };
      if (!isQueued) queueMicrotask(draw);
      isQueued = true;
    },
    watch(render) {
      renders.push(render);
      if (!isQueued) queueMicrotask(draw);
      isQueued = true;
    },
  };
}

/** @returns {State} */
export function emptyState() {
  return {
    service: { state: "unknown", model: "", device: "", queue: 0 },
    media: null,
    turns: [],
    shown: null,
    lit: null,
    hidden: new Set(),
    view: { threshold: 0.5, opacity: 0.5, outline: true, background: "picture" },
    regions: [],
    tool: "select",
    selected: null,
    problem: null,
    askKey: false,
    hasKey: false,
    said: "",
    time: 0,
  };
}

/**
 * Changes one turn, by its id.
 * @param {Store} store
 * @param {number} id
 * @param {Partial<import("./types.js").Turn>} change
 */
export function setTurn(store, id, change) {
  store.set({ turns: store.get().turns.map((turn) => (turn.id === id ? { ...turn, ...change } : turn)) });
}

/**
 * The turn whose masks are drawn.
 * @param {State} state
 */
export function shownTurn(state) {
  return state.turns.find((turn) => turn.id === state.shown) ?? null;
}

/**
 * The turn that is being answered.
 * @param {State} state
 */
export function runningTurn(state) {
  return state.turns.find((turn) => ["sending", "waiting", "speaking"].includes(turn.state)) ?? null;
}
