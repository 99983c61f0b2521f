// SPDX-License-Identifier: Apache-2.0
// What goes without it goes without it: everything is in the document, this only helps to find it.
"use strict";
document.documentElement.dataset.scripts = "on";
addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  theme.addEventListener("change", () => { root.dataset.theme = theme.value; });

  const all = document.getElementById("all-nodes");
  if (!all) return;
  const rows = [...all.querySelectorAll("tbody tr")];
  const byName = new Map(rows.map((row) => [row.cells[0].textContent, row]));

  const filter = document.getElementById("filter");
  const narrow = () => {
    const wanted = filter.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  };
  filter.addEventListener("input", narrow);

  for (const band of document.querySelectorAll(".cells")) {
    band.addEventListener("click", (event) => {
      const row = byName.get((event.target.title || "").split(": ")[0]);
      if (!row) return;
      filter.value = "";
      narrow();
      all.open = true;
      for (const chosen of all.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
      row.classList.add("chosen");
      row.scrollIntoView({ block: "center" });
    });
  }
});
