import assert from "node:assert/strict";
import { createServer, request as httpRequest } from "node:http";
import { describe, it } from "node:test";
import { ask, pause } from "./world.js";

const MOST_BYTES = 300_000;
const MOST_MS = 1000;

/** @param {import("./world.js").World} world */
export function page(world) {
  describe("the page", () => {
    it("is light and there at once", async () => {
      const page = await world.open();
      await pause(300);
      const { bytes, paint } = await page.evaluate(() => {
        const entries = /** @type {PerformanceResourceTiming[]} */ ([
          ...performance.getEntriesByType("navigation"),
          ...performance.getEntriesByType("resource"),
        ]);
        const paints = performance.getEntriesByName("first-contentful-paint");
        return { bytes: entries.reduce((sum, { decodedBodySize }) => sum + decodedBodySize, 0), paint: paints[0]?.startTime };
      });
      console.log(`# ${bytes} bytes unpacked, first paint after ${Math.round(paint)} ms`);
      assert.ok(bytes > 50_000 && bytes < MOST_BYTES, `${bytes} bytes`);
      assert.ok(paint < MOST_MS, `${paint} ms`);
    });

    it("is asked for again only where it has changed", async () => {
      const first = await fetch(`${world.url}/ui/js/main.js`);
      const headers = { "If-None-Match": first.headers.get("etag") ?? "" };
      assert.equal((await fetch(`${world.url}/ui/js/main.js`, { headers })).status, 304);
    });

    it("runs nothing that is not its own", async () => {
      const page = await world.open();
      const refused = page.waitForEvent("console", (message) => /Content Security Policy/.test(message.text()));
      await page.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'taken'";
        document.body.append(script);
      });
      await refused;
      assert.equal(await page.title(), "Sa2VA playground");
      world.complaints.splice(0);
      const other = await page.evaluate(() => fetch("http://localhost:9/").catch((error) => String(error)));
      assert.match(String(other), /Failed to fetch/);
      world.complaints.splice(0);
      world.requested.delete("http://localhost:9/");
    });

    it("works behind a proxy that takes a prefix off", async () => {
      const proxy = createServer((incoming, outgoing) => {
        const path = (incoming.url ?? "").replace(/^\/behind(?=\/)/, "");
        const options = { method: incoming.method, headers: incoming.headers };
        const onward = httpRequest(`${world.url}${path}`, options, (answer) => {
          outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(outgoing);
        });
        incoming.pipe(onward);
      });
      const port = await new Promise((resolve) => {
        proxy.listen(0, "127.0.0.1", () => resolve(/** @type {any} */ (proxy.address()).port));
      });
      const base = `http://127.0.0.1:${port}/behind`;
      world.urls.proxy = base;
      const page = await world.openExample("shapes.png", {}, base);
      await ask(page, "Please segment the red circle.");
      await page.goto(`${base}/ui/`);
      assert.equal(page.url(), `${base}/ui`);
      await page.goto(`${base}/`);
      assert.equal(page.url(), `${base}/ui`);
      await page.context().close();
      proxy.close();
    });

    it("shows what a model writes as text", async () => {
      const page = await world.openExample("shapes.png", {}, world.urls.keyed);
      await page.evaluate(() => sessionStorage.setItem("sa2va-key", "sesame"));
      const prompt = "<img src=x onerror=alert(1)><b>bold</b>";
      const turn = await ask(page, prompt);
      assert.equal(await turn.locator(".asked").textContent(), `You: ${prompt}`);
      assert.equal(await turn.locator(".said").textContent(), `Sa2VA: You asked: ${prompt}`);
      assert.equal(await turn.locator("img, b").count(), 0);
    });
  });
}

/**
 * What all pages of all tests did: to be asked at the end.
 * @param {import("./world.js").World} world
 */
export function whole(world) {
  describe("all pages of these tests", () => {
    it("asked no other host for anything", () => {
      const own = new Set([world.url, ...Object.values(world.urls)].map((url) => new URL(url).host));
      const strange = [...world.requested].filter((url) => /^(https?|wss?):/.test(url) && !own.has(new URL(url).host));
      assert.deepEqual(strange, []);
      assert.ok(world.requested.size > 50);
    });

    it("complained of nothing", () => assert.deepEqual(world.complaints, []));
  });
}
