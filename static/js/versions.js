// The split of a service's requests: the bar, and the default's share, which is what is left of 100.
"use strict";

(() => {
  const bar = document.querySelector("[data-split]");
  const form = document.getElementById("traffic-form");
  if (!bar) return;

  function draw(shares) {
    let from = 0;
    const said = [];
    for (const part of bar.querySelectorAll("[data-part]")) {
      const percent = Math.max(0, shares[part.dataset.part] ?? 0);
      part.setAttribute("x", from);
      part.setAttribute("width", percent);
      from += percent;
      said.push(`${part.dataset.part} ${percent} %`);
    }
    bar.setAttribute("aria-label", `How requests are split: ${said.join(", ")}`);
  }
  function percentOf(input) {
    if (input.disabled) return 0; // it cannot take requests yet, whatever share it was given
    const value = Number(input.value);
    return Number.isInteger(value) && value >= 0 ? value : 0;
  }
  function follow() {
    const shares = {};
    let given = 0;
    for (const input of form.querySelectorAll("[data-share]")) {
      shares[input.dataset.share] = percentOf(input);
      given += shares[input.dataset.share];
    }
    const rest = form.querySelector("[data-rest]");
    const too = form.querySelector("[data-too-much]");
    too.hidden = given <= 100;
    too.querySelector("p").textContent = `The shares come to ${given} %; together they can be at most 100.`;
    form.querySelector("button[type=submit]").disabled = given > 100;
    rest.textContent = given > 100 ? "–" : String(100 - given);
    shares[rest.dataset.rest] = Math.max(0, 100 - given);
    draw(shares);
  }

  const shown = {};
  for (const part of bar.querySelectorAll("[data-part]")) shown[part.dataset.part] = Number(part.dataset.percent);
  draw(shown);
  if (form) {
    form.addEventListener("input", follow);
    if (form.querySelector(".has-error")) follow();
  }
})();
