/** The colours of masks, those of the service's own overlays (`include_overlay`). */
const PALETTE = [
  [255, 82, 82],
  [64, 156, 255],
  [255, 202, 40],
  [102, 217, 110],
  [196, 112, 255],
  [38, 208, 206],
  [255, 138, 48],
  [255, 110, 190],
];

/**
 * Red, green and blue of a mask by its place: a palette first, then hues that keep apart.
 * @param {number} number
 * @returns {number[]}
 */
export function colorOf(number) {
  return PALETTE[number] ?? fromHsv((number * 0.618034) % 1, 0.55 + 0.1 * (number % 4), 1);
}

/** @param {number} number */
export function cssColor(number) {
  return `rgb(${colorOf(number).join(" ")})`;
}

/**
 * @param {number} hue 0 to 1
 * @param {number} saturation 0 to 1
 * @param {number} value 0 to 1
 */
function fromHsv(hue, saturation, value) {
  const channel = (/** @type {number} */ n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}
