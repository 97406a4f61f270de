/** What the tests stand on: the real service with the embedded model, services in rare states, and a browser. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {import("playwright-core").BrowserContextOptions} Options */

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const BIN = process.env.VENV_BIN ?? join(ROOT, ".venv/bin");
export const EXAMPLES = join(ROOT, "sa2va_bento/web/playground/static/examples");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-background-networking",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];

/**
 * A port below those that connections are given: a service that starts again must find it free.
 * @returns {Promise<number>}
 */
function freePort() {
  const port = 18_000 + Math.floor(12_000 * Math.random());
  return new Promise((resolve) => {
    const server = createServer().listen(port, "127.0.0.1", () => server.close(() => resolve(port)));
    server.on("error", () => resolve(freePort()));
  });
}

/** `bentoml serve`, as the README starts it; it can be killed and started again on its port. */
export class Service {
  /** @param {number} port */
  constructor(port) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.home = mkdtempSync(join(tmpdir(), "sa2va-browser-"));
    this.log = join(this.home, "log");
    /** @type {import("node:child_process").ChildProcess | null} */
    this.process = null;
  }

  async start() {
    const clean = Object.entries(process.env).filter(([name]) => !/^(SA2VA_|BENTOML_|MODEL_PATH)/.test(name));
    const own = { BENTOML_HOME: this.home, SA2VA_JOBS_DIR: join(this.home, "jobs"), BENTOML_DO_NOT_TRACK: "True" };
    const command = ["serve", "service:Sa2VA", "--port", String(this.port), "--host", "127.0.0.1"];
    const log = openSync(this.log, "a");
    /** @type {import("node:child_process").SpawnOptions} */
    const options = { cwd: ROOT, env: { ...Object.fromEntries(clean), ...own }, stdio: ["ignore", log, log] };
    this.process = spawn(join(BIN, "bentoml"), command, options);
    await this.wait();
  }

  async wait() {
    for (const end = Date.now() + 60_000; Date.now() < end; await pause(100)) {
      const ready = await fetch(`${this.url}/readyz`).catch(() => null);
      if (ready?.ok) return;
    }
    throw new Error(`the service did not become ready:\n${readFileSync(this.log, "utf8").slice(-3000)}`);
  }

  /** @param {NodeJS.Signals} signal */
  async stop(signal = "SIGTERM") {
    const child = this.process;
    if (!child) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
    this.process = null;
    for (; await fetch(`${this.url}/livez`).then(() => true, () => false); ) await pause(50);
  }
}

/** @param {number} milliseconds */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export class World {
  /** @type {Set<string>} */
  requested = new Set();
  /** @type {string[]} */
  complaints = [];
  /** @type {Record<string, string>} */
  urls = {};

  async start() {
    if (!existsSync(CHROMIUM)) throw new Error(`no browser at ${CHROMIUM}: apt-get install chromium`);
    this.service = new Service(await freePort());
    const [browser] = await Promise.all([
      chromium.launch({ executablePath: CHROMIUM, args: FLAGS }),
      this.service.start(),
      this.startStage(),
    ]);
    this.browser = browser;
  }

  async startStage() {
    const env = { ...process.env, BENTOML_DO_NOT_TRACK: "True" };
    this.stage = spawn(join(BIN, "python"), ["-m", "tests.browser.stage"], { cwd: ROOT, env, stdio: ["pipe", "pipe", "ignore"] });
    for await (const line of createInterface({ input: this.stage.stdout })) {
      this.urls = JSON.parse(line);
      return;
    }
    throw new Error("the stage did not start");
  }

  /** @param {"load" | "go" | "wait"} command */
  tell(command) {
    this.stage?.stdin.write(`${command}\n`);
  }

  get url() {
    return this.service?.url ?? "";
  }

  async stop() {
    await this.browser?.close();
    this.stage?.stdin.end();
    await this.service?.stop();
    if (this.service) rmSync(this.service.home, { recursive: true, force: true });
  }

  /**
   * A page of a fresh profile. What it requests and what it complains of is written down.
   * @param {string} [base]
   * @param {Options} [options]
   */
  async open(base = this.url, options = {}) {
    const context = await this.browser?.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    if (!context) throw new Error("no browser");
    context.on("request", (request) => this.requested.add(request.url()));
    await context.addInitScript(noteForms);
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      const isAnswer = /Failed to load resource|net::ERR/.test(message.text());
      if (message.type() === "error" && !isAnswer) this.complaints.push(message.text());
    });
    await page.goto(`${base}/ui`);
    await page.waitForSelector("html[data-ready]");
    return page;
  }

  /**
   * A page with an example opened.
   * @param {string} name
   * @param {Options} [options]
   * @param {string} [base]
   */
  async openExample(name, options = {}, base = this.url) {
    const page = await this.open(base, options);
    await page.click(`[data-example="${name}"]`);
    await page.waitForSelector("#frame:not([hidden])");
    return page;
  }
}

/** In the page: notes the plain fields of every form that is sent. */
function noteForms() {
  const plain = window.fetch;
  /** @type {any} */ (window).forms = [];
  window.fetch = (url, options) => {
    const form = options?.body;
    if (form instanceof FormData) {
      const fields = [...form].filter(([, value]) => typeof value === "string");
      /** @type {any} */ (window).forms.push(Object.fromEntries(fields));
    }
    return plain(url, options);
  };
}

/**
 * The fields of the last form that a page has sent.
 * @param {Page} page
 * @returns {Promise<Record<string, string>>}
 */
export function lastForm(page) {
  return page.evaluate(() => /** @type {any} */ (window).forms.at(-1));
}

/**
 * Returns once something is true.
 * @param {() => Promise<boolean>} check
 */
export async function until(check) {
  for (const end = Date.now() + 15_000; Date.now() < end; await pause(50)) if (await check()) return;
  throw new Error(`never true: ${check}`);
}

/**
 * Asks, and waits for the answer.
 * @param {Page} page
 * @param {string | null} prompt null: what stands there
 * @param {string} state
 */
export async function ask(page, prompt, state = "done") {
  const count = await page.locator("#turns > li").count();
  if (prompt !== null) await page.fill("#prompt", prompt);
  await page.click("#send");
  const last = page.locator("#turns > li").nth(count);
  await last.locator(`.answer.${state}`).waitFor();
  return last;
}

export const DESCRIBE =
  "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts of the answer.";
