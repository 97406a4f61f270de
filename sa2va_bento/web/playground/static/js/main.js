/** Puts the page together: one state, and views that draw it. */

import { ask, askAgain, stop } from "./asking.js";
import { watchService } from "./service.js";
import { createStore, emptyState } from "./store.js";
import { mountPlayer } from "./video/player.js";
import { mountCode } from "./views/code.js";
import { mountComposer } from "./views/composer.js";
import { mountKey } from "./views/key.js";
import { mountMasks } from "./views/masks.js";
import { mountNotices } from "./views/notices.js";
import { mountOpener } from "./views/opener.js";
import { mountRegions } from "./views/regions.js";
import { mountStage } from "./views/stage.js";
import { mountTranscript } from "./views/transcript.js";

const store = createStore(emptyState());
const write = mountComposer(store, { onAsk: (prompt) => ask(store, prompt), onStop: () => stop(store) });
mountNotices(store);
mountOpener(store, write);
mountStage(store);
mountRegions(store, write);
mountTranscript(store, { onAgain: (turn) => askAgain(store, turn) });
mountMasks(store);
mountPlayer(store);
mountCode(store);
mountKey(store, () => {
  const last = store.get().turns.at(-1);
  if (last?.state === "failed") askAgain(store, last);
});
watchService(store);
document.documentElement.dataset.ready = "yes";
