"use strict";
// The window of each series, the size of all pictures, and one picture enlarged.
for (const box of document.querySelectorAll("[data-window]")) {
  const [black, white] = box.querySelectorAll("input");
  const parts = document.querySelectorAll(`#${box.dataset.window} [type=linear]`);
  const [low, high] = [Number(box.dataset.low), Number(box.dataset.high)];
  const show = () => {
    const start = Number(black.value) / 100;
    const width = Math.max(Number(white.value) / 100 - start, 0.01);
    for (const part of parts) {
      part.setAttribute("slope", 1 / width);
      part.setAttribute("intercept", -start / width);
    }
    const value = (share) => (low + share * (high - low)).toPrecision(3);
    box.querySelector("output").value = `${value(start)} to ${value(start + width)}`;
  };
  black.addEventListener("input", show);
  white.addEventListener("input", show);
  box.querySelector("button").addEventListener("click", () => {
    black.value = 0;
    white.value = 100;
    show();
  });
  show();
}
const size = document.getElementById("size");
size.addEventListener("input", () => document.documentElement.style.setProperty("--side", `${size.value}px`));
const large = document.getElementById("large");
const shown = large.querySelector("img");
let factor = 1;
const scale = () => (shown.style.width = `${Math.round(90 * factor)}vmin`);
for (const picture of document.querySelectorAll("img[data-zoom]")) {
  picture.addEventListener("click", () => {
    shown.src = picture.src;
    shown.style.filter = picture.style.filter;
    factor = 1;
    scale();
    large.showModal();
  });
}
shown.addEventListener("click", () => large.close());
large.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    factor = Math.min(Math.max(factor * (event.deltaY < 0 ? 1.2 : 1 / 1.2), 0.5), 12);
    scale();
  },
  { passive: false },
);
document.documentElement.dataset.ready = "yes";
