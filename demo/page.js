// A click on a frame shows it large; a step and its lanes light up together.
const big = document.getElementById("big");
document.addEventListener("click", (event) => {
  const image = event.target.closest("figure img");
  if (image) { big.firstElementChild.src = image.src; big.classList.add("on"); } else { big.classList.remove("on"); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") big.classList.remove("on"); });
for (const part of document.querySelectorAll("[data-step]")) {
  const twins = part.closest(".story").querySelectorAll(`.lane[data-step="${part.dataset.step}"]`);
  part.addEventListener("mouseenter", () => twins.forEach((t) => t.classList.add("on")));
  part.addEventListener("mouseleave", () => twins.forEach((t) => t.classList.remove("on")));
}
