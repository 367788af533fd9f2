// What every page has: colours, copy buttons, confirmation, toasts, times that tick, the drawer, and
// the one live socket. No framework. Other scripts use `window.slipway` (toast, confirm, subscribe).
"use strict";

(() => {
  const root = document.documentElement;
  const icons = () => document.body.dataset.icons;
  const svg = (name) =>
    `<svg class="icon" aria-hidden="true" focusable="false"><use href="${icons()}#${name}"></use></svg>`;

  // Colours: as the system, light, dark. The server reads the cookie, so the first paint is right. ----
  const THEMES = { auto: "as the system", light: "light", dark: "dark" };
  const theme = () => root.dataset.theme || "auto";
  function showTheme() {
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      const now = theme();
      const text = `Colours: ${THEMES[now]}`;
      button.setAttribute("aria-label", text);
      button.title = text;
      const use = button.querySelector("use");
      if (use) use.setAttribute("href", `${icons()}#${{ auto: "auto", light: "sun", dark: "moon" }[now]}`);
      const word = button.querySelector("[data-theme-word]");
      if (word) word.textContent = now[0].toUpperCase() + now.slice(1);
    }
  }
  function nextTheme() {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(theme()) + 1) % names.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    const secure = location.protocol === "https:" ? ";Secure" : "";
    document.cookie = `slipway_theme=${next};path=/;max-age=31536000;SameSite=Lax${secure}`;
    showTheme();
    document.dispatchEvent(new CustomEvent("slipway:theme", { detail: { theme: next } }));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("slipway:theme", { detail: { theme: theme() } })));

  // Toasts -----------------------------------------------------------------------------------------
  const ICON = { success: "check", error: "error", warning: "warning", info: "info" };
  function leave(toast) {
    toast.classList.add("leaving");
    setTimeout(() => toast.remove(), 260);
  }
  function keepOrLeave(toast) {
    // Errors stay until they are closed: they say what to do.
    if (!toast.classList.contains("toast-error")) setTimeout(() => leave(toast), 6000);
  }
  function toast(text, level = "info") {
    const box = document.createElement("div");
    box.className = `toast toast-${level}`;
    box.innerHTML = `${svg(ICON[level] || "info")}<p></p><button type="button" class="btn btn-ghost btn-small" data-toast-close aria-label="Close">${svg("close")}</button>`;
    box.querySelector("p").textContent = text;
    document.getElementById("toasts").append(box);
    keepOrLeave(box);
    return box;
  }

  // Copy -------------------------------------------------------------------------------------------
  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    // Plain http on another host has no clipboard API.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr-only";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("copy refused");
  }
  async function onCopy(button) {
    let text = button.dataset.copy;
    if (button.dataset.copyTarget) {
      const target = document.querySelector(button.dataset.copyTarget);
      text = target ? (target.value ?? target.textContent) : "";
    }
    try {
      await copy(text ?? "");
      button.classList.add("done");
      const use = button.querySelector("use");
      if (use) use.setAttribute("href", `${icons()}#check`);
      setTimeout(() => {
        button.classList.remove("done");
        if (use) use.setAttribute("href", `${icons()}#copy`);
      }, 1400);
    } catch {
      toast("The browser did not allow copying. Select the text and copy it by hand.", "error");
    }
  }

  // Confirmation -----------------------------------------------------------------------------------
  function confirm(text, action = "Continue") {
    const dialog = document.getElementById("confirm");
    dialog.querySelector("[data-confirm-text]").textContent = text;
    dialog.querySelector("[data-confirm-yes]").textContent = action;
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }
  const confirmed = new WeakSet();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const asker = event.submitter?.dataset.confirm ? event.submitter : form;
    if (!asker.dataset?.confirm) return;
    // names of checkboxes: while one of them is ticked there is nothing to ask
    const unless = asker.dataset.confirmUnless?.split(" ") ?? [];
    if (unless.some((name) => form.elements[name]?.checked)) return;
    if (confirmed.delete(form)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const submitter = event.submitter;
    confirm(asker.dataset.confirm, asker.dataset.confirmAction).then((yes) => {
      if (!yes) return;
      confirmed.add(form);
      if (!form.isConnected) {
        // its live part was read again while the question stood; a form in no page submits nothing
        form.hidden = true;
        document.body.append(form);
      }
      form.requestSubmit(submitter && submitter.form === form ? submitter : undefined);
    });
  }, true);
  document.addEventListener("htmx:confirm", (event) => {
    if (!event.detail.question) return;
    event.preventDefault();
    confirm(event.detail.question, event.detail.elt.dataset.confirmAction).then((yes) => {
      if (yes) event.detail.issueRequest(true);
    });
  });

  // Times that tick; the words are those of the `ago` filter. -----------------------------------------
  const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [86400 * 45, 86400, "days"],
    [86400 * 500, 86400 * 30.44, "months"], [Infinity, 86400 * 365.25, "years"]];
  function agoWords(seconds) {
    const size = Math.abs(seconds);
    if (size < 5) return "just now";
    const [, unit, plural] = STEPS.find(([limit]) => size < limit);
    const count = seconds >= 0 ? Math.floor(size / unit) : Math.floor(size / unit + 0.5);
    const word = count === 1 && plural.length > 3 ? plural.slice(0, -1) : plural;
    return seconds >= 0 ? `${count} ${word} ago` : `in ${count} ${word}`;
  }
  function tick() {
    const now = Date.now();
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = agoWords((now - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // The drawer on phones -----------------------------------------------------------------------------
  function drawer(open) {
    document.body.classList.toggle("drawer-open", open);
    document.querySelector("[data-drawer]")?.setAttribute("aria-expanded", String(open));
    const page = document.querySelector(".page");
    if (page) page.inert = open;
    if (open) document.querySelector(".rail .nav a")?.focus();
    else document.querySelector("[data-drawer]")?.focus();
  }

  // Tabs inside a page: <div data-tabs><button data-tab="id">…, panels by id. -----------------------------
  function openTab(button) {
    const list = button.closest("[data-tabs]");
    for (const other of list.querySelectorAll("[data-tab]")) {
      const on = other === button;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(other.dataset.tab);
      if (panel) panel.hidden = !on;
    }
    button.dispatchEvent(new CustomEvent("slipway:tab", { bubbles: true, detail: { tab: button.dataset.tab } }));
  }

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    let hit;
    if ((hit = at("[data-copy], [data-copy-target]"))) onCopy(hit);
    else if (at("[data-theme-switch]")) nextTheme();
    else if ((hit = at("[data-toast-close]"))) leave(hit.closest(".toast"));
    else if (at("[data-drawer]")) drawer(!document.body.classList.contains("drawer-open"));
    else if (at("[data-drawer-close]")) drawer(false);
    else if ((hit = at("[data-tab]"))) openTab(hit);
    else if ((hit = at("[data-open-dialog]"))) document.querySelector(hit.dataset.openDialog)?.showModal();
    else if ((hit = at("[data-close-dialog]"))) hit.closest("dialog")?.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.classList.contains("drawer-open")) drawer(false);
    const tab = event.target.closest?.("[data-tab]");
    if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const all = [...tab.closest("[data-tabs]").querySelectorAll("[data-tab]")];
      const next = all[(all.indexOf(tab) + (event.key === "ArrowRight" ? 1 : all.length - 1)) % all.length];
      openTab(next);
      next.focus();
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("[data-submit-on-change]")) event.target.form.requestSubmit();
  });

  // The live socket -----------------------------------------------------------------------------------
  // One socket a page; the message says what changed and the page reads it again from its own URL.
  // While the socket is down every live part is read again each 5 seconds.
  const listeners = new Map(); // topic -> set of functions
  const dirty = new Set(); // elements that have news and cannot take it yet
  let socket = null;
  let tries = 0;
  let retry = 0;
  let sent = "";
  let state = "idle";
  let wasLive = false;

  const parts = () => [...document.querySelectorAll("[data-live]")];
  const topicsOf = (element) => element.dataset.live.split(/\s+/).filter(Boolean);
  function wanted() {
    const topics = new Set(listeners.keys());
    for (const part of parts()) for (const topic of topicsOf(part)) topics.add(topic);
    // The socket takes 200 topics: a longer page listens to all of each kind.
    if (topics.size <= 200) return [...topics].sort();
    return [...new Set([...topics].map((topic) => `${topic.split(":")[0]}:*`))].sort();
  }
  const concerns = (topic, news) =>
    news === null || topic === news || (news.endsWith(":*") && topic.startsWith(news.slice(0, -1)));
  const WORDS = { live: "Live", connecting: "Connecting…", polling: "Live connection lost; reading every 5 s", offline: "Signed out; reload the page" };
  function show(next) {
    state = next;
    const box = document.querySelector("[data-live-state]");
    if (!box) return;
    box.dataset.state = next;
    const text = WORDS[next] || "";
    if (box.textContent !== text) box.textContent = text;
    document.dispatchEvent(new CustomEvent("slipway:connection", { detail: { state: next } }));
  }
  function busy(element) {
    // Never pull a field or a selection out of somebody's hands.
    const active = document.activeElement;
    if (active && element.contains(active) && active.matches("input:not([type=checkbox]), textarea, select")) return true;
    if (element.querySelector("dialog[open]")) return true;
    const selection = document.getSelection();
    return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
  }
  // data-live-quiet="5": at most one reading in 5 seconds. Kept by URL, because a reading replaces the element.
  const readAt = new Map();
  function rests(element) {
    const quiet = Number(element.dataset.liveQuiet || 0) * 1000;
    return quiet > 0 && Date.now() - (readAt.get(element.getAttribute("hx-get")) || 0) < quiet;
  }
  // data-live-every="15": read again after 15 seconds without news, so that silence is seen too.
  const openedAt = Date.now();
  function wake() {
    for (const part of parts()) {
      const every = Number(part.dataset.liveEvery || 0) * 1000;
      if (every && Date.now() - (readAt.get(part.getAttribute("hx-get")) || openedAt) >= every) dirty.add(part);
    }
  }
  function refresh() {
    if (document.hidden || !window.htmx) return;
    for (const element of [...dirty]) {
      if (!element.isConnected) dirty.delete(element);
      else if (!element.classList.contains("htmx-request") && !busy(element) && !rests(element)) {
        dirty.delete(element);
        readAt.set(element.getAttribute("hx-get"), Date.now());
        window.htmx.trigger(element, "live");
      }
    }
  }
  let soon = 0;
  /** `topic` null: everything may have changed. */
  function news(topic) {
    for (const part of parts()) if (topicsOf(part).some((one) => concerns(one, topic))) dirty.add(part);
    for (const [name, functions] of listeners)
      if (concerns(name, topic)) for (const run of functions) run(topic);
    if (!soon) soon = setTimeout(() => { soon = 0; refresh(); }, 120);
  }
  function subscribe() {
    const topics = wanted();
    if (!topics.length) return;
    if (!socket) return connect();
    if (socket.readyState !== WebSocket.OPEN || sent === topics.join(" ")) return;
    sent = topics.join(" ");
    socket.send(JSON.stringify({ type: "subscribe", topics }));
  }
  function connect() {
    clearTimeout(retry);
    if (state !== "polling") show("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const mine = new WebSocket(`${scheme}//${location.host}/ws/live/`);
    socket = mine;
    mine.addEventListener("open", () => { sent = ""; subscribe(); });
    mine.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "subscribed") {
        tries = 0;
        show("live");
        // What happened between the page's reading and this subscription is read again.
        if (wasLive || message.first) news(null);
        wasLive = true;
      } else if (message.type === "changed") news(message.topic);
    });
    mine.addEventListener("close", (event) => {
      if (socket !== mine) return;
      socket = null;
      if (event.code === 4401) return show("offline");
      show("polling");
      tries += 1;
      retry = setTimeout(connect, Math.min(8000, 400 * 2 ** tries) * (0.7 + 0.6 * Math.random()));
    });
  }
  window.addEventListener("pagehide", () => { if (socket) { const old = socket; socket = null; old.close(); } });
  window.addEventListener("pageshow", (event) => { if (event.persisted) { news(null); subscribe(); } });
  setInterval(() => { if (state === "polling") news(null); }, 5000);
  setInterval(() => { tick(); wake(); refresh(); }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { tick(); refresh(); } });
  // The portal answers again: no need to wait for the next try.
  document.addEventListener("htmx:afterOnLoad", () => { if (state === "polling" && !socket) connect(); });
  document.addEventListener("htmx:load", () => { tick(); subscribe(); });

  // htmx: errors are said, and a session that ended leads to the sign-in page. ---------------------------
  document.addEventListener("htmx:beforeSwap", (event) => {
    const url = event.detail.xhr?.responseURL;
    if (url && new URL(url).pathname === document.body.dataset.login && location.pathname !== document.body.dataset.login) {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });
  document.addEventListener("htmx:responseError", (event) => {
    const { xhr, elt } = event.detail;
    if (elt?.dataset?.live !== undefined) {
      if (xhr.status === 404) dirty.delete(elt); // it was deleted; the page says so when it is next opened
      return;
    }
    const plain = (xhr.getResponseHeader("Content-Type") || "").startsWith("text/plain") ? xhr.responseText : "";
    toast(plain || { 403: "Your role does not allow this.", 404: "This no longer exists. Reload the page." }[xhr.status] ||
      `The portal could not do this (error ${xhr.status}). Try again.`, "error");
  });
  document.addEventListener("htmx:sendError", (event) => {
    if (event.detail.elt?.dataset?.live === undefined) toast("The portal cannot be reached. Check the connection and try again.", "error");
  });
  document.addEventListener("toast", (event) => toast(event.detail.text ?? event.detail.value ?? "", event.detail.level));

  window.slipway = {
    toast, confirm, copy,
    get state() { return state; },
    /** Run `callback` when the topic changes and after each reconnect. Returns a function that ends it. */
    subscribe(topic, callback) {
      if (!listeners.has(topic)) listeners.set(topic, new Set());
      listeners.get(topic).add(callback);
      subscribe();
      return () => {
        listeners.get(topic)?.delete(callback);
        if (!listeners.get(topic)?.size) listeners.delete(topic);
      };
    },
  };

  showTheme();
  tick();
  // On a phone the tabs are wider than the page: bring the present one into view.
  for (const tab of document.querySelectorAll(".tabs [aria-current]")) {
    const bar = tab.closest(".tabs");
    bar.scrollLeft = tab.offsetLeft - bar.offsetLeft - (bar.clientWidth - tab.offsetWidth) / 2;
  }
  // A form that came back: begin where it is wrong.
  document.querySelector("main form [aria-invalid='true']:not([type=hidden])")?.focus();
  document.querySelectorAll("[data-toast]").forEach(keepOrLeave);
  subscribe();
})();
