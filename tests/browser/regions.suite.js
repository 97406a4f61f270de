import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { drag } from "./pixels.js";
import { ask, lastForm } from "./world.js";

/** @typedef {import("playwright-core").Page} Page */

/** @param {Page} page */
async function sentRegions(page) {
  return JSON.parse((await lastForm(page)).regions);
}

/** @param {import("./world.js").World} world */
export function regions(world) {
  describe("regions", () => {
    it("are boxes that are named, sent as the API takes them, moved, resized and deleted", async () => {
      const page = await world.openExample("shapes.png");
      await page.click("[data-tool=box]");
      await drag(page, [[0.1, 0.15], [0.37, 0.52]]);
      await page.click("text=Ask about region1");
      const turn = await ask(page, null);
      assert.match((await turn.locator(".said").textContent()) ?? "", /region1 is a red circle/i);
      const [{ box }] = await sentRegions(page);
      for (const [i, wanted] of [64, 72, 173, 178].entries()) assert.ok(Math.abs(box[i] - wanted) <= 3, `${box}`);

      await page.click("[data-tool=select]");
      await drag(page, [[0.2, 0.3], [0.7, 0.3]]);
      const left = await page.getByLabel("region1: left in pixels").inputValue();
      assert.ok(Math.abs(Number(left) - box[0] - 320) <= 4, left);
      await page.getByLabel("region1: width in pixels").fill("100");
      await page.getByLabel("region1: width in pixels").press("Tab");
      await page.click("text=New conversation");
      await ask(page, "What is region1?");
      const [moved] = await sentRegions(page);
      assert.equal(moved.box[2], 100);

      await page.click("text=Delete");
      assert.equal(await page.locator("#region-list li").count(), 0);
      assert.equal(await page.locator("#pen .region").count(), 0);
      await ask(page, "What is in the picture?");
      assert.equal((await lastForm(page)).regions, undefined);
    });

    it("are lassos and brush strokes, too", async () => {
      const page = await world.openExample("shapes.png");
      await page.click("[data-tool=lasso]");
      await drag(page, [[0.6, 0.12], [0.88, 0.12], [0.88, 0.52], [0.6, 0.52]]);
      await page.click("[data-tool=brush]");
      await drag(page, [[0.48, 0.65], [0.52, 0.75], [0.56, 0.65]]);
      assert.deepEqual(await page.locator("#region-list strong").allTextContents(), ["region1", "region2"]);
      const turn = await ask(page, "What is region1?");
      assert.match((await turn.locator(".said").textContent()) ?? "", /blue square/i);
      const [lasso, brush] = await sentRegions(page);
      assert.ok(lasso.polygon.length > 4);
      const painted = await page.evaluate(async (url) => {
        const image = new Image();
        image.src = url;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.width, image.height];
        const context = canvas.getContext("2d");
        context?.drawImage(image, 0, 0);
        const pixel = (/** @type {number} */ x, /** @type {number} */ y) => context?.getImageData(x, y, 1, 1).data[0];
        return { size: [image.width, image.height], inside: pixel(332, 355), outside: pixel(100, 100) };
      }, brush.mask.data);
      assert.deepEqual(painted, { size: [640, 480], inside: 255, outside: 0 });
    });

    it("are drawn by keys alone", async () => {
      const page = await world.openExample("shapes.png");
      await page.locator("[data-tool=box]").focus();
      await page.keyboard.press("Enter");
      await page.locator("#pen").focus();
      const press = async (/** @type {string} */ key, /** @type {number} */ times) => {
        for (let i = 0; i < times; i += 1) await page.keyboard.press(key);
      };
      await press("ArrowRight", 6);
      await press("ArrowUp", 13);
      await press("Enter", 1);
      await press("ArrowRight", 14);
      await press("ArrowDown", 14);
      await press("Enter", 1);
      await page.locator("#live >> text=Drawn: region1.").waitFor({ state: "attached" });
      const turn = await ask(page, "What is region1?");
      assert.match((await turn.locator(".said").textContent()) ?? "", /blue square/i);
      await press("Enter", 1);
      await page.locator("#pen").focus();
      await press("Enter", 1);
      await press("ArrowLeft", 3);
      await press("Escape", 1);
      assert.equal(await page.locator("#region-list li").count(), 1);
    });
  });
}
