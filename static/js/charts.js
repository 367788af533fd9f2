// The Metrics tab: one Plotly figure with a shared time axis, live by appending. A click leads to the decision that
// it shows or that was in force then.
// Reads its data from the page's own URLs; knows nothing but what stands in #chart's data attributes.
"use strict";

(() => {
  const chart = document.getElementById("chart");
  if (!chart || !window.Plotly) return;
  const service = chart.dataset.service;
  const phone = matchMedia("(max-width: 820px)");
  const coarse = matchMedia("(pointer: coarse)");
  const el = (name) => document.querySelector(`[data-chart-${name}]`);
  const show = (name, on) => { const node = el(name); if (node) node.hidden = !on; };

  // What the latency is of: the whole way, the wait in the router's queue, or the time at the replica.
  const TIMES = {
    total: { prefix: "", title: "Latency of good answers, ms" },
    queue: { prefix: "queue_", title: "Wait in the queue, good answers, ms" },
    service: { prefix: "service_", title: "Time at the replica, good answers, ms" },
  };
  let time = "total";
  const columnOf = (line) => line.column ?? TIMES[time].prefix + line.quantile;

  // The figure: rows from the top, each with its own y axis and legend. ---------------------------------
  const ROWS = [
    { title: "Replicas", share: 0.34, phoneHead: 92 },
    { title: "Requests per second", share: 0.24, phoneHead: 80 },
    { title: TIMES.total.title, share: 0.24, phoneHead: 52 },
    { title: "Waiting in the router", share: 0.18, phoneHead: 52 },
  ];
  // column of the data, name, row, colour token, and how it is drawn
  const LINES = [
    { column: "busy", name: "busy", row: 0, color: "busy", width: 1.2, fill: 0.18, format: ".2f" },
    { column: "ready", name: "running", row: 0, color: "ready", width: 2.2, step: true, format: ".4~g" },
    { column: "starting", name: "starting", row: 0, color: "starting", width: 1.6, step: true, dash: "dot", format: ".4~g" },
    { column: "desired", name: "desired", row: 0, color: "desired", width: 1.4, step: true, dash: "dash", format: ".4~g" },
    { column: "ok", name: "2xx", row: 1, color: "ok", width: 1.5, fill: 0.14, format: ".2f" },
    { column: "client_errors", name: "4xx", row: 1, color: "client", width: 1.4, dash: "dot", format: ".2f" },
    { column: "overloaded", name: "503 overloaded", row: 1, color: "rejected", width: 1.6, format: ".2f" },
    { column: "unready", name: "503 no replica", row: 1, color: "rejected", width: 1.2, dash: "dot", format: ".2f" },
    { column: "timeouts", name: "504 timed out", row: 1, color: "timeout", width: 1.4, dash: "dash", format: ".2f" },
    { column: "failures", name: "502 failed", row: 1, color: "failure", width: 1.4, dash: "dashdot", format: ".2f" },
    { quantile: "p50", name: "p50", row: 2, color: "p50", width: 1.4, format: ".1f" },
    { quantile: "p95", name: "p95", row: 2, color: "p95", width: 1.6, dash: "dash", format: ".1f" },
    { quantile: "p99", name: "p99", row: 2, color: "p99", width: 1.2, dash: "dot", format: ".1f" },
    { column: "queued", name: "mean", row: 3, color: "queued", width: 1.5, fill: 0.16, format: ".2f" },
    { column: "queued_peak", name: "peak", row: 3, color: "queued", width: 1, dash: "dot", format: ".4~g" },
  ];
  const MARKS = [
    { direction: "up", name: "scaled up", symbol: "triangle-up" },
    { direction: "down", name: "scaled down", symbol: "triangle-down" },
    { direction: "prevented", name: "prevented", symbol: "diamond" },
  ];
  const STYLE = getComputedStyle(document.documentElement);
  const token = (name) => STYLE.getPropertyValue(`--${name}`).trim();
  const color = (name) => token(`chart-${name}`);
  const axis = (row) => (row ? `y${row + 1}` : "y");
  const legend = (row) => (row ? `legend${row + 1}` : "legend");

  function faint(hex, share) {
    const value = parseInt(hex.slice(1), 16);
    return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${share})`;
  }
  // Plotly reads a little HTML in texts: a reason is text, in lines short enough for a phone.
  function wrapped(text) {
    const safe = text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const limit = phone.matches ? 34 : 64;
    const lines = [""];
    for (const word of safe.split(" ")) {
      const line = lines[lines.length - 1];
      if (line && line.length + word.length > limit) lines.push(word);
      else lines[lines.length - 1] = line ? `${line} ${word}` : word;
    }
    return lines.join("<br>");
  }
  const markText = (item) => wrapped(item.reason);

  // A filled line cannot have a gap, so the fill is a trace of its own that goes down to zero around it.
  const FILLED = LINES.filter((line) => line.fill);
  function area(x, y, open) {
    const out = { x: [], y: [] };
    const put = (at, value) => { out.x.push(at); out.y.push(value); };
    y.forEach((value, index) => {
      if (value !== null && !open) put(x[index], 0);
      if (value === null && open) put(index ? x[index - 1] : x[index], 0);
      put(x[index], value);
      open = value !== null;
    });
    return out;
  }
  function fills(data) {
    return FILLED.map((line) => ({
      type: "scatter",
      mode: "lines",
      ...area(data.x, data.columns[line.column], false),
      yaxis: axis(line.row),
      line: { width: 0 },
      fill: "tozeroy",
      fillcolor: faint(color(line.color), line.fill),
      hoverinfo: "skip",
      showlegend: false,
    }));
  }

  function traces(data) {
    const lines = LINES.map((line) => ({
      type: "scatter",
      mode: "lines",
      name: line.name,
      x: data.x,
      y: data.columns[columnOf(line)],
      yaxis: axis(line.row),
      legend: legend(line.row),
      connectgaps: false,
      line: { color: color(line.color), width: line.width, dash: line.dash || "solid", shape: line.step ? "hv" : "linear" },
      hovertemplate: `%{y:${line.format}}`,
    }));
    const marks = MARKS.map((mark) => {
      const items = data.decisions.filter((item) => item.direction === mark.direction);
      return {
        type: "scatter",
        mode: "markers",
        name: mark.name,
        x: items.map((item) => item.x),
        y: items.map((item) => item.after),
        text: items.map(markText),
        customdata: items.map((item) => item.id),
        yaxis: "y",
        legend: "legend",
        cliponaxis: false,
        marker: { symbol: mark.symbol, size: 11, color: color(mark.direction), line: { width: 1.5, color: token("surface") } },
        hovertemplate: "%{text}",
      };
    });
    return [...lines, ...marks, ...fills(data)];
  }

  function layout(data) {
    const height = chart.clientHeight || 780;
    const small = phone.matches;
    const heads = ROWS.map((row) => (small ? row.phoneHead : 34)); // above each row: its title and its legend
    const bottom = 46;
    const inner = height - bottom;
    const room = inner - heads.reduce((sum, head) => sum + head, 0);
    const ink = token("text");
    const grid = token("border");
    const result = {
      height,
      margin: { l: small ? 38 : 52, r: small ? 12 : 20, t: 0, b: bottom },
      paper_bgcolor: token("surface"),
      plot_bgcolor: token("surface"),
      font: { family: token("font"), size: small ? 11 : 12, color: token("muted") },
      hovermode: "x unified",
      hoverlabel: { bgcolor: token("surface"), bordercolor: token("border-strong"), font: { color: ink, size: 12 }, align: "left" },
      dragmode: coarse.matches ? false : "zoom",
      uirevision: `${data.range} ${data.around || ""}`,
      // the moment that was asked for
      shapes: data.around ? [{ type: "line", xref: "x", yref: "paper", x0: data.around, x1: data.around, y0: 0, y1: 1, layer: "below", line: { color: token("accent"), width: 1.5, dash: "dash" } }] : [],
      showlegend: true,
      xaxis: {
        type: "date", range: [data.start, data.end], anchor: axis(ROWS.length - 1),
        gridcolor: grid, linecolor: grid, zeroline: false, tickcolor: grid, ticks: "outside", ticklen: 4,
        nticks: small ? 5 : 10, hoverformat: data.step >= 3600 ? "%Y-%m-%d %H:%M" : "%Y-%m-%d %H:%M:%S",
        showspikes: true, spikemode: "across", spikesnap: "hovered data", spikethickness: 1, spikecolor: token("border-strong"), spikedash: "solid",
      },
    };
    let below = 1;
    ROWS.forEach((row, index) => {
      const high = below - heads[index] / inner;
      const low = Math.max(high - (row.share * room) / inner, 0);
      below = low;
      result[index ? `yaxis${index + 1}` : "yaxis"] = {
        domain: [low, high], rangemode: "tozero", gridcolor: grid, zeroline: true, zerolinecolor: grid,
        linecolor: grid, nticks: row.share < 0.2 ? 3 : 5, fixedrange: true, automargin: false,
        minallowed: 0, autorangeoptions: { include: [0, index === 0 ? 1 : index === 3 ? 1 : 0.5] },
        tickformat: ",~f",
      };
      result[index ? `legend${index + 1}` : "legend"] = {
        orientation: "h", x: 0, xanchor: "left", xref: "paper", y: high, yanchor: "bottom", yref: "paper",
        // weight, not <b>: that would set a style attribute, which the content policy forbids
        title: { text: `${row.title}${small ? "" : "  "}`, side: small ? "top" : "left", font: { color: ink, size: small ? 12 : 13, weight: 600 } },
        font: { size: small ? 11 : 12, color: ink }, bgcolor: "rgba(0,0,0,0)", itemsizing: "constant", itemwidth: 30, tracegroupgap: 0,
      };
    });
    return result;
  }

  const CONFIG = { displayModeBar: false, displaylogo: false, doubleClick: "reset", responsive: true, scrollZoom: false };

  // Reading -----------------------------------------------------------------------------------------------
  let range = chart.dataset.range;
  const version = chart.dataset.version; // "" is all of them together
  const only = version ? { version } : {};
  let around = chart.dataset.around; // a moment in the past to show; "" is up to now
  let data = null; // what is drawn
  let newest = null; // the newest bucket that is drawn
  let lastDecision = 0;
  let ledger = null;
  let follow = !around;
  let drawn = false;
  let reading = null; // the request under way
  let readAt = 0;
  let due = 0; // a timer

  function address(extra) {
    const query = new URLSearchParams({ range, ...only, ...(around ? { around } : {}), ...extra });
    return `${chart.dataset.url}?${query}`;
  }
  async function ask(extra) {
    reading?.abort();
    const mine = new AbortController();
    reading = mine;
    const timer = setTimeout(() => mine.abort(), 15000);
    try {
      const answer = await fetch(address(extra), { signal: mine.signal, headers: { Accept: "application/json" } });
      if (!answer.ok || !(answer.headers.get("Content-Type") || "").includes("json")) throw new Error(`status ${answer.status}`);
      return await answer.json();
    } finally {
      clearTimeout(timer);
      if (reading === mine) reading = null;
    }
  }
  function failed(error) {
    if (error.name === "AbortError") return;
    const box = el("error");
    box.textContent = "The figures could not be read; trying again. Reload the page if this stays.";
    box.hidden = drawn; // figures that are there stay; the footer says that the connection is lost
  }
  const isEmpty = (next) => !next.x.length && !next.decisions.length;

  async function load() {
    readAt = Date.now();
    let next;
    try {
      next = await ask({});
    } catch (error) {
      failed(error);
      return;
    } finally {
      show("wait", false);
    }
    show("error", false);
    const empty = isEmpty(next);
    show("empty", empty);
    chart.parentElement.classList.toggle("chart-blank", empty);
    data = next;
    newest = next.newest;
    lastDecision = next.decisions.reduce((most, item) => Math.max(most, item.id), 0);
    news(next.ledger);
    show("follow", !follow);
    if (empty) {
      if (drawn) window.Plotly.purge(chart);
      drawn = false;
      return;
    }
    await draw();
  }
  async function draw() {
    const shape = layout(data);
    if (!follow && drawn) shape.xaxis.range = chart.layout.xaxis.range;
    await window.Plotly.react(chart, traces(data), shape, CONFIG);
    if (!drawn) {
      drawn = true;
      chart.on("plotly_relayout", onRelayout);
      chart.on("plotly_click", onClick);
    }
  }

  // Appending: only what is new is asked for and drawn on; what slides out on the left is dropped.
  async function append() {
    readAt = Date.now();
    const asked = range;
    let next;
    try {
      next = await ask({ after: newest, decision: lastDecision });
    } catch (error) {
      failed(error);
      return;
    }
    if (asked !== range || !drawn) return;
    show("error", false);
    news(next.ledger);
    if (follow) chart.layout.xaxis.range = [next.start, next.end];
    data.start = next.start;
    data.end = next.end;
    const fresh = next.decisions.filter((item) => item.id > lastDecision);
    if (next.x.length) {
      newest = next.newest;
      const limit = Math.ceil(1.1 * span() / next.step) + 60;
      const areas = FILLED.map((line) => {
        const drawnBefore = chart.data[LINES.indexOf(line)].y;
        return area(next.x, next.columns[line.column], drawnBefore[drawnBefore.length - 1] !== null);
      });
      const first = LINES.length + MARKS.length;
      // each trace gets arrays of its own: Plotly appends to them in place
      await window.Plotly.extendTraces(chart, {
        x: [...LINES.map(() => [...next.x]), ...areas.map((part) => part.x)],
        y: [...LINES.map((line) => next.columns[columnOf(line)]), ...areas.map((part) => part.y)],
      }, [...LINES.keys(), ...FILLED.map((_, index) => first + index)], limit);
    } else if (follow) {
      await window.Plotly.relayout(chart, { "xaxis.range": [next.start, next.end] });
    }
    if (fresh.length) {
      lastDecision = fresh.reduce((most, item) => Math.max(most, item.id), lastDecision);
      for (const [index, mark] of MARKS.entries()) {
        const items = fresh.filter((item) => item.direction === mark.direction);
        if (!items.length) continue;
        await window.Plotly.extendTraces(chart, {
          x: [items.map((item) => item.x)],
          y: [items.map((item) => item.after)],
          text: [items.map(markText)],
          customdata: [items.map((item) => item.id)],
        }, [LINES.length + index], 500);
      }
    }
    keepData();
  }
  // What a change of colours or size is drawn from.
  function keepData() {
    data.x = chart.data[0].x;
    LINES.forEach((line, index) => { data.columns[columnOf(line)] = chart.data[index].y; });
  }
  function span() {
    const [, count, unit] = range.match(/^(\d+)([mhd])$/);
    return count * { m: 60, h: 3600, d: 86400 }[unit];
  }
  // How often there can be something to draw: a bucket's length, no more than a minute.
  const period = () => 1000 * Math.min(Math.max(data?.step ?? 1, 1), 60);

  function onNews() {
    if (due || document.hidden || around) return; // what is past stays as it is
    const wait = Math.max(0, readAt + period() - Date.now());
    due = setTimeout(() => {
      due = 0;
      if (reading) return;
      if (!drawn || data.step > 10) load();
      else append();
    }, wait);
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && data) load();
  });

  // The ledger ----------------------------------------------------------------------------------------------
  const list = () => document.getElementById("decisions");
  function news(state) {
    if (ledger !== null && ledger !== state && list()) window.htmx?.trigger(list(), "news");
    ledger = state;
  }
  // A mark under the pointer leads to its row; anywhere else among the replicas, to the decision that was in
  // force at the end of that bucket.
  const NEAR = 14; // pixels
  function distance(point, mouse) {
    const box = chart.getBoundingClientRect();
    const { xaxis, yaxis } = point;
    const x = box.left + xaxis._offset + xaxis.d2p(point.x);
    const y = box.top + yaxis._offset + yaxis.d2p(point.y);
    return Math.hypot(mouse.clientX - x, mouse.clientY - y);
  }
  function onClick(event) {
    const mouse = event.event;
    const marks = event.points
      .filter((item) => item.customdata !== undefined)
      .map((item) => ({ id: item.customdata, far: distance(item, mouse) }))
      .filter((item) => item.far <= NEAR)
      .sort((one, other) => one.far - other.far);
    const point = event.points.find((item) => item.yaxis._id === "y" && item.customdata === undefined);
    let asked = null;
    if (marks.length) asked = { open: marks[0].id };
    else if (point) asked = { at: endOf(point.x) };
    if (asked) location.assign(`${chart.dataset.decisions}?${new URLSearchParams({ ...asked, ...only })}`);
  }
  // Times on the chart are the portal's local ones without an offset, and are handed back as such.
  function endOf(x) {
    const begin = Date.parse(`${String(x).replace(" ", "T")}Z`);
    return new Date(begin + 1000 * data.step - 1).toISOString().slice(0, 23);
  }

  // What a person does --------------------------------------------------------------------------------------
  function onRelayout(change) {
    const zoomed = "xaxis.range[0]" in change || Array.isArray(change["xaxis.range"]);
    if (zoomed && change["xaxis.range"]) return; // our own sliding
    if (zoomed) follow = false;
    else if (change["xaxis.autorange"] || change["xaxis.showspikes"] !== undefined) {
      follow = !around;
      load();
    }
    show("follow", !follow);
  }
  function toNow() {
    if (around) history.replaceState({ range }, "", `?${new URLSearchParams({ range, ...only })}`);
    around = "";
    follow = true;
  }
  el("follow").addEventListener("click", () => {
    toNow();
    show("follow", false);
    load();
  });
  document.querySelector(".chart-ranges").addEventListener("click", (event) => {
    const link = event.target.closest("[data-range]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    pick(link.dataset.range);
    history.pushState({ range }, "", `?${new URLSearchParams({ range, ...only })}`);
  });
  window.addEventListener("popstate", () => pick(new URLSearchParams(location.search).get("range") || "30m"));
  function pick(next) {
    range = next;
    around = "";
    follow = true;
    show("follow", false);
    for (const link of document.querySelectorAll(".chart-ranges [data-range]")) {
      if (link.dataset.range === range) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    for (const link of document.querySelectorAll(".chart-versions a")) {
      const to = new URL(link.href);
      to.searchParams.set("range", range);
      link.href = to.href;
    }
    el("csv").href = `${chart.dataset.csv}?${new URLSearchParams({ range, ...only })}`;
    load();
  }
  document.querySelector(".chart-times")?.addEventListener("click", (event) => {
    const button = event.target.closest("[data-time]");
    if (!button) return;
    time = button.dataset.time;
    ROWS[2].title = TIMES[time].title;
    for (const other of document.querySelectorAll(".chart-times [data-time]"))
      other.setAttribute("aria-pressed", String(other === button));
    load(); // what was appended meanwhile is known of the other time only
  });
  el("png").addEventListener("click", () => {
    if (!drawn) return window.slipway?.toast("There is nothing to draw in this range.", "info");
    return window.Plotly.downloadImage(chart, {
      format: "png", width: Math.max(chart.clientWidth, 900), height: chart.clientHeight, scale: 2,
      filename: [service, version, range].filter(Boolean).join("-"),
    });
  });
  document.addEventListener("slipway:theme", () => { if (drawn) draw(); });
  phone.addEventListener("change", () => { if (drawn) draw(); });

  window.slipway?.subscribe(`telemetry:${service}`, onNews);
  load();
})();
