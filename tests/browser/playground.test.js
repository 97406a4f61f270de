/** The playground in headless Chromium, against the real service with the embedded model. */

import { after, before } from "node:test";
import { access } from "./access.suite.js";
import { page, whole } from "./page.suite.js";
import { pictures } from "./picture.suite.js";
import { regions } from "./regions.suite.js";
import { snippets } from "./snippets.suite.js";
import { states } from "./states.suite.js";
import { videos } from "./video.suite.js";
import { World } from "./world.js";

const world = new World();
before(() => world.start(), { timeout: 120_000 });
after(() => world.stop());

page(world);
pictures(world);
regions(world);
videos(world);
snippets(world);
access(world);
states(world);
whole(world);
