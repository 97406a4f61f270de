import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ROOT, ask, until } from "./world.js";

/** @typedef {import("playwright-core").Page} Page */

/**
 * Asks an example's question where it fails; what people read then.
 * @param {import("./world.js").World} world
 * @param {string} name
 * @param {string} example
 */
async function troubleAt(world, name, example = "shapes.png") {
  const page = await world.openExample(example, {}, world.urls[name]);
  const turn = await ask(page, "What is it?", "failed");
  return (await turn.locator(".trouble").textContent()) ?? "";
}

/** @param {import("./world.js").World} world */
export function states(world) {
  describe("what can happen", () => {
    it("says that the model is loading, and answers once it is there", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.loading);
      await page.locator("#problem >> text=The model is loading.").waitFor();
      await page.locator("#service[data-state=loading]").waitFor();
      assert.ok(await page.locator("#send").isDisabled());
      world.tell("load");
      await page.locator("#service[data-state=ready]").waitFor();
      assert.ok(await page.locator("#problem").isHidden());
      await ask(page, "What is it?");
    });

    it("says that the service is busy, and when to come again", async () => {
      assert.match(await troubleAt(world, "full"), /busy.*queue is full.*Try again in \d+ s/s);
    });

    it("says that a file is too large, a picture and a video", async () => {
      assert.match(await troubleAt(world, "small"), /too large.*limit of [\d.]+ MiB/s);
      assert.match(await troubleAt(world, "small", "clip.mp4"), /too large/);
      const page = await world.open(world.urls.small);
      const picture = await page.evaluate(() => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [1200, 1200];
        const context = canvas.getContext("2d");
        const noise = context?.createImageData(1200, 1200);
        if (noise) for (let i = 0; i < noise.data.length; i += 1) noise.data[i] = i % 4 === 3 ? 255 : 256 * Math.random();
        if (noise) context?.putImageData(noise, 0, 0);
        return canvas.toDataURL("image/png").split(",")[1];
      });
      const file = { name: "noise.png", mimeType: "image/png", buffer: Buffer.from(picture, "base64") };
      await page.setInputFiles("#file", file);
      const turn = await ask(page, "What is it?", "failed");
      assert.match((await turn.locator(".trouble").textContent()) ?? "", /too large/, `${file.buffer.length} bytes`);
    });

    it("says that a file is of the wrong kind", async () => {
      const page = await world.open();
      await page.setInputFiles("#file", join(ROOT, "README.md"));
      await page.locator("#problem >> text=That kind of file is not read.").waitFor();
      await page.click("#problem >> text=Close");
      await page.setInputFiles("#file", { name: "broken.mp4", mimeType: "video/mp4", buffer: Buffer.from("no video") });
      await page.locator("#problem >> text=This browser can't play that video.").waitFor();
      const turn = await ask(page, "What is it?", "failed");
      assert.match((await turn.locator(".trouble").textContent()) ?? "", /can't use that/);
    });

    it("asks for a key, keeps it for the session only, and goes on", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.keyed);
      await page.fill("#prompt", "What is it?");
      await page.click("#send");
      await page.locator("#key-dialog[open]").waitFor();
      await page.fill("#key", "wrong");
      await page.keyboard.press("Enter");
      await page.locator("#key-dialog[open]").waitFor();
      await page.fill("#key", "sesame");
      await page.keyboard.press("Enter");
      await page.locator(".answer.done >> text=You asked").waitFor();
      const kept = await page.evaluate(() => [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]);
      assert.deepEqual(kept, ['{"sa2va-key":"sesame"}', "{}", ""]);
      await page.click("text=Key: set");
      await page.click("text=Forget it");
      assert.equal(await page.evaluate(() => sessionStorage.length), 0);
      await page.click("#key-button");
      await page.fill("#key", "schlüssel-%20");
      await page.keyboard.press("Enter");
      await ask(page, "What is it?");
    });

    it("says that one asks too often", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.limited);
      await ask(page, "What is it?");
      const turn = await ask(page, "What is it?", "failed");
      assert.match((await turn.locator(".trouble").textContent()) ?? "", /Too many requests.*Try again in \d+ s/s);
    });

    it("is not there where the operator does not want it", async () => {
      const base = world.urls.off;
      const accept = { headers: { Accept: "text/html" } };
      assert.equal((await fetch(`${base}/ui`)).status, 404);
      assert.match((await fetch(`${base}/`, accept)).headers.get("content-type") ?? "", /json/);
      assert.match((await fetch(`${world.url}/`, accept)).url, /\/ui$/);
    });

    it("notices that the service is gone and back, and a video goes on", async () => {
      const page = await world.openExample("clip.mp4");
      await page.click("#send");
      await page.locator(".answer.speaking .progress >> text=/Frame \\d+ of 36/").waitFor();
      await world.service?.stop("SIGKILL");
      await page.locator("#problem >> text=The service does not answer.").waitFor();
      await world.service?.start();
      await page.locator("#service[data-state=ready]").waitFor();
      await page.locator("#live >> text=/back|Done/").waitFor({ state: "attached" });
      await page.locator(".answer.done").waitFor({ timeout: 30_000 });
      await until(async () => /of 36 frames/.test((await page.locator("#tracks .figures").textContent()) ?? ""));
    });

    it("keeps what was said when a question meets a service that is gone", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, "What color is the square?");
      await page.context().setOffline(true);
      const turn = await ask(page, "And its shape?", "failed");
      assert.match((await turn.locator(".trouble").textContent()) ?? "", /does not answer/);
      await page.context().setOffline(false);
      await page.locator("#service[data-state=ready]").waitFor();
      await page.click("text=Ask again");
      await page.locator("#turns > li").nth(1).locator(".answer.done >> text=/square/i").waitFor();
    });
  });
}
