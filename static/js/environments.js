// The environment form: a chosen file goes into the text beside it, where it is checked as typed text is,
// and a message of the last save goes as soon as its field is changed.
"use strict";
(() => {
  const form = document.querySelector("[data-environment]");
  if (!form) return;

  form.addEventListener("change", async (event) => {
    const input = event.target.closest("[data-into]");
    if (!input || !input.files.length) return;
    const [file] = input.files;
    if (file.size > 256 * 1024) return; // the server says that it is too large
    const text = form.elements[input.dataset.into];
    text.value = await file.text();
    input.value = "";
    text.dispatchEvent(new Event("input", { bubbles: true }));
  });

  // What the last save said about a field is out of date once the field was looked at again.
  function forget(control) {
    const field = control?.closest(".has-error");
    if (!field) return;
    field.classList.remove("has-error");
    field.querySelector(".field-error")?.remove();
  }
  form.addEventListener("input", (event) => forget(event.target));
  form.addEventListener("htmx:afterOnLoad", () => {
    for (const slot of form.querySelectorAll(".live-error")) forget(form.elements[slot.id.slice("live-".length)]);
  });
})();
