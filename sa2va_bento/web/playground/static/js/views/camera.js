import { byId, el } from "../dom.js";

/**
 * The camera. Where the browser gives it to no page (without HTTPS), phones still take a photo by a file field.
 * @param {(file: Blob, name: string) => void} open
 * @returns {() => void} starts it
 */
export function mountCamera(open) {
  const dialog = byId("camera", HTMLDialogElement);
  const preview = byId("preview", HTMLVideoElement);
  const trouble = byId("camera-trouble", HTMLElement);
  /** @type {MediaStream | null} */
  let stream = null;

  function end() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    preview.srcObject = null;
  }

  async function start() {
    if (!navigator.mediaDevices?.getUserMedia) return byId("photo", HTMLInputElement).click();
    trouble.hidden = true;
    dialog.showModal();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      preview.srcObject = stream;
      await preview.play();
    } catch {
      trouble.hidden = false;
    }
  }

  function shoot() {
    const canvas = el("canvas", { width: preview.videoWidth, height: preview.videoHeight });
    if (!canvas.width) return;
    canvas.getContext("2d")?.drawImage(preview, 0, 0);
    canvas.toBlob((blob) => blob && open(blob, "photo.jpg"), "image/jpeg", 0.92);
    dialog.close();
  }

  byId("shoot", HTMLButtonElement).addEventListener("click", shoot);
  byId("camera-close", HTMLButtonElement).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", end);
  const photo = byId("photo", HTMLInputElement);
  photo.addEventListener("change", () => {
    const file = photo.files?.[0];
    if (file) open(file, file.name);
    photo.value = "";
  });
  return start;
}
