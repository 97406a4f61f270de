import { ApiError } from "./api/http.js";

/** @typedef {import("./types.js").Media} Media */

const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv|avi)$/i;

/**
 * A file as what can be asked about. What this browser can't draw is refused here, by the words that the service has.
 * @param {Blob} file
 * @param {string} name
 * @returns {Promise<Media>}
 */
export async function openMedia(file, name) {
  if (!file.size) throw new ApiError(400, "the file is empty");
  if (file.type.startsWith("video/") || VIDEO_NAME.test(name)) {
    return { kind: "clip", file, name, url: URL.createObjectURL(file) };
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new ApiError(415, `this browser can't show ${name || "that file"}`);
  }
  return { kind: "picture", file, name, width: bitmap.width, height: bitmap.height, bitmap };
}

/** @param {Media | null} media */
export function closeMedia(media) {
  if (media?.kind === "clip") URL.revokeObjectURL(media.url);
  if (media?.kind === "picture") media.bitmap.close();
}

/**
 * The first file of a drop or a paste.
 * @param {DataTransfer | null} transfer
 * @returns {File | null}
 */
export function fileOf(transfer) {
  return transfer?.files[0] ?? null;
}
