// The Decisions tab: shows the row that was asked for, and keeps open what a person opened when the list is
// read again.
"use strict";

(() => {
  const here = document.querySelector(".decision-here");
  if (here) {
    here.scrollIntoView({ block: here.offsetHeight > innerHeight / 2 ? "start" : "center" });
    here.querySelector("summary").focus({ preventScroll: true });
  }
  let opened = null;
  const live = (event) => event.detail.target?.id === "decisions-live";
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!live(event)) return;
    const rows = [...event.detail.target.querySelectorAll("details[id]")];
    const focused = document.activeElement?.closest?.("details[id]")?.id;
    opened = { all: new Set(rows.map((row) => row.id)), open: new Set(rows.filter((row) => row.open).map((row) => row.id)), focused };
  });
  document.addEventListener("htmx:afterSettle", () => {
    if (!opened) return;
    for (const id of opened.all) {
      const row = document.getElementById(id);
      if (row) row.open = opened.open.has(id);
    }
    if (opened.focused && !document.activeElement?.closest?.("details")) {
      document.getElementById(opened.focused)?.querySelector("summary").focus({ preventScroll: true });
    }
    opened = null;
  });
})();
