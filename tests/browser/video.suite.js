import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { differenceTo, slide } from "./pixels.js";
import { EXAMPLES, ask, until } from "./world.js";

/**
 * How much of what is drawn over the clip lies on orange.
 * @param {import("playwright-core").Page} page
 */
function shareOfOrange(page) {
  return page.evaluate(() => {
    const [film, overlay] = [document.querySelector("video"), document.querySelector("#overlay")];
    if (!film || !(overlay instanceof HTMLCanvasElement)) throw new Error("no film");
    const { width, height } = overlay;
    const frame = new OffscreenCanvas(width, height).getContext("2d");
    frame?.drawImage(film, 0, 0, width, height);
    const seen = frame?.getImageData(0, 0, width, height).data ?? [];
    const drawn = overlay.getContext("2d")?.getImageData(0, 0, width, height).data ?? [];
    let [inside, orange] = [0, 0];
    for (let i = 0; i < drawn.length; i += 4) {
      if (!drawn[i + 3]) continue;
      inside += 1;
      orange += Number(seen[i] > 180 && seen[i + 2] < 120);
    }
    return orange / inside;
  });
}

/** @param {import("./world.js").World} world */
export function videos(world) {
  describe("a video", () => {
    it("is followed: progress, tracks over the frames, presence, scrubbing and the overlay", async () => {
      const page = await world.openExample("clip.mp4");
      const handedIn = page.waitForResponse(/process_video/);
      await page.click("#send");
      const { id } = await (await handedIn).json();
      await page.locator(".answer.speaking .progress >> text=/Frame \\d+ of 36/").waitFor();
      await page.locator(".answer.done").waitFor({ timeout: 30_000 });
      const result = await (await fetch(`${world.url}/jobs/${id}/result?mask_format=png`)).json();
      const [track] = result.segments;
      assert.equal(await page.locator("#tracks .figures").textContent(), `${track.frames_present} of 36 frames`);
      const label = (await page.locator("#tracks .presence").getAttribute("aria-label")) ?? "";
      assert.ok(label.startsWith(`In ${track.frames_present} of 36 frames: 0 to ${track.gaps[0][0] - 1}`), label);
      for (const place of [3, 8, 33]) {
        const { timestamp_s, mask, area } = track.frames[place];
        await slide(page, "#scrub", timestamp_s);
        await until(() => page.locator("#clock").textContent().then((text) => Math.abs(Number.parseFloat(text ?? "") - timestamp_s) < 0.04));
        const { wrong, inside } = await differenceTo(page, mask.data);
        assert.deepEqual([inside, wrong], [area, 0]);
        assert.ok((await shareOfOrange(page)) > 0.9, "the mask lies on the frame that is shown");
      }
      await page.click("#play");
      await page.locator("#play >> text=Pause").waitFor();
      await page.locator("#play >> text=Play").waitFor();

      const [file] = await Promise.all([page.waitForEvent("download"), page.click("#save-overlay")]);
      assert.equal(file.suggestedFilename(), "overlay.mp4");
      assert.equal(readFileSync(await file.path()).toString("latin1", 4, 8), "ftyp");
      const [tracks] = await Promise.all([page.waitForEvent("download"), page.click("#save-tracks")]);
      assert.equal(JSON.parse(readFileSync(await tracks.path(), "utf8")).videos.length, 1);
    });

    it("waits in the queue behind another, and is cancelled for good", async () => {
      const form = new FormData();
      form.append("video", new Blob([readFileSync(join(EXAMPLES, "clip.mp4"))]), "clip.mp4");
      form.append("prompt", "Please segment the blue square.");
      await fetch(`${world.url}/process_video`, { method: "POST", body: form });
      const page = await world.openExample("clip.mp4");
      const handedIn = page.waitForResponse(/process_video/);
      await page.click("#send");
      const { id } = await (await handedIn).json();
      await page.locator(".progress >> text=In the queue").waitFor();
      await page.locator(".answer.speaking .progress >> text=/Frame \\d+ of 36/").waitFor();
      await page.click("#stop");
      await page.locator(".answer.stopped").waitFor();
      await until(async () => (await (await fetch(`${world.url}/jobs/${id}`)).json()).state === "cancelled");
    });

    it("is asked about without being followed", async () => {
      const page = await world.openExample("clip.mp4");
      const turn = await ask(page, "What color is the circle?");
      assert.match((await turn.locator(".said").textContent()) ?? "", /orange/i);
      assert.equal(await page.locator("#tracks li").count(), 0);
    });
  });
}
