/** COCO's compressed run lengths, as pycocotools writes and reads them: column by column, outside first. */

/**
 * @param {Uint8Array} inside row by row
 * @param {number} w
 * @param {number} h
 * @returns {string}
 */
export function encodeRle(inside, w, h) {
  /** @type {number[]} */
  const runs = [];
  let [value, length] = [0, 0];
  for (let x = 0; x < w; x += 1) {
    for (let y = 0, i = x; y < h; y += 1, i += w) {
      if (inside[i] !== value) {
        runs.push(length);
        [value, length] = [inside[i], 0];
      }
      length += 1;
    }
  }
  runs.push(length);
  return runs.map((run, place) => toText(place > 2 ? run - runs[place - 2] : run)).join("");
}

/**
 * Five bits a character, the lowest first; 32 says that more follow, 16 of the last is the sign.
 * @param {number} number
 */
function toText(number) {
  let text = "";
  for (let rest = number; ; ) {
    const bits = rest & 31;
    rest >>= 5;
    const isLast = bits & 16 ? rest === -1 : rest === 0;
    text += String.fromCharCode((isLast ? bits : bits | 32) + 48);
    if (isLast) return text;
  }
}

/**
 * @param {string} counts
 * @param {number} w
 * @param {number} h
 * @param {number} level what pixels inside become
 * @returns {Uint8Array} row by row
 */
export function decodeRle(counts, w, h, level) {
  const grid = new Uint8Array(w * h);
  let place = 0;
  runsOf(counts).forEach((run, number) => {
    const end = Math.min(place + run, w * h);
    if (number % 2) for (; place < end; place += 1) grid[(place % h) * w + Math.floor(place / h)] = level;
    place = end;
  });
  return grid;
}

/** @param {string} counts */
function runsOf(counts) {
  /** @type {number[]} */
  const runs = [];
  for (let i = 0; i < counts.length; ) {
    let [number, shift, bits] = [0, 0, 0];
    do {
      bits = counts.charCodeAt(i) - 48;
      number |= (bits & 31) << shift;
      shift += 5;
      i += 1;
    } while (bits & 32);
    if (bits & 16 && shift < 32) number |= -1 << shift;
    runs.push(runs.length > 2 ? number + runs[runs.length - 2] : number);
  }
  return runs;
}
