// Click a gallery picture to enlarge it; the left and right arrow keys show its neighbours in the same place.
const zoom = document.getElementById("zoom");
let pictures = [];
let shown = 0;
function show(index) {
  shown = (index + pictures.length) % pictures.length;
  zoom.querySelector("img").src = pictures[shown].src;
  zoom.querySelector("img").alt = pictures[shown].alt;
  zoom.querySelector("figcaption").textContent = pictures[shown].alt + "   ←  →";
}
document.querySelectorAll(".cell img").forEach((picture) => {
  picture.tabIndex = 0;
  const open = () => {
    pictures = [...document.querySelectorAll(".cell img")].filter((other) => other.offsetParent);
    show(pictures.indexOf(picture));
    zoom.showModal();
  };
  picture.addEventListener("click", open);
  picture.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
});
zoom.addEventListener("click", () => zoom.close());
zoom.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
