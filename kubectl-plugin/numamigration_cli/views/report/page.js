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
  const rows = [...all.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = document.getElementById("filter");
  const narrow = () => {
    const wanted = filter.value.toLowerCase();
    for (const [row, text] of rows) row.hidden = !text.includes(wanted);
  };
  filter.addEventListener("input", narrow);

  // Narrowed to one node the table opens at once; all rows of 5,000 nodes take seconds to be laid out.
  for (const band of document.querySelectorAll(".cells")) {
    band.addEventListener("click", (event) => {
      if (!event.target.title) return;
      filter.value = event.target.title.split(": ")[0];
      narrow();
      all.open = true;
      all.scrollIntoView({ block: "center" });
    });
  }
});
