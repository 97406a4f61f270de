/** Outlines of a mask along pixel edges (boundary tracing), simplified (Douglas-Peucker). */

/** @typedef {[number, number]} Corner */

const STEPS = [
  [1, 0],
  [0, 1],
  [-1, 0],
  [0, -1],
];

/**
 * The outer outlines of a mask's connected parts, in pixels; holes are left out, as YOLO's format has none.
 * @param {Uint8Array} inside row by row
 * @param {number} w
 * @param {number} h
 * @param {number} tolerance pixels by which an outline may be off
 * @returns {Corner[][]}
 */
export function outlines(inside, w, h, tolerance = 1) {
  return loops(inside, w, h)
    .filter((loop) => signedArea(loop) > 0)
    .map((loop) => simplifyLoop(loop, tolerance))
    .filter((loop) => loop.length > 2);
}

/**
 * Closed walks along the edges between inside and outside, with the inside at the right hand.
 * @param {Uint8Array} inside
 * @param {number} w
 * @param {number} h
 * @returns {Corner[][]}
 */
function loops(inside, w, h) {
  const at = (/** @type {number} */ x, /** @type {number} */ y) =>
    x >= 0 && y >= 0 && x < w && y < h ? inside[y * w + x] : 0;
  const walked = new Uint8Array(w * (h + 1));
  /** @type {Corner[][]} */
  const found = [];
  for (let y = 0; y <= h; y += 1) {
    for (let x = 0; x < w; x += 1) {
      const isTopEdge = at(x, y) && !at(x, y - 1);
      if (isTopEdge && !walked[y * w + x]) found.push(walk(at, x, y, (i, j) => (walked[j * w + i] = 1)));
    }
  }
  return found;
}

/**
 * Follows one boundary from the upper left corner of pixel (x, y), eastwards first.
 * @param {(x: number, y: number) => number} at
 * @param {number} startX
 * @param {number} startY
 * @param {(x: number, y: number) => void} markEast an edge that was walked eastwards
 * @returns {Corner[]}
 */
function walk(at, startX, startY, markEast) {
  /** @type {Corner[]} */
  const corners = [];
  let [x, y, direction] = [startX, startY, 0];
  do {
    if (direction === 0) markEast(x, y);
    x += STEPS[direction][0];
    y += STEPS[direction][1];
    const next = turn(at, x, y, direction);
    if (next !== direction) corners.push([x, y]);
    direction = next;
  } while (x !== startX || y !== startY || direction !== 0);
  return corners;
}

/**
 * Where to go at a corner: left where the pixel ahead at the left is inside, straight, or right.
 * @param {(x: number, y: number) => number} at
 * @param {number} x
 * @param {number} y
 * @param {number} direction
 */
function turn(at, x, y, direction) {
  const left = [at(x, y - 1), at(x, y), at(x - 1, y), at(x - 1, y - 1)][direction];
  const right = [at(x, y), at(x - 1, y), at(x - 1, y - 1), at(x, y - 1)][direction];
  if (!right) return (direction + 1) % 4;
  return left ? (direction + 3) % 4 : direction;
}

/** @param {Corner[]} loop */
function signedArea(loop) {
  let sum = 0;
  loop.forEach(([x, y], i) => {
    const [nextX, nextY] = loop[(i + 1) % loop.length];
    sum += x * nextY - nextX * y;
  });
  return sum / 2;
}

/**
 * @param {Corner[]} loop
 * @param {number} tolerance
 */
function simplifyLoop(loop, tolerance) {
  const [startX, startY] = loop[0];
  let far = 0;
  loop.forEach(([x, y], i) => {
    const [farX, farY] = loop[far];
    if (Math.hypot(x - startX, y - startY) > Math.hypot(farX - startX, farY - startY)) far = i;
  });
  const there = simplify(loop.slice(0, far + 1), tolerance);
  const back = simplify([...loop.slice(far), loop[0]], tolerance);
  return [...there.slice(0, -1), ...back.slice(0, -1)];
}

/**
 * @param {Corner[]} line
 * @param {number} tolerance
 * @returns {Corner[]}
 */
function simplify(line, tolerance) {
  const kept = new Uint8Array(line.length);
  kept[0] = kept[line.length - 1] = 1;
  const spans = [[0, line.length - 1]];
  for (let span = spans.pop(); span; span = spans.pop()) {
    const [first, last] = span;
    let [most, at] = [tolerance, -1];
    for (let i = first + 1; i < last; i += 1) {
      const off = distance(line[i], line[first], line[last]);
      if (off > most) [most, at] = [off, i];
    }
    if (at < 0) continue;
    kept[at] = 1;
    spans.push([first, at], [at, last]);
  }
  return line.filter((_, i) => kept[i]);
}

/**
 * @param {Corner} point
 * @param {Corner} from
 * @param {Corner} to
 */
function distance([x, y], [fromX, fromY], [toX, toY]) {
  const [dx, dy] = [toX - fromX, toY - fromY];
  const length = Math.hypot(dx, dy);
  return length ? Math.abs(dy * (x - fromX) - dx * (y - fromY)) / length : Math.hypot(x - fromX, y - fromY);
}
