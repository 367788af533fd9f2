// The deployment form: the code editor, folder paths, the calculator's answer, objects to take away.
// Delegated from the document, so that it works again after htmx has replaced the form.
"use strict";

(() => {
  const INDENT = "    ";

  // Editor: line numbers beside the text, Tab indents, Enter keeps the indentation. ------------------
  function number(area) {
    const lines = area.parentElement.querySelector(".editor-lines");
    if (!lines) return;
    const count = area.value.split("\n").length;
    if (lines.childElementCount === 0 && lines.dataset.count === String(count)) return;
    lines.dataset.count = String(count);
    lines.textContent = Array.from({ length: count }, (_, index) => index + 1).join("\n");
  }
  function replace(area, start, end, text) {
    area.setSelectionRange(start, end);
    // The only way that keeps the browser's own undo; deprecated, and replaced by nothing.
    if (!document.execCommand("insertText", false, text)) area.setRangeText(text, start, end, "end");
  }
  function indent(area, back) {
    const { selectionStart: start, selectionEnd: end, value } = area;
    if (start === end && !back) return replace(area, start, end, INDENT);
    const first = value.lastIndexOf("\n", start - 1) + 1;
    const block = value.slice(first, end);
    const lines = block.split("\n");
    const next = lines.map((line) => (back ? line.replace(/^ {1,4}|^\t/, "") : line && INDENT + line)).join("\n");
    if (next === block) return;
    replace(area, first, end, next);
    if (start === end) {
      const at = Math.max(first, start - (block.length - next.length));
      area.setSelectionRange(at, at);
    } else area.setSelectionRange(first, first + next.length);
  }
  function newline(area) {
    const { selectionStart: start, selectionEnd: end, value } = area;
    const line = value.slice(value.lastIndexOf("\n", start - 1) + 1, start);
    const deeper = /:\s*(#.*)?$/.test(line) ? INDENT : "";
    replace(area, start, end, "\n" + line.match(/^[ \t]*/)[0] + deeper);
  }
  const leaving = new WeakSet();
  document.addEventListener("keydown", (event) => {
    const area = event.target;
    if (!area.matches?.("textarea[data-editor]")) return;
    if (event.key === "Escape") return void leaving.add(area);
    if (event.key === "Tab" && !event.ctrlKey && !event.altKey && !event.metaKey) {
      if (leaving.delete(area)) return;
      event.preventDefault();
      indent(area, event.shiftKey);
    } else if (event.key === "Enter" && !event.isComposing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      newline(area);
    }
    leaving.delete(area);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("textarea[data-editor]")) number(event.target);
  });
  document.addEventListener("scroll", (event) => {
    if (!event.target.matches?.("textarea[data-editor]")) return;
    event.target.parentElement.querySelector(".editor-lines").scrollTop = event.target.scrollTop;
  }, true);

  // A folder's files travel without their paths; those go beside them. --------------------------------
  function paths(input) {
    for (const old of input.parentElement.querySelectorAll("input[name=folder_paths]")) old.remove();
    for (const file of input.files) {
      const hidden = document.createElement("input");
      hidden.type = "hidden";
      hidden.name = "folder_paths";
      hidden.value = file.webkitRelativePath || file.name;
      input.parentElement.append(hidden);
    }
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("input[data-folder]")) paths(event.target);
  });

  // Templates and the calculator's answer. -------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const template = event.target.closest("[data-template]");
    if (template) {
      const area = document.querySelector("textarea[data-editor]");
      const known = [...document.querySelectorAll("[data-template]")].map((one) => one.dataset.template.trim());
      const own = area.value.trim() && !known.includes(area.value.trim().replaceAll("\r\n", "\n"));
      if (own && !(await window.slipway.confirm("Replace the code in the editor by the template?", "Replace"))) return;
      area.focus();
      replace(area, 0, area.value.length, template.dataset.template);
      area.setSelectionRange(0, 0);
      area.scrollTop = 0;
      number(area);
    }
    const save = event.target.closest("[data-save-target]");
    if (save) {
      const text = document.querySelector(save.dataset.saveTarget).textContent;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
      link.download = save.dataset.saveAs;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
    const fill = event.target.closest("[data-fill-replicas]");
    if (fill) {
      const fixed = document.querySelector("[name=replicas_mode][value=fixed]").checked;
      const input = document.getElementById(fixed ? "id_num_replicas" : "id_autoscale_max_replicas");
      input.value = fill.dataset.fillReplicas;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      input.focus();
    }
  });

  function prepare() {
    for (const area of document.querySelectorAll("textarea[data-editor]")) number(area);
    const error = document.querySelector("#deploy-form .has-error, #deploy-form .field-error") ??
      document.querySelector("#deploy-form > .alert-error");
    const preview = document.querySelector("[data-preview]");
    if (error && !error.dataset.shown) {
      error.dataset.shown = "1"; // once: what a person opened or scrolled to since then is theirs
      for (let box = error.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
      error.scrollIntoView({ block: "center" });
    }
    if (preview && !preview.dataset.shown) {
      preview.dataset.shown = "1";
      preview.focus({ preventScroll: true });
      preview.scrollIntoView({ block: "start" });
    }
  }
  document.addEventListener("DOMContentLoaded", prepare);
  document.addEventListener("htmx:load", prepare);
})();
