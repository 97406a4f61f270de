import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { answerOf, differenceTo, pixelOf, slide } from "./pixels.js";
import { BIN, DESCRIBE, EXAMPLES, ROOT, ask, lastForm, until } from "./world.js";

/** @param {import("./world.js").World} world */
export function pictures(world) {
  describe("a picture", () => {
    it("is asked about: text with phrases, and masks that are the API's pixel by pixel", async () => {
      const page = await world.openExample("shapes.png");
      const turn = await ask(page, "Please segment the red circle.");
      assert.match((await turn.locator(".said").textContent()) ?? "", /Sure,/);
      const [segment] = (await answerOf(world.url, "shapes.png", "Please segment the red circle.")).segments;
      const { wrong, inside } = await differenceTo(page, segment.mask.data);
      assert.equal(inside, segment.area);
      assert.ok(wrong <= 2, `${wrong} pixels differ`);
    });

    it("has a threshold that moves the boundary at once, without another request", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, "Please segment the yellow star.");
      let asked = 0;
      page.on("request", (request) => (asked += Number(request.method() === "POST")));
      const areas = [];
      for (const threshold of [0.1, 0.5, 0.9]) {
        await slide(page, "#threshold", threshold);
        const fields = { mask_threshold: String(threshold) };
        const [segment] = (await answerOf(world.url, "shapes.png", "Please segment the yellow star.", fields)).segments;
        const { wrong } = await differenceTo(page, segment.mask.data);
        assert.ok(wrong <= 0.002 * segment.area, `${wrong} of ${segment.area} pixels differ at ${threshold}`);
        areas.push(segment.area);
      }
      assert.ok(areas[0] > areas[1] && areas[1] > areas[2]);
      assert.equal(asked, 0);
    });

    it("links phrases and masks by colour, pointer and focus", async () => {
      const page = await world.openExample("shapes.png");
      const turn = await ask(page, null);
      const phrases = turn.locator(".phrase");
      assert.deepEqual(await phrases.allTextContents(), ["a red circle", "a blue square", "a yellow star"]);
      await slide(page, "#opacity", 1);
      const color = await phrases.nth(1).evaluate((phrase) => getComputedStyle(phrase).borderBottomColor);
      const [red, green, blue] = await pixelOf(page, 470, 150);
      assert.equal(color, `rgb(${red}, ${green}, ${blue})`);

      await slide(page, "#opacity", 0.5);
      const [, , , calm] = await pixelOf(page, 470, 150);
      await phrases.nth(1).hover();
      const [, , , lit] = await pixelOf(page, 470, 150);
      const [, , , dimmed] = await pixelOf(page, 150, 160);
      assert.ok(lit > calm && dimmed < calm);

      await turn.locator(".mark").nth(2).focus();
      await page.locator("#mask-list li.lit >> text=a yellow star").waitFor();
      const box = await page.locator("#pen").boundingBox();
      assert.ok(box);
      await page.mouse.move(box.x + (box.width * 150) / 640, box.y + (box.height * 160) / 480);
      await turn.locator(".phrase.lit >> text=a red circle").waitFor();
    });

    it("shows masks one by one, cut out and before a blurred ground", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, DESCRIBE);
      await page.locator("#mask-list input").first().uncheck();
      assert.equal((await pixelOf(page, 150, 160))[3], 0);
      assert.ok((await pixelOf(page, 470, 150))[3] > 0);
      await slide(page, "#opacity", 0);
      assert.equal((await pixelOf(page, 470, 150))[3], 0);
      await page.selectOption("#background", "cutout");
      assert.equal((await pixelOf(page, 470, 150))[3], 0);
      const [red, green, blue, alpha] = await pixelOf(page, 150, 160);
      assert.ok(red === green && green === blue && alpha === 255, "the hidden mask is outside");
      await page.selectOption("#background", "blur");
      assert.equal((await pixelOf(page, 470, 150))[3], 0);
      const [r, , b, a] = await pixelOf(page, 150, 160);
      assert.ok(a === 255 && r > b + 50, "outside, the picture itself is seen, blurred");
    });

    it("gives masks away as PNG, COCO, YOLO and as seen", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, DESCRIBE);
      const folder = world.service?.home ?? "";
      for (const [button, name] of [["PNG of a blue square", "mask-2.png"], ["COCO JSON", "masks.coco.json"], ["YOLO polygons", "masks.yolo.txt"], ["As seen (PNG)", "overlay.png"]]) {
        const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: button, exact: true }).click()]);
        assert.equal(file.suggestedFilename(), name);
        await file.saveAs(join(folder, name));
      }
      const answer = await answerOf(world.url, "shapes.png", DESCRIBE, { mask_format: "rle" });
      writeFileSync(join(folder, "answer.json"), JSON.stringify(answer));
      execFileSync(join(BIN, "python"), ["-m", "tests.browser.check_downloads", folder], { cwd: ROOT, stdio: "inherit" });
    });

    it("may be larger than the screen: masks keep its size", async () => {
      const page = await world.open();
      const base64 = await page.evaluate(() => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [3000, 2000];
        const context = canvas.getContext("2d");
        if (!context) throw new Error("no drawing");
        context.fillStyle = "#ece7db";
        context.fillRect(0, 0, 3000, 2000);
        context.fillStyle = "#d8342c";
        context.arc(1000, 900, 420, 0, 7);
        context.fill();
        return canvas.toDataURL("image/png").split(",")[1];
      });
      await page.setInputFiles("#file", { name: "large.png", mimeType: "image/png", buffer: Buffer.from(base64, "base64") });
      await ask(page, "Please segment the red circle.");
      const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "PNG of mask 1" }).click()]);
      const png = readFileSync(await file.path());
      assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [3000, 2000]);
      const { width } = await page.locator("#overlay").evaluate((canvas) => ({ width: /** @type {HTMLCanvasElement} */ (canvas).width }));
      assert.equal(width, 1600);
      assert.ok((await pixelOf(page, 533, 480))[3] > 0 && (await pixelOf(page, 1200, 480))[3] === 0);
    });

    it("is dropped, pasted, chosen or photographed", async () => {
      const page = await world.open();
      const data = readFileSync(join(EXAMPLES, "word.png")).toString("base64");
      for (const kind of ["drop", "paste"]) {
        await page.evaluate(
          ([name, base64]) => {
            const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], `${name}.png`, { type: "image/png" }));
            const event = name === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }) : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
            document.body.dispatchEvent(event);
          },
          [kind, data],
        );
        await page.locator(`#live >> text=Opened: ${kind}.png.`).waitFor({ state: "attached" });
      }
      await page.setInputFiles("#file", join(EXAMPLES, "twins.png"));
      await page.locator("#live >> text=Opened: twins.png.").waitFor({ state: "attached" });
      await ask(page, "How many triangles are there?");

      const other = await world.open();
      await other.click("text=Take a photo");
      await until(() => other.locator("#preview").evaluate((preview) => preview instanceof HTMLVideoElement && preview.videoWidth > 0));
      await other.click("#shoot");
      await ask(other, "What is in the picture?");
      assert.equal(await page.locator("#turns > li").count(), 1);
    });

    it("leaves alone what is typed while an example comes", async () => {
      const page = await world.open();
      await page.route("**/ui/examples/shapes.png", async (route) => {
        await page.fill("#prompt", "What color is the star?");
        await route.continue();
      });
      await page.click('[data-example="shapes.png"]');
      await page.waitForSelector("#frame:not([hidden])");
      assert.equal(await page.inputValue("#prompt"), "What color is the star?");
    });

    it("is talked about over several turns", async () => {
      const page = await world.openExample("shapes.png");
      await ask(page, "Where is the star?");
      await ask(page, "And its color?");
      const history = JSON.parse((await lastForm(page)).history);
      assert.deepEqual(history[0], { role: "user", content: "Where is the star?" });
      assert.deepEqual([history.length, history[1].role], [2, "assistant"]);
      assert.match((await page.locator("#turns > li").nth(1).locator(".said").textContent()) ?? "", /yellow/i);
      await page.click("text=New conversation");
      assert.equal(await page.locator("#turns > li").count(), 0);
      await ask(page, "What color is the square?");
      assert.equal((await lastForm(page)).history, undefined);
    });

    it("streams, and stops for good", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.slow);
      await page.fill("#prompt", "What is it?");
      await page.click("#send");
      await page.locator(".answer.speaking .said >> text=You").waitFor();
      assert.equal(await queueOf(world.urls.slow), 1);
      await page.locator("text=/Answering, \\d+ s/").waitFor();
      await page.click("#stop");
      await page.locator(".answer.stopped").waitFor();
      for (let i = 0; i < 50 && (await queueOf(world.urls.slow)); i += 1) await page.waitForTimeout(20);
      assert.equal(await queueOf(world.urls.slow), 0);
      world.tell("go");
      await page.click("text=Ask again");
      await page.locator(".answer.done .said >> text=You asked: What is it?").waitFor();
      world.tell("wait");
    });
  });
}

/** @param {string} base */
async function queueOf(base) {
  return (await (await fetch(`${base}/health`)).json()).queue_depth;
}
