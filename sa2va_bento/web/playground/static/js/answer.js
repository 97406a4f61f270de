/** A reply taken apart: its words, its phrases and the places where it points at something. */

/** @typedef {{ text: string, mask: number | null, isMark: boolean }} Piece `mask` is the place of its `[SEG]`. */

const MARKS = /<p>([\s\S]*?)(?:<\/p>|$)((?:\s*\[SEG\])*)|\[SEG\]/g;

/**
 * @param {string} result as the API writes it, also while it is being written
 * @returns {Piece[]}
 */
export function piecesOf(result) {
  /** @type {Piece[]} */
  const pieces = [];
  let [place, mask] = [0, 0];
  const whole = result.replace(/(<\/?p?|\[S?E?G?)$/, "");
  for (const match of whole.matchAll(MARKS)) {
    push(pieces, whole.slice(place, match.index));
    place = match.index + match[0].length;
    if (match[1] === undefined) {
      pieces.push({ text: "", mask, isMark: true });
      mask += 1;
      continue;
    }
    const count = match[2].match(/\[SEG\]/g)?.length ?? 0;
    pieces.push({ text: match[1].trim(), mask: count ? mask : null, isMark: false });
    for (let i = 0; i < count; i += 1, mask += 1) pieces.push({ text: "", mask, isMark: true });
  }
  push(pieces, whole.slice(place));
  return pieces;
}

/**
 * @param {Piece[]} pieces
 * @param {string} text
 */
function push(pieces, text) {
  if (text) pieces.push({ text, mask: null, isMark: false });
}
