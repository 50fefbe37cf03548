// Filter a section's rows by words: blocks without a match are hidden, those with one are opened.
document.querySelectorAll("[data-filter]").forEach((input) => {
  const section = document.querySelector(`[data-filtered="${input.dataset.filter}"]`);
  const rows = [...section.querySelectorAll(".listing tr")].map((row) => [row, row.textContent.toLowerCase()]);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let hits = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      hits += !row.hidden;
    }
    section.querySelectorAll(".block").forEach((block) => {
      block.hidden = !block.querySelector(".listing tr:not([hidden])");
      if (words.length && block.tagName === "DETAILS") block.open = true;
    });
    section.querySelector(".hits").textContent = words.length ? `${hits} found` : "";
  });
});
