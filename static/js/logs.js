// <log-viewer>: a log of any length, live. See templates/logs/_viewer.html for its parts.
//
// LogStore keeps the lines and knows which of them are shown and how high they are; LogFeed brings them
// (websocket, or polling while that is down) with one cursor, so nothing is shown twice; LogViewer draws
// only the rows that can be seen.
"use strict";
(() => {
  const LINE = 20; // px, as in logs.css
  const MOST = 200000; // lines kept in the page; the download has all
  const DROPPED_AT_ONCE = 20000;
  const OVERSCAN = 12; // rows drawn beyond the edges
  const POLL = 1500; // ms
  const BACK_OFF = [1000, 2000, 4000, 8000, 15000, 30000]; // ms between two attempts at the websocket
  const [AT, SOURCE, STREAM, TEXT] = [0, 1, 2, 3];
  const COLOURS = 8;

  // Lines -----------------------------------------------------------------------------------------
  class LogStore {
    constructor() {
      this.lines = [];
      this.dropped = 0;
      this.sources = new Map(); // name -> {colour, count, muted}
      this.pattern = null; // RegExp of the search, global and ignoring case
      this.only = false;
      this.stderr = false;
      this.columns = 0; // characters of a wrapped row; 0 when lines are not wrapped
      this.reset();
    }

    reset() {
      this.shown = []; // indexes into lines
      this.hits = []; // positions in shown
      this.tops = new Float64Array(1024); // px from the top, one more than shown has
      this.tops[0] = 0;
    }

    add(lines) {
      const start = this.lines.length;
      for (const line of lines) {
        line[TEXT] = line[TEXT].replaceAll("\t", "    ");
        let source = this.sources.get(line[SOURCE]);
        if (!source) {
          source = { colour: this.sources.size % COLOURS, count: 0, muted: false };
          this.sources.set(line[SOURCE], source);
        }
        source.count += 1;
        this.lines.push(line);
      }
      if (this.lines.length > MOST) {
        const count = this.lines.length - MOST + DROPPED_AT_ONCE;
        for (const line of this.lines.splice(0, count)) this.sources.get(line[SOURCE]).count -= 1;
        this.dropped += count;
        this.refresh();
        return true;
      }
      this.take(start);
      return false;
    }

    refresh() {
      this.reset();
      this.take(0);
    }

    take(start) {
      for (let index = start; index < this.lines.length; index += 1) {
        const line = this.lines[index];
        if (this.stderr && line[STREAM] !== "stderr") continue;
        if (this.sources.get(line[SOURCE]).muted) continue;
        const hit = this.pattern !== null && this.matches(line[TEXT]);
        if (this.only && this.pattern !== null && !hit) continue;
        const position = this.shown.length;
        if (hit) this.hits.push(position);
        this.shown.push(index);
        if (position + 2 > this.tops.length) {
          const longer = new Float64Array(this.tops.length * 2);
          longer.set(this.tops);
          this.tops = longer;
        }
        this.tops[position + 1] = this.tops[position] + this.rows(line[TEXT]) * LINE;
      }
    }

    matches(text) {
      this.pattern.lastIndex = 0;
      const found = this.pattern.test(text);
      this.pattern.lastIndex = 0; // where the next search with it begins
      return found;
    }

    rows(text) {
      if (!this.columns || text.length <= this.columns / 2) return 1;
      return Math.max(1, Math.ceil(width(text) / this.columns));
    }

    get height() {
      return this.tops[this.shown.length];
    }

    line(position) {
      return this.lines[this.shown[position]];
    }

    // The position of the row at this many px from the top.
    at(y) {
      let low = 0;
      let high = this.shown.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.tops[middle] <= y) low = middle;
        else high = middle - 1;
      }
      return Math.max(0, low);
    }
  }

  // Columns a text takes in a monospaced font: East Asian wide characters and emoji take two.
  const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/gu;
  const NOT_ASCII = /[^\x20-\x7e]/;
  function width(text) {
    if (!NOT_ASCII.test(text)) return text.length;
    return [...text].length + (text.match(WIDE) || []).length;
  }

  // Connection ------------------------------------------------------------------------------------
  class LogFeed {
    constructor(source, poll, take, tell) {
      this.source = source;
      this.poll = poll;
      this.take = take; // (lines) a page of lines, in order
      this.tell = tell; // (state, reason) what the connection does now
      this.cursor = "";
      this.paused = false;
      this.held = []; // pages of the present socket that wait for the end of a pause
      this.closed = false;
      this.ended = false; // all of it is here, and no more can come
      this.failures = 0;
    }

    async run() {
      this.tell("connecting");
      while (!this.closed) {
        if (await this.listen()) return;
        // one after the other, never both: two readers with one cursor would show lines twice
        const wait = BACK_OFF[Math.min(this.failures, BACK_OFF.length - 1)];
        this.failures += 1;
        await this.pollFor(wait);
        if (this.ended) return;
      }
    }

    // One websocket from its start to its end. True when there is nothing to come back to.
    listen() {
      return new Promise((resolve) => {
        const address = new URL(`/ws/logs/${encodeURIComponent(this.source)}/`, location.href);
        address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
        address.searchParams.set("cursor", this.cursor);
        const socket = new WebSocket(address);
        this.socket = socket;
        let gone = "";
        socket.onmessage = (event) => {
          const message = JSON.parse(event.data);
          if (message.type === "lines") {
            this.failures = 0;
            if (this.paused || this.held.length) this.held.push(message);
            else this.takePage(message);
          } else if (message.type === "live") {
            this.failures = 0;
            this.tell("live");
          } else if (message.type === "trouble") {
            this.tell("trouble", message.reason);
          } else if (message.type === "gone") {
            gone = message.reason;
          } else if (message.type === "ended") {
            this.ended = true;
          }
        };
        socket.onclose = (event) => {
          if (!this.ended) this.held = []; // the cursor stands before them: they come again
          this.socket = null;
          if (this.ended) this.tell("ended");
          else if (event.code === 4401) this.tell("gone", "You are signed out. Sign in to read on.");
          else if (gone) this.tell("gone", gone);
          else if (!this.closed) this.tell("reconnecting");
          resolve(this.closed || this.ended || Boolean(gone) || event.code === 4401);
        };
      });
    }

    takePage(page) {
      this.cursor = page.cursor;
      this.take(page.lines);
      if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type":"more"}');
    }

    pause(paused) {
      this.paused = paused;
      while (!this.paused && this.held.length) this.takePage(this.held.shift());
    }

    async pollFor(time) {
      const until = Date.now() + time;
      while (!this.closed && !this.ended && Date.now() < until) {
        let more = false;
        if (!this.paused) {
          try {
            const address = `${this.poll}?cursor=${encodeURIComponent(this.cursor)}`;
            const answer = await fetch(address, { signal: AbortSignal.timeout(10000), redirect: "error" });
            const page = await answer.json();
            if (answer.ok) {
              this.cursor = page.cursor;
              if (page.lines.length) this.take(page.lines);
              more = !page.at_end;
              this.ended = page.ended;
              this.tell(page.ended ? "ended" : "polling");
            } else {
              this.tell(answer.status === 503 ? "trouble" : "reconnecting", page.reason);
            }
          } catch {
            this.tell("reconnecting");
          }
        }
        if (!more && !this.ended) await new Promise((resolve) => setTimeout(resolve, Math.min(POLL, time)));
      }
    }

    close() {
      this.closed = true;
      if (this.socket) this.socket.close();
    }
  }

  const STATES = {
    connecting: "Connecting",
    history: "Reading history",
    live: "Live",
    polling: "Polling: the live connection is down",
    reconnecting: "Reconnecting",
    trouble: "Waiting for the cluster",
    gone: "Ended",
    ended: "All of it is here",
    paused: "Paused",
  };

  // View ------------------------------------------------------------------------------------------
  class LogViewer extends HTMLElement {
    connectedCallback() {
      if (this.feed) this.feed.close();
      this.store = new LogStore();
      this.pool = new Map(); // position -> row
      this.spare = [];
      this.version = 0; // counts up whenever drawn rows are out of date
      this.current = -1; // position of the marked line
      this.follow = true;
      this.wrap = false;
      this.expected = 0; // where we scrolled to; anything else was a person
      this.piece = (name) => this.querySelector(`[data-${name}]`);
      this.view = this.piece("view");
      this.space = this.piece("space");
      this.template = this.piece("row").content.firstElementChild;
      this.label = this.dataset.label || ""; // what the sources' names need not repeat
      this.listen();
      this.resized = new ResizeObserver(() => this.measure());
      this.resized.observe(this.view);
      this.connection = ["connecting", ""];
      this.feed = new LogFeed(
        this.dataset.source, this.dataset.poll, (lines) => this.add(lines),
        (state, reason) => this.tell(state, reason),
      );
      this.feed.run();
    }

    disconnectedCallback() {
      this.feed.close();
      this.resized.disconnect();
    }

    listen() {
      const on = (name, event, action) => this.piece(name).addEventListener(event, action);
      let typing = 0;
      on("query", "input", () => { clearTimeout(typing); typing = setTimeout(() => this.search(), 120); });
      on("regex", "change", () => this.search());
      on("only", "change", () => this.search());
      on("stderr", "change", () => this.search());
      on("next", "click", () => this.step(1));
      on("previous", "click", () => this.step(-1));
      on("follow", "click", () => this.setFollow(!this.follow));
      on("pause", "click", () => this.setPause(!this.feed.paused));
      on("wrap", "click", () => this.setWrap(!this.wrap));
      on("end", "click", () => this.setFollow(true));
      on("sources", "click", (event) => this.toggleSource(event.target.closest("button")));
      this.view.addEventListener("scroll", () => this.scrolled(), { passive: true });
      this.view.addEventListener("click", (event) => this.clicked(event));
      this.addEventListener("keydown", (event) => this.key(event));
    }

    add(lines) {
      const before = this.store.sources.size;
      const dropped = this.store.add(lines);
      if (dropped) this.version += 1;
      if (this.store.sources.size !== before) this.drawSources();
      if (this.connection[0] === "connecting" || this.connection[0] === "reconnecting") this.tell("history");
      this.draw();
    }

    tell(state, reason = "") {
      this.connection = [state, reason];
      const shown = this.feed && this.feed.paused && state !== "gone" && state !== "ended" ? "paused" : state;
      const place = this.piece("connection");
      if (place.dataset.state !== shown || place.title !== reason) {
        place.dataset.state = shown;
        place.title = reason;
        place.textContent = reason && shown === state ? `${STATES[shown]}: ${reason}` : STATES[shown];
      }
      this.draw();
    }

    // Drawing: once a frame, and only rows that can be seen.
    draw() {
      if (this.frame) return;
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.render();
      });
    }

    render() {
      const { store, view } = this;
      this.space.style.height = `${store.height}px`;
      if (this.follow) {
        view.scrollTop = store.height;
        this.expected = view.scrollTop;
      }
      const top = view.scrollTop;
      const bottom = top + view.clientHeight;
      const count = store.shown.length;
      const first = Math.max(0, store.at(top) - OVERSCAN);
      const last = count ? Math.min(count - 1, store.at(bottom) + OVERSCAN) : -1;
      for (const [position, row] of this.pool) {
        if (position < first || position > last || row.version !== this.version) {
          this.pool.delete(position);
          this.spare.push(row);
        }
      }
      for (let position = first; position <= last; position += 1) {
        if (!this.pool.has(position)) this.pool.set(position, this.fill(this.spare.pop() || this.row(), position));
      }
      for (const row of this.spare) row.element.hidden = true;
      this.piece("empty").hidden = count > 0;
      this.piece("end").hidden = this.follow || store.height - bottom < LINE * 2;
      this.counts();
    }

    row() {
      const element = this.template.cloneNode(true);
      const [time, source, text] = element.children;
      this.space.append(element);
      return { element, time, source, text, version: -1 };
    }

    fill(row, position) {
      const line = this.store.line(position);
      row.version = this.version;
      row.element.hidden = false;
      row.element.dataset.position = position;
      row.element.className = `logs-row logs-c${this.store.sources.get(line[SOURCE]).colour}` +
        (line[STREAM] === "stderr" ? " logs-stderr" : "") + (position === this.current ? " logs-current" : "");
      row.element.style.transform = `translateY(${this.store.tops[position]}px)`;
      row.time.textContent = clock(line[AT]);
      row.time.title = new Date(line[AT] * 1000).toISOString();
      row.source.textContent = this.short(line[SOURCE]);
      row.source.title = line[SOURCE];
      this.mark(row.text, line[TEXT]);
      return row;
    }

    // The text with what was searched for marked.
    mark(place, text) {
      const pattern = this.store.pattern;
      if (!pattern || !this.store.matches(text)) {
        place.textContent = text;
        return;
      }
      place.textContent = "";
      let end = 0;
      for (const match of text.matchAll(pattern)) {
        if (!match[0]) continue;
        const mark = document.createElement("mark");
        mark.textContent = match[0];
        place.append(text.slice(end, match.index), mark);
        end = match.index + match[0].length;
      }
      place.append(text.slice(end));
    }

    short(source) {
      return this.label && source.startsWith(this.label) ? source.slice(this.label.length) : source;
    }

    counts() {
      const { store } = this;
      const all = store.lines.length.toLocaleString("en");
      const shown = store.shown.length.toLocaleString("en");
      let text = store.shown.length === store.lines.length ? `${all} lines` : `${shown} of ${all} lines`;
      if (store.dropped) text += `; ${store.dropped.toLocaleString("en")} earlier ones are in the download`;
      this.piece("count").textContent = text;
      const hits = store.hits.length;
      let found = "";
      if (store.pattern) {
        const place = store.hits.indexOf(this.current);
        found = hits ? `${place < 0 ? "" : `${(place + 1).toLocaleString("en")} of `}${hits.toLocaleString("en")}` : "none";
      }
      this.piece("hits").textContent = found;
    }

    drawSources() {
      const place = this.piece("sources");
      place.hidden = this.store.sources.size < 2;
      const known = new Set([...place.children].map((chip) => chip.dataset.name));
      for (const [name, source] of this.store.sources) {
        if (known.has(name)) continue;
        const chip = document.createElement("button");
        chip.type = "button";
        chip.className = `chip logs-chip logs-c${source.colour}`;
        chip.dataset.name = name;
        chip.textContent = this.short(name);
        chip.title = `${name}: show or hide (with Alt: only this one)`;
        chip.setAttribute("aria-pressed", "true");
        place.append(chip);
      }
    }

    // What a person does ---------------------------------------------------------------------------
    toggleSource(chip) {
      if (!chip) return;
      const alone = window.event && window.event.altKey;
      for (const [name, source] of this.store.sources) {
        if (alone) source.muted = name !== chip.dataset.name;
        else if (name === chip.dataset.name) source.muted = !source.muted;
      }
      for (const each of this.piece("sources").children) {
        each.setAttribute("aria-pressed", String(!this.store.sources.get(each.dataset.name).muted));
      }
      this.refilter();
    }

    search() {
      const query = this.piece("query");
      const { store } = this;
      store.only = this.piece("only").checked;
      store.stderr = this.piece("stderr").checked;
      store.pattern = null;
      query.removeAttribute("aria-invalid");
      query.title = "";
      if (query.value) {
        const text = this.piece("regex").checked ? query.value : query.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
        try {
          store.pattern = new RegExp(text, "giu");
        } catch (error) {
          query.setAttribute("aria-invalid", "true");
          query.title = error.message;
        }
      }
      this.refilter();
    }

    // Keeps the topmost line where it is, as far as it is still shown.
    refilter() {
      const { store } = this;
      const anchor = store.shown[store.at(this.view.scrollTop)];
      const marked = store.shown[this.current];
      store.refresh();
      this.version += 1;
      this.current = marked === undefined ? -1 : store.shown.indexOf(marked);
      if (!this.follow && anchor !== undefined) {
        let position = store.shown.findIndex((index) => index >= anchor);
        if (position < 0) position = store.shown.length;
        this.space.style.height = `${store.height}px`;
        this.view.scrollTop = this.expected = store.tops[position];
      }
      this.draw();
    }

    step(direction) {
      const { hits } = this.store;
      if (!hits.length) return;
      const from = this.current >= 0 ? this.current : this.store.at(this.view.scrollTop) - (direction > 0 ? 1 : 0);
      let next = direction > 0 ? hits.find((hit) => hit > from) : hits.findLast((hit) => hit < from);
      if (next === undefined) next = direction > 0 ? hits[0] : hits.at(-1);
      this.select(next);
    }

    select(position) {
      const { store, view } = this;
      if (!store.shown.length) return;
      this.current = Math.min(Math.max(0, position), store.shown.length - 1);
      this.version += 1;
      const top = store.tops[this.current];
      const bottom = store.tops[this.current + 1];
      if (top < view.scrollTop || bottom > view.scrollTop + view.clientHeight) {
        this.setFollow(false);
        view.scrollTop = this.expected = Math.max(0, top - view.clientHeight / 3);
      }
      this.draw();
    }

    scrolled() {
      if (Math.abs(this.view.scrollTop - this.expected) > 1) {
        this.expected = this.view.scrollTop;
        const rest = this.view.scrollHeight - this.view.clientHeight - this.view.scrollTop;
        this.setFollow(rest < LINE);
      }
      this.draw();
    }

    clicked(event) {
      const row = event.target.closest(".logs-row");
      if (!row) return;
      const position = Number(row.dataset.position);
      if (event.target.closest(".logs-copy")) this.copy(position);
      else if (getSelection().isCollapsed) this.select(position);
    }

    async copy(position) {
      const line = this.store.line(position);
      if (!line) return;
      await navigator.clipboard.writeText(line[TEXT]);
      this.piece("count").textContent = "Line copied";
    }

    setFollow(follow) {
      if (this.follow === follow) return;
      this.follow = follow;
      this.piece("follow").setAttribute("aria-pressed", String(follow));
      this.draw();
    }

    setPause(paused) {
      this.piece("pause").setAttribute("aria-pressed", String(paused));
      this.feed.pause(paused);
      this.tell(...this.connection);
    }

    setWrap(wrap) {
      this.wrap = wrap;
      this.piece("wrap").setAttribute("aria-pressed", String(wrap));
      this.classList.toggle("logs-wrapped", wrap);
      this.measure(true);
    }

    // How many characters a wrapped row holds; rows are drawn with exactly the height this gives.
    measure(always = false) {
      let columns = 0;
      if (this.wrap) {
        const probe = this.row();
        probe.text.textContent = "0".repeat(100);
        probe.text.style.flex = "none";
        probe.text.style.whiteSpace = "pre";
        const character = probe.text.getBoundingClientRect().width / 100;
        probe.text.style.flex = probe.text.style.whiteSpace = probe.text.textContent = "";
        columns = Math.max(10, Math.floor((probe.text.getBoundingClientRect().width + 0.01) / character));
        probe.element.remove();
      }
      if (columns !== this.store.columns || always) {
        this.store.columns = columns;
        this.refilter();
      }
      this.draw();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const query = this.piece("query");
      if (event.target === query) {
        if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
        else if (event.key === "Escape") { query.value = ""; this.search(); this.view.focus(); }
        else return;
        event.preventDefault();
        return;
      }
      if (event.target.closest("input, button, a") && [" ", "Enter"].includes(event.key)) return;
      const start = this.current >= 0 ? this.current : this.store.at(this.view.scrollTop + LINE / 2);
      const actions = {
        "/": () => query.focus(),
        f: () => this.setFollow(!this.follow),
        p: () => this.setPause(!this.feed.paused),
        w: () => this.setWrap(!this.wrap),
        c: () => this.copy(this.current),
        r: () => document.querySelector("[data-runs] a")?.focus(),
        n: () => this.step(1),
        N: () => this.step(-1),
        ArrowDown: () => this.select(this.current < 0 ? start : start + 1),
        ArrowUp: () => this.select(this.current < 0 ? start : start - 1),
        End: () => this.setFollow(true),
        Home: () => { this.setFollow(false); this.view.scrollTop = this.expected = 0; this.draw(); },
      };
      if (!Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    }
  }

  // 12:34:56.789 in the reader's time zone
  function clock(at) {
    const date = new Date(at * 1000);
    const two = (number) => String(number).padStart(2, "0");
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  }

  if (!customElements.get("log-viewer")) customElements.define("log-viewer", LogViewer);
})();
