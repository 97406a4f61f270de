import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { drag } from "./pixels.js";
import { BIN, EXAMPLES, ask } from "./world.js";

/** @type {Record<string, { command: string, file: string }>} */
const RUN = {
  curl: { command: "bash", file: "ask.sh" },
  bentoml: { command: join(BIN, "python"), file: "ask_bentoml.py" },
  openai: { command: join(BIN, "python"), file: "ask_openai.py" },
  javascript: { command: process.execPath, file: "ask.mjs" },
};

/**
 * Runs what the page gives to copy, beside the file that it is about; what each program prints.
 * @param {import("playwright-core").Page} page
 * @param {string} example
 */
async function outputs(page, example) {
  const folder = mkdtempSync(join(tmpdir(), "sa2va-snippets-"));
  copyFileSync(join(EXAMPLES, example), join(folder, example));
  await page.click("#code summary");
  /** @type {Record<string, string>} */
  const said = {};
  try {
    for (const [language, { command, file }] of Object.entries(RUN)) {
      await page.selectOption("#language", language);
      writeFileSync(join(folder, file), (await page.locator("#snippet").textContent()) ?? "");
      const env = { ...process.env, SA2VA_KEY: "sesame", BENTOML_DO_NOT_TRACK: "True" };
      said[language] = execFileSync(command, [file], { cwd: folder, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return said;
}

/** @param {import("./world.js").World} world */
export function snippets(world) {
  describe("the programs to copy", () => {
    it("run, with history and regions", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, "What color is the star?");
      await page.click("[data-tool=brush]");
      await drag(page, [[0.65, 0.2], [0.8, 0.45], [0.65, 0.45], [0.8, 0.2]]);
      const turn = await ask(page, "It's \"region1\" that I mean: what is region1?");
      const text = ((await turn.locator(".said").textContent()) ?? "").replace("Sa2VA: ", "").trim();
      const words = text.replace(/[0-9]/g, "").split(" ").slice(0, 2).join(" ");
      for (const [language, said] of Object.entries(await outputs(page, "shapes.png"))) {
        assert.ok(said.replace(/[0-9]/g, "").includes(words), `${language}: ${said} has no ${words}`);
      }
    });

    it("run for a video", async () => {
      const page = await world.openExample("clip.mp4");
      await ask(page, "What color is the circle?");
      for (const [language, said] of Object.entries(await outputs(page, "clip.mp4"))) assert.match(said, /orange/i, language);
    });

    it("name a key, and do not hold it", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.keyed);
      await page.evaluate(() => sessionStorage.setItem("sa2va-key", "sesame"));
      await page.reload();
      await page.waitForSelector("html[data-ready]");
      await page.click('[data-example="shapes.png"]');
      await ask(page, "What is it?");
      for (const [language, said] of Object.entries(await outputs(page, "shapes.png"))) assert.match(said, /You asked/, language);
      assert.doesNotMatch((await page.locator("#code").textContent()) ?? "", /sesame/);
    });

    it("are copied", async () => {
      const page = await world.openExample("shapes.png", { permissions: ["clipboard-read", "clipboard-write"] });
      await ask(page, "What color is the star?");
      await page.click("#code summary");
      await page.click("#copy");
      await page.locator("#copied >> text=Copied").waitFor();
      assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^curl --silent http/);
    });
  });
}
