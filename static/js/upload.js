// The register form: choose or drop files and folders, check everything that can be checked before
// a byte is sent, send with progress, and keep what was chosen when something is wrong.
// Without this script the form posts by itself.
(() => {
  "use strict";
  const form = document.querySelector("form[data-upload]");
  if (!form) return;
  const $ = (name) => form.querySelector(`[data-${name}]`);
  const zone = $("dropzone");
  const inputs = [...zone.querySelectorAll("input[type=file]")];
  const hints = JSON.parse(document.getElementById("framework-hints").textContent);
  const maxBytes = Number(form.dataset.maxBytes);
  const maxFiles = Number(form.dataset.maxFiles);
  const SHOWN = 200; // rows; more files than that are counted, not listed
  const chosen = new Map(); // path -> File, by path
  let rows = new Map(); // path -> <li>
  let sending = null; // the XMLHttpRequest under way

  // Words ------------------------------------------------------------------------------------------
  function bytes(n) {
    if (n < 1024) return `${n} B`;
    let unit = "";
    for (unit of ["KiB", "MiB", "GiB", "TiB"]) {
      n /= 1024;
      if (n < 1023.95) break;
    }
    return `${n.toFixed(1)} ${unit}`;
  }
  function span(seconds) {
    const s = Math.max(1, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60 ? `${s % 60} s` : ""}`.trim();
    return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  }
  const many = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  const total = () => [...chosen.values()].reduce((sum, file) => sum + file.size, 0);

  // Choosing ---------------------------------------------------------------------------------------
  function add(files) {
    for (const [path, file] of files) chosen.set(path, file);
    // a browser gives a folder's files in no order
    const sorted = [...chosen].sort(([a], [b]) => a.localeCompare(b));
    chosen.clear();
    for (const [path, file] of sorted) chosen.set(path, file);
    if (files.length) showFilesErrors([]);
    draw();
  }
  function draw() {
    const list = $("file-list");
    const template = $("file-row").content;
    rows = new Map();
    list.replaceChildren();
    for (const [path, file] of [...chosen].slice(0, SHOWN)) {
      const row = template.cloneNode(true).firstElementChild;
      const cut = path.lastIndexOf("/") + 1;
      row.querySelector(".file-folder").textContent = path.slice(0, cut);
      row.querySelector(".file-name").textContent = path.slice(cut);
      row.querySelector(".file-path").title = path;
      row.querySelector(".file-size").textContent = bytes(file.size);
      const button = row.querySelector("button");
      button.dataset.path = path;
      button.setAttribute("aria-label", `Remove ${path}`);
      rows.set(path, row);
      list.append(row);
    }
    $("more").hidden = chosen.size <= SHOWN;
    $("more").textContent = `and ${many(chosen.size - SHOWN, "more file")}`;
    $("chosen").hidden = chosen.size === 0;
    $("summary").textContent = chosen.size ? `${many(chosen.size, "file")}, ${bytes(total())}` : "";
    showHint();
  }
  function showHint() {
    // Only what the first choice of the list says; the portal decides by the same names.
    const option = form.elements.framework?.querySelector('option[value=""]');
    if (!option) return;
    const found = new Set();
    for (const path of chosen.keys()) {
      const name = path.split("/").pop();
      const dot = name.lastIndexOf(".");
      const hint = hints.names[name] ?? (dot > 0 ? hints.suffixes[name.slice(dot).toLowerCase()] : undefined);
      if (hint) found.add(hint);
    }
    option.dataset.plain ??= option.textContent;
    const hint = found.size === 1 ? [...found][0] : "Custom";
    option.textContent = chosen.size ? `Detected: ${hint}` : option.dataset.plain;
  }
  async function walk(entry, into) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      into.push([entry.fullPath.replace(/^\//, ""), file]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      // a reader gives a folder's entries a hundred at a time, and none at the end
      const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!batch.length) return;
      for (const child of batch) await walk(child, into);
    }
  }
  for (const input of inputs) {
    input.addEventListener("change", () => {
      add([...input.files].map((file) => [file.webkitRelativePath || file.name, file]));
      input.value = ""; // the list is what counts; the same folder may be chosen again
    });
  }
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      if (sending) return;
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (sending) return;
    // taken before the first await: the list is emptied after the event
    const dropped = [...event.dataTransfer.items]
      .filter((item) => item.kind === "file")
      .map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    const found = [];
    try {
      for (const [entry, file] of dropped) {
        if (entry) await walk(entry, found);
        else if (file) found.push([file.name, file]); // from a program that keeps it in memory
      }
    } catch (error) {
      showFilesErrors([`The browser could not read what was dropped: ${error.message}`]);
    }
    add(found);
  });
  // a file dropped beside the zone must not replace the page
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.target.closest?.("[data-dropzone], input, textarea")) event.preventDefault();
    });
  }
  form.addEventListener("click", (event) => {
    const remove = event.target.closest("[data-remove]");
    if (remove) {
      const next = remove.closest("li").nextElementSibling?.querySelector("button");
      const path = next?.dataset.path;
      chosen.delete(remove.dataset.path);
      draw();
      (rows.get(path)?.querySelector("button") ?? inputs[0]).focus();
    } else if (event.target.closest("[data-clear]")) {
      chosen.clear();
      draw();
      inputs[0].focus();
    } else if (event.target.closest("[data-cancel]")) sending?.abort();
  });

  // Errors -----------------------------------------------------------------------------------------
  function showFilesErrors(texts) {
    const box = $("files-error");
    box.hidden = texts.length === 0;
    box.querySelector("div").replaceChildren(...texts.map((text) => {
      const p = document.createElement("p");
      p.textContent = text;
      return p;
    }));
  }
  function showFailure(text, level = "error") {
    const box = $("failure");
    box.hidden = !text;
    box.className = `alert alert-${level}`;
    box.querySelector("p").textContent = text;
  }
  function showErrors(answer) {
    if (answer.html) {
      $("fields").innerHTML = answer.html;
      showHint();
    }
    showFilesErrors(answer.files ?? []);
    const first = form.querySelector(".has-error input, .has-error select, .has-error textarea, [data-fields] .alert");
    if (first) {
      first.focus?.();
      first.scrollIntoView({ block: "center" });
    } else $("files-error").scrollIntoView({ block: "center" });
  }
  function clearErrors() {
    for (const old of $("fields").querySelectorAll(".field-error, .alert")) old.remove();
    for (const field of $("fields").querySelectorAll(".has-error")) field.classList.remove("has-error");
    for (const control of $("fields").querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
    showFilesErrors([]);
  }
  const SIGNED_OUT = "You are signed out. Sign in in another tab, then press Register again; what you chose is kept here.";
  function refusal(status, text) {
    if (status === 403) return "Your role does not allow this, or the page is too old: reload it and try again.";
    if (status === 413) return text;
    return `The portal could not take the upload (error ${status || "none"}). Nothing was registered; try again.`;
  }

  // Sending ----------------------------------------------------------------------------------------
  function fields() {
    const data = new FormData(form);
    data.delete("files");
    return data;
  }
  function busy(on) {
    $("submit").disabled = on;
    $("clear").disabled = on;
    for (const input of inputs) input.disabled = on;
    for (const row of rows.values()) row.querySelector("button").disabled = on;
    zone.classList.toggle("off", on);
  }
  function foreseeable() {
    if (!chosen.size) return ["Choose at least one file or a folder."];
    if (chosen.size > maxFiles) {
      return [`${many(chosen.size, "file")} were chosen; a version holds at most ${maxFiles.toLocaleString("en")}. Pack small files into an archive.`];
    }
    if (total() > maxBytes) return [`The files have ${bytes(total())}; the portal takes at most ${bytes(maxBytes)} at once.`];
    return [];
  }
  async function allowed() {
    const data = fields();
    data.append("paths", JSON.stringify([...chosen.keys()]));
    data.append("total", String(total()));
    const response = await fetch(form.dataset.check, { method: "POST", body: data, headers: { Accept: "application/json" } });
    if (response.redirected) throw new Error(SIGNED_OUT);
    if (!response.ok && response.status !== 422) throw new Error(refusal(response.status, ""));
    const answer = await response.json();
    if (response.ok && !foreseeable().length) return answer;
    showErrors({ ...answer, files: foreseeable().length ? foreseeable() : answer.files });
    return null;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending || $("submit").disabled) return;
    showFailure("");
    busy(true);
    try {
      const version = await allowed();
      if (version) send(version);
      else busy(false);
    } catch (error) {
      busy(false);
      showFailure(error instanceof TypeError ? "The portal cannot be reached. Check the connection and try again." : error.message);
    }
  });
  function send(version) {
    const data = fields();
    const files = [...chosen];
    for (const [path, file] of files) data.append("files", file, path);
    const ends = [];
    files.reduce((sum, [, file], i) => (ends[i] = sum + file.size), 0);
    const xhr = new XMLHttpRequest();
    sending = xhr;
    let done = 0; // files that are sent
    let recent = [[performance.now(), 0]]; // [when, bytes] of the last seconds
    let drawn = 0;
    let said = 0;
    clearErrors();
    $("sending").hidden = false;
    $("sending-title").textContent = `Uploading ${version.name}, version ${version.version}`;
    $("sending-text").textContent = "";
    $("bar").value = 0;
    $("cancel").hidden = false;
    xhr.upload.addEventListener("progress", (event) => {
      const now = performance.now();
      if (now - drawn < 150 && event.loaded < event.total) return;
      drawn = now;
      recent.push([now, event.loaded]);
      recent = recent.filter(([at]) => now - at < 5000);
      const [at, from] = recent[0];
      const speed = now > at ? ((event.loaded - from) / (now - at)) * 1000 : 0;
      const parts = [`${bytes(event.loaded)} of ${bytes(event.total)}`];
      if (speed > 0) {
        parts.push(`${bytes(Math.round(speed))}/s`);
        if (event.loaded < event.total) parts.push(`${span((event.total - event.loaded) / speed)} left`);
      }
      $("bar").value = event.loaded / event.total;
      $("sending-text").textContent = parts.join(" · ");
      if (now - said > 10000) {
        said = now;
        $("sending-said").textContent = `${Math.round((100 * event.loaded) / event.total)} percent`;
      }
      const share = (total() * event.loaded) / event.total;
      while (done < files.length && ends[done] <= share) rows.get(files[done++][0])?.classList.add("sent");
    });
    xhr.upload.addEventListener("load", () => {
      for (const row of rows.values()) row.classList.add("sent");
      $("bar").removeAttribute("value");
      $("sending-title").textContent = "Storing";
      $("sending-text").textContent = `All ${bytes(total())} arrived. The portal puts the files into the store.`;
      $("cancel").hidden = true;
    });
    const end = (text, level) => {
      sending = null;
      busy(false);
      $("sending").hidden = true;
      for (const row of rows.values()) row.classList.remove("sent");
      showFailure(text, level);
    };
    xhr.addEventListener("abort", () => end("Cancelled. Nothing was registered.", "info"));
    xhr.addEventListener("error", () =>
      end("The connection was lost, or a file was changed or removed while it was sent. Nothing was registered; try again."));
    xhr.addEventListener("load", () => {
      let answer = null;
      try {
        answer = JSON.parse(xhr.responseText);
      } catch { /* not our answer: an error page or the sign-in page */ }
      if (xhr.status === 201 && answer) {
        sending = null;
        location.assign(answer.location);
      } else if (xhr.status === 422 && answer) {
        end("");
        showErrors(answer);
      } else end(xhr.status < 400 ? SIGNED_OUT : refusal(xhr.status, xhr.responseText));
    });
    xhr.open("POST", form.action);
    xhr.setRequestHeader("Accept", "application/json");
    xhr.send(data);
  }
  addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
  });

  // The form is ours from here on -------------------------------------------------------------------
  form.noValidate = true; // the portal's own words, beside the fields
  zone.classList.add("ready");
  for (const element of form.querySelectorAll("[data-with-script]")) element.hidden = false;
  for (const element of form.querySelectorAll("[data-without-script]")) element.remove();
})();
