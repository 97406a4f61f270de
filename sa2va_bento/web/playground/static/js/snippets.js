/** The question that is shown, as a program would ask it. */

import { BASE } from "./api/http.js";
import { shapeOf } from "./regions/shapes.js";

/** @typedef {import("./types.js").Media} Media */
/** @typedef {{ prompt: string, history: import("./types.js").HistoryTurn[], regions: object[], media: Media, hasKey: boolean }} Question */

/**
 * @param {import("./types.js").Turn} turn
 * @param {Media} media
 * @param {boolean} hasKey
 * @returns {Question}
 */
export function questionOf({ prompt, history, regions }, media, hasKey) {
  const shapes = media.kind === "picture" ? regions.map((region) => shapeOf(region, media)) : [];
  return { prompt, history, regions: shapes, media, hasKey };
}

/** @type {Record<string, (question: Question) => string>} */
export const SNIPPETS = { curl, bentoml, openai, javascript };

const base = () => BASE.href.replace(/\/$/, "");
const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", "'\\''")}'`;
const json = (/** @type {unknown} */ value) => JSON.stringify(value);

/** @param {Question} question */
function extras({ history, regions }) {
  return Object.entries({ history, regions }).filter(([, list]) => list.length);
}

/** @param {Question} question */
function curl(question) {
  const { media, prompt, hasKey } = question;
  const isClip = media.kind === "clip";
  const fields = [
    `--form ${quoted(`${isClip ? "video" : "image"}=@${media.name}`)}`,
    `--form-string ${quoted(`prompt=${prompt}`)}`,
    ...extras(question).map(([name, list]) => `--form-string ${quoted(`${name}=${json(list)}`)}`),
    ...(isClip ? ["--form wait=60"] : []),
    ...(hasKey ? ['--header "Authorization: Bearer $SA2VA_KEY"'] : []),
  ];
  return [`curl --silent ${base()}/${isClip ? "process_video" : "process"}`, ...fields].join(" \\\n  ");
}

/**
 * A value as Python writes it; JSON's null, true and false do not occur in questions.
 * @param {unknown} value
 */
function python(value) {
  return json(value);
}

/** @param {Question} question */
function bentoml(question) {
  const { media, prompt, hasKey } = question;
  const isClip = media.kind === "clip";
  const options = [
    `${isClip ? "video" : "image"}=Path(${python(media.name)})`,
    `prompt=${python(prompt)}`,
    ...extras(question).map(([name, list]) => `${name}=${python(list)}`),
    ...(isClip ? ["wait=60"] : []),
  ];
  return [
    ...(hasKey ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "import bentoml",
    "",
    `with bentoml.SyncHTTPClient(${python(base())}${hasKey ? ', token=os.environ["SA2VA_KEY"]' : ""}) as client:`,
    `    answer = client.${isClip ? "process_video" : "process"}(`,
    ...options.map((option) => `        ${option},`),
    "    )",
    'print(answer["text"])',
    'for segment in answer["segments"]:',
    `    print(segment["phrase"], ${isClip ? 'segment["frames_present"]' : 'segment["bbox"], segment["score"]'})`,
    "",
  ].join("\n");
}

/** @param {Question} question */
function openai(question) {
  const { media, prompt, history, regions, hasKey } = question;
  const kind = media.kind === "clip" ? "video_url" : "image_url";
  const type = media.file.type || (media.kind === "clip" ? "video/mp4" : "image/png");
  return [
    "import base64",
    ...(hasKey ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "from openai import OpenAI",
    "",
    `data = base64.b64encode(Path(${python(media.name)}).read_bytes()).decode()`,
    `client = OpenAI(base_url=${python(`${base()}/v1`)}, api_key=${hasKey ? 'os.environ["SA2VA_KEY"]' : '"none"'})`,
    "answer = client.chat.completions.create(",
    '    model="sa2va",',
    "    messages=[",
    ...history.map((turn) => `        ${python(turn)},`),
    '        {"role": "user", "content": [',
    `            {"type": "text", "text": ${python(prompt)}},`,
    `            {"type": "${kind}", "${kind}": {"url": f"data:${type};base64,{data}"}},`,
    "        ]},",
    "    ],",
    ...(regions.length ? [`    extra_body={"regions": ${python(regions)}},`] : []),
    ")",
    "print(answer.choices[0].message.content)",
    "print(len(answer.choices[0].message.segments), \"masks\")",
    "",
  ].join("\n");
}

/** @param {Question} question */
function javascript(question) {
  const { media, prompt, hasKey } = question;
  const isClip = media.kind === "clip";
  return [
    'import { readFile } from "node:fs/promises"; // in a browser: the file of an <input>',
    "",
    `const file = new Blob([await readFile(${json(media.name)})]);`,
    "const form = new FormData();",
    `form.append("${isClip ? "video" : "image"}", file, ${json(media.name)});`,
    `form.append("prompt", ${json(prompt)});`,
    ...extras(question).map(([name, list]) => `form.append("${name}", JSON.stringify(${json(list)}));`),
    ...(isClip ? ['form.append("wait", "60");'] : []),
    `const response = await fetch(${json(`${base()}/${isClip ? "process_video" : "process"}`)}, {`,
    '  method: "POST",',
    ...(hasKey ? ["  headers: { Authorization: `Bearer ${process.env.SA2VA_KEY}` },"] : []),
    "  body: form,",
    "});",
    "const answer = await response.json();",
    "if (!response.ok) throw new Error(answer.error);",
    "console.log(answer.text, answer.segments.length);",
    "",
  ].join("\n");
}
