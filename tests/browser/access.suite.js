import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { ask } from "./world.js";

/** @typedef {import("playwright-core").Page} Page */

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");

/**
 * What axe finds serious or critical in light colours and in dark ones, as text.
 * @param {Page} page
 * @returns {Promise<string[]>}
 */
async function findings(page) {
  await page.emulateMedia({ reducedMotion: "reduce" }); // else colours are looked at while they change
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  const found = [];
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate(() => /** @type {any} */ (window).axe.run());
    for (const { id, impact, nodes } of violations) {
      if (impact !== "serious" && impact !== "critical") continue;
      found.push(...nodes.map((/** @type {any} */ node) => `${colorScheme} ${id}: ${node.html} ${node.failureSummary}`));
    }
  }
  return found;
}

/** @param {import("./world.js").World} world */
export function access(world) {
  describe("everybody", () => {
    it("reads it in light and in dark colours: axe finds nothing serious", async () => {
      const page = await world.open();
      assert.deepEqual(await findings(page), [], "empty");
      await page.click("#nano summary");
      await page.click('[data-example="shapes.png"]');
      await ask(page, null);
      await page.click("[data-tool=box]");
      await page.locator("#pen").focus();
      for (const key of ["Enter", "ArrowRight", "ArrowDown", "Enter"]) await page.keyboard.press(key);
      await page.click("#code summary");
      await page.locator(".mark").first().focus();
      assert.deepEqual(await findings(page), [], "answered");
      await page.click("#key-button");
      assert.deepEqual(await findings(page), [], "key");

      const failed = await world.openExample("word.png", {}, world.urls.full);
      await ask(failed, "What is it?", "failed");
      await failed.setInputFiles("#file", { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("text") });
      await failed.locator("#problem:not([hidden])").waitFor();
      assert.deepEqual(await findings(failed), [], "failed");

      const film = await world.openExample("clip.mp4");
      await ask(film, null);
      assert.deepEqual(await findings(film), [], "video");
    });

    it("is seen to be bad where it is: axe does look", async () => {
      const page = await world.open();
      await page.evaluate(() => {
        const text = document.createElement("p");
        text.textContent = "pale";
        text.style.setProperty("color", "#bbb");
        text.style.setProperty("background", "#ccc");
        document.querySelector("main")?.append(text);
      });
      assert.match((await findings(page)).join("\n"), /light color-contrast[^]*dark color-contrast/);
    });

    it("uses it by keys alone, and hears what happens", async () => {
      const page = await world.open();
      const onto = async (/** @type {string} */ selector) => {
        for (let i = 0; i < 60; i += 1) {
          await page.keyboard.press("Tab");
          const isThere = await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector);
          if (isThere) return;
        }
        throw new Error(`no way to ${selector} by Tab`);
      };
      await page.keyboard.press("Tab");
      assert.equal(await page.evaluate(() => document.activeElement?.className), "skip");
      await onto('[data-example="shapes.png"]');
      await page.keyboard.press("Enter");
      await page.locator("#live >> text=Opened: shapes.png.").waitFor({ state: "attached" });
      await page.locator("#prompt:focus").waitFor();
      await page.keyboard.press("Enter");
      await page.locator(".answer.done").waitFor();
      await page.locator("#live >> text=/a red circle.*3 masks/").waitFor({ state: "attached" });
      await page.keyboard.press("Tab");
      await page.keyboard.press("Shift+Tab");
      await page.keyboard.press("Shift+Tab");
      await page.locator(".mark:focus").waitFor();
      await page.locator("#mask-list .lit").waitFor();
      await page.locator(".skip").focus();
      await onto("#mask-list input");
      await page.keyboard.press("Space");
      assert.ok(!(await page.locator("#mask-list input").first().isChecked()));
      assert.ok(await page.evaluate(() => document.activeElement?.matches("#mask-list input")), "the focus stays");
      await onto("#threshold");
      await page.keyboard.press("ArrowRight");
      assert.equal(await page.locator("#threshold-value").textContent(), "0.51");
      await onto("#code summary");
      await page.keyboard.press("Enter");
      await page.locator("#snippet >> text=curl").waitFor();
    });

    it("uses it on a phone, and draws with a finger", async () => {
      const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
      const page = await world.openExample("shapes.png", phone);
      const isNarrow = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
      assert.ok(await isNarrow());
      await page.tap("[data-tool=box]");
      await page.locator("#pen").scrollIntoViewIfNeeded();
      const box = await page.locator("#pen").boundingBox();
      assert.ok(box);
      const touch = await page.context().newCDPSession(page);
      const at = (/** @type {number} */ x, /** @type {number} */ y) => ({ x: box.x + box.width * x, y: box.y + box.height * y });
      await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [at(0.6, 0.12)] });
      for (const share of [0.3, 0.6, 1]) {
        const point = at(0.6 + 0.28 * share, 0.12 + 0.4 * share);
        await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: [point] });
      }
      await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
      await page.tap("text=Ask about region1");
      const turn = await ask(page, null);
      assert.match((await turn.locator(".said").textContent()) ?? "", /blue square/i);
      assert.ok(await isNarrow());
      const small = await page.evaluate(() =>
        [...document.querySelectorAll("button, select, summary, textarea")]
          .filter((one) => one instanceof HTMLElement && one.offsetParent && one.getBoundingClientRect().height < 24)
          .map((one) => one.outerHTML),
      );
      assert.deepEqual(small, [], "too small for a finger");
    });

    it("is not moved where motion is not wanted", async () => {
      for (const [reducedMotion, duration] of /** @type {const} */ ([["reduce", "0s"], ["no-preference", "0.15s"]])) {
        const page = await world.open(world.url, { reducedMotion });
        const found = await page.locator("#send").evaluate((button) => getComputedStyle(button).transitionDuration);
        assert.ok(found.startsWith(duration), found);
      }
    });
  });
}
