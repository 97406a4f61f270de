/**
 * What passes between the modules. Field names inside `Segment`, `Frame` and `JobStatus` are the API's.
 *
 * @typedef {{ w: number, h: number, data: Uint8Array }} Grid Probabilities in 255ths, row by row.
 * @typedef {{ x: number, y: number }} Point In pixels of the picture.
 *
 * @typedef {{ id: number, phrase: string | null, score: number, object_score: number, grid: Grid }} Segment
 * @typedef {{ id: number, present: boolean, bbox: number[], area: number, score: number, counts: string }} Seen
 * @typedef {{ index: number, time: number, size: [number, number], seen: Map<number, Seen> }} Frame
 *
 * @typedef {{ kind: "box", x: number, y: number, w: number, h: number }} Box
 * @typedef {{ kind: "lasso", points: Point[] }} Lasso
 * @typedef {{ kind: "brush", points: Point[], width: number }} Brush
 * @typedef {Box | Lasso | Brush} Region
 * @typedef {"select" | "box" | "lasso" | "brush"} Tool
 *
 * @typedef {{ kind: "picture", file: Blob, name: string, width: number, height: number, bitmap: ImageBitmap }} Picture
 * @typedef {{ kind: "clip", file: Blob, name: string, url: string }} Clip
 * @typedef {Picture | Clip} Media
 *
 * @typedef {{ role: "user" | "assistant", content: string }} HistoryTurn
 * @typedef {{ id: string, state: "queued" | "running" | "done" | "failed" | "cancelled", queue_place: number | null,
 *   attempt: number, frames_done: number, frames_total: number | null, frames_per_second: number | null,
 *   seconds_left: number | null, error: { status: number, message: string } | null }} JobStatus
 *
 * @typedef {"sending" | "waiting" | "speaking" | "done" | "stopped" | "failed"} TurnState
 * @typedef {{
 *   id: number, prompt: string, state: TurnState, result: string, segments: Segment[], regions: Region[],
 *   history: HistoryTurn[], startedAt: number, sent: number, job: JobStatus | null, frames: Map<number, Frame>,
 *   seconds: number | null, warnings: string[], problem: Problem | null
 * }} Turn `sent` is the share of a clip that has been sent.
 *
 * @typedef {{ status: number, title: string, detail: string, retryAfter: number | null }} Problem `status` 0: no answer.
 * @typedef {{ threshold: number, opacity: number, outline: boolean, background: "picture" | "cutout" | "blur" }} View
 * @typedef {{ state: "unknown" | "ready" | "loading" | "gone", model: string, device: string, queue: number }} Service
 *
 * @typedef {{
 *   service: Service, media: Media | null, turns: Turn[], shown: number | null, lit: number | null,
 *   hidden: ReadonlySet<number>, view: View, regions: Region[], tool: Tool, selected: number | null,
 *   problem: Problem | null, askKey: boolean, hasKey: boolean, said: string, time: number
 * }} State `shown` is the turn whose masks are drawn, `lit` the mask that is pointed at, `said` what a screen reader is
 *   told, `time` where a clip stands.
 */
export {};
