/** What is drawn, compared with what the API says. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EXAMPLES } from "./world.js";

/** @typedef {import("playwright-core").Page} Page */

/**
 * The service's answer about an example, masks as PNG.
 * @param {string} base
 * @param {string} name
 * @param {string} prompt
 * @param {Record<string, string>} [fields]
 */
export async function answerOf(base, name, prompt, fields = {}) {
  const form = new FormData();
  form.append("image", new Blob([readFileSync(join(EXAMPLES, name))]), name);
  form.append("prompt", prompt);
  for (const [key, value] of Object.entries({ mask_format: "png", ...fields })) form.append(key, value);
  const response = await fetch(`${base}/process`, { method: "POST", body: form });
  return response.json();
}

/**
 * How many pixels of the drawing differ from a mask: those drawn in a colour against those of a PNG (a data URL).
 * @param {Page} page
 * @param {string} png
 * @returns {Promise<{ wrong: number, inside: number }>}
 */
export function differenceTo(page, png) {
  return page.evaluate(async (url) => {
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const canvas = document.querySelector("#overlay");
    if (!(canvas instanceof HTMLCanvasElement)) throw new Error("no drawing");
    const image = new Image();
    image.src = url;
    await image.decode();
    const other = document.createElement("canvas");
    [other.width, other.height] = [image.width, image.height];
    const context = other.getContext("2d");
    context?.drawImage(image, 0, 0);
    const wanted = context?.getImageData(0, 0, image.width, image.height).data ?? [];
    const drawn = canvas.getContext("2d")?.getImageData(0, 0, image.width, image.height).data ?? [];
    let [wrong, inside] = [0, 0];
    for (let i = 0; i < wanted.length; i += 4) {
      inside += Number(wanted[i] > 127);
      wrong += Number(wanted[i] > 127 !== drawn[i + 3] > 0);
    }
    return { wrong, inside };
  }, png);
}

/**
 * A pixel of the drawing: red, green, blue, alpha.
 * @param {Page} page
 * @param {number} x
 * @param {number} y
 * @returns {Promise<number[]>}
 */
export function pixelOf(page, x, y) {
  return page.evaluate(async ([column, row]) => {
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const canvas = document.querySelector("#overlay");
    if (!(canvas instanceof HTMLCanvasElement)) throw new Error("no drawing");
    return [...(canvas.getContext("2d")?.getImageData(column, row, 1, 1).data ?? [])];
  }, [x, y]);
}

/**
 * Moves a slider as a person does, and lets the page know.
 * @param {Page} page
 * @param {string} selector
 * @param {number} value
 */
export async function slide(page, selector, value) {
  await page.locator(selector).evaluate((input, wanted) => {
    if (!(input instanceof HTMLInputElement)) throw new Error("no slider");
    input.value = String(wanted);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }, value);
}

/**
 * Drags over the picture; places are shares of its sides.
 * @param {Page} page
 * @param {number[][]} places
 */
export async function drag(page, places) {
  await page.locator("#pen").scrollIntoViewIfNeeded();
  const box = await page.locator("#pen").boundingBox();
  if (!box) throw new Error("no picture");
  for (const [number, [x, y]] of places.entries()) {
    await page.mouse.move(box.x + box.width * x, box.y + box.height * y, { steps: 4 });
    if (number === 0) await page.mouse.down();
  }
  await page.mouse.up();
}
