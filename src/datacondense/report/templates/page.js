"use strict";

// Charts. Without eval, which the page's policy forbids: Vega interprets its expressions.
const described = (holder) => JSON.parse(holder.textContent);
for (const holder of document.querySelectorAll("script[data-for]")) {
  const place = document.getElementById(holder.dataset.for);
  vegaEmbed(place, described(holder), { renderer: "svg", ast: true, actions: false, tooltip: { theme: "custom" } })
    .then(() => { place.dataset.drawn = "yes"; })
    .catch((error) => { place.textContent = "This chart cannot be drawn: " + error.message; console.error(error); });
}

// The slider through the iterations.
for (const holder of document.querySelectorAll("script[data-frames]")) {
  const gallery = document.getElementById(holder.dataset.frames);
  const { columns, result, frames } = described(holder);
  const slider = gallery.querySelector("input"), output = gallery.querySelector("output"), play = gallery.querySelector(".play");
  const rows = [...gallery.querySelectorAll(".tiles")].map((row) => [...row.querySelectorAll(".tile")]);
  const last = new Map([...gallery.querySelectorAll(".tile img")].map((image) => [image, image.src]));
  const show = () => {
    const frame = frames[slider.valueAsNumber];
    let next = 0;
    for (const row of rows) {
      row.forEach((tile, position) => {
        const image = tile.firstElementChild;
        const there = !frame || position < columns;
        tile.classList.toggle("absent", !there);
        if (!frame) image.src = last.get(image);
        else if (there) image.src = frame.images[next++];
      });
    }
    output.value = frame ? frame.iteration.toLocaleString("en") : result.toLocaleString("en") + ", the result";
    slider.setAttribute("aria-valuetext", "iteration " + output.value);
    if (!lens.hidden) enlarge();
  };
  let playing = 0;
  const stop = () => { clearInterval(playing); playing = 0; play.textContent = "Play"; };
  slider.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (playing) { stop(); return; }
    if (slider.valueAsNumber === frames.length) slider.value = 0;
    show();
    play.textContent = "Stop";
    playing = setInterval(() => {
      slider.value = slider.valueAsNumber + 1;
      show();
      if (slider.valueAsNumber === frames.length) stop();
    }, 400);
  });
  slider.setAttribute("aria-valuetext", "iteration " + output.value);
}

// An image enlarged while it is pointed at or has the focus; Escape closes it.
const lens = document.getElementById("lens");
let seen = null, focused = null;
function enlarge() {
  const image = seen.firstElementChild;
  const [picture, text] = lens.children;
  const across = Math.min(256, innerWidth * 0.6), longest = Math.max(image.naturalWidth, image.naturalHeight);
  const scale = Math.max(1, Math.floor(across / longest));
  picture.src = image.src;
  picture.width = image.naturalWidth * scale;
  picture.height = image.naturalHeight * scale;
  text.textContent = image.alt;
  lens.hidden = false;
  const at = seen.getBoundingClientRect(), own = lens.getBoundingClientRect(), gap = 8;
  const right = at.right + gap + own.width <= innerWidth ? at.right + gap : at.left - gap - own.width;
  lens.style.left = Math.max(gap, Math.min(right, innerWidth - own.width - gap)) + "px";
  let top = at.top + at.height / 2 - own.height / 2;
  if (right < gap) top = at.bottom + gap + own.height <= innerHeight ? at.bottom + gap : at.top - gap - own.height;
  lens.style.top = Math.max(gap, Math.min(top, innerHeight - own.height - gap)) + "px";
}
function hide() { if (lens) lens.hidden = true; seen = focused = null; }
for (const tile of document.querySelectorAll(".tile")) {
  const open = () => { seen = tile; enlarge(); };
  tile.addEventListener("pointerenter", open);
  tile.addEventListener("focus", () => { focused = tile; open(); });
  tile.addEventListener("click", open);
  tile.addEventListener("pointerleave", () => { seen = focused; if (seen) enlarge(); else hide(); });
  tile.addEventListener("blur", hide);
  tile.addEventListener("keydown", (event) => {
    const tiles = [...tile.parentElement.children], position = tiles.indexOf(tile);
    const next = { ArrowRight: position + 1, ArrowLeft: position - 1, Home: 0, End: tiles.length - 1 }[event.key];
    if (next === undefined || !tiles[next]) return;
    event.preventDefault();
    tile.tabIndex = -1;
    tiles[next].tabIndex = 0;
    tiles[next].focus();
  });
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
addEventListener("scroll", () => { if (seen) enlarge(); }, { passive: true });

// Copying.
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      document.getElementById("said").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
      document.getElementById("said").textContent = "Selected; copy it with the keyboard";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
