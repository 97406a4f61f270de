/** The pictures of docs/playground.md, made again: `npm run screenshots`. */

import { join } from "node:path";
import { drag, slide } from "./pixels.js";
import { DESCRIBE, ROOT, World, ask } from "./world.js";

const world = new World();
await world.start();
try {
  await pictures();
} finally {
  await world.stop();
}

async function pictures() {
  const at = (/** @type {string} */ name) => join(ROOT, "docs", `${name}.png`);
  const size = { width: 1180, height: 800 };
  const page = await world.openExample("twins.png", { viewport: size });
  await ask(page, DESCRIBE);
  await page.mouse.move(1170, 790);
  await page.screenshot({ path: at("playground") });

  const dark = await world.openExample("shapes.png", { viewport: size, colorScheme: "dark" });
  await dark.click("[data-tool=box]");
  await drag(dark, [[0.09, 0.14], [0.38, 0.53]]);
  await dark.click("[data-tool=lasso]");
  await drag(dark, [[0.6, 0.12], [0.86, 0.14], [0.88, 0.5], [0.7, 0.55], [0.6, 0.5]]);
  await dark.click("[data-tool=brush]");
  await drag(dark, [[0.44, 0.68], [0.5, 0.8], [0.57, 0.69]]);
  await ask(dark, "What is region1?");
  await dark.mouse.move(1170, 790);
  await dark.evaluate(() => scrollTo(0, 0));
  await dark.screenshot({ path: at("playground-regions") });

  const film = await world.openExample("clip.mp4", { viewport: size });
  await ask(film, null);
  await slide(film, "#scrub", 0.66);
  await film.waitForTimeout(500);
  await film.screenshot({ path: at("playground-video") });

  const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 1.5 };
  const small = await world.openExample("shapes.png", phone);
  await ask(small, "Please segment the yellow star.");
  await small.evaluate(() => scrollTo(0, 0));
  await small.screenshot({ path: at("playground-phone") });
}
