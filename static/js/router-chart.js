// The router's page of a cluster: one Plotly figure with a shared time axis, live by appending.
// Reads its data from the page's own URLs; knows nothing but what stands in #chart's data attributes.
"use strict";

(() => {
  const chart = document.getElementById("chart");
  const kit = window.slipwayCharts;
  if (!chart || !window.Plotly || !kit) return;
  const { color, token, axis, legend } = kit;
  const el = (name) => document.querySelector(`[data-chart-${name}]`);
  const show = (name, on) => { const node = el(name); if (node) node.hidden = !on; };
  const limit = Number(chart.dataset.limit); // of the routing time, milliseconds

  const ROWS = [
    { title: "Routing time, ms", share: 0.24, phoneHead: 52, least: 0.5 },
    { title: "Threads and cores", share: 0.28, phoneHead: 98, least: 2 },
    { title: "HAProxy idle, %", share: 0.14, phoneHead: 52, least: 100, range: [0, 104] },
    { title: "Connections", share: 0.16, phoneHead: 52, least: 5 },
    { title: "Requests per second", share: 0.18, phoneHead: 52, least: 1 },
  ];
  const LINES = [
    { column: "routing_ms", name: "mean", row: 0, color: "p95", width: 1.6, format: ".2f" },
    { column: "routing_peak_ms", name: "slowest", row: 0, color: "p50", width: 1, dash: "dot", format: ".2f" },
    { column: "cpu", name: "cores used", row: 1, color: "busy", width: 1.2, fill: 0.18, format: ".2f" },
    { column: "threads", name: "threads", row: 1, color: "ready", width: 2.2, step: true, format: ".4~g" },
    { column: "cores", name: "cores given", row: 1, color: "desired", width: 1.4, step: true, dash: "dash", format: ".4~g" },
    { column: "pods", name: "pods", row: 1, color: "starting", width: 1.6, step: true, dash: "dot", format: ".4~g" },
    { column: "idle", name: "mean of its threads", row: 2, color: "ok", width: 1.4, format: ".0f" },
    { column: "connections", name: "open", row: 3, color: "queued", width: 1.5, fill: 0.16, format: ".1f" },
    { column: "connections_peak", name: "most", row: 3, color: "queued", width: 1, dash: "dot", format: ".4~g" },
    { column: "requests", name: "all", row: 4, color: "ok", width: 1.5, fill: 0.14, format: ".1f" },
  ];
  const MARKS = [
    { direction: "up", name: "grew", symbol: "triangle-up" },
    { direction: "down", name: "shrank", symbol: "triangle-down" },
    { direction: "prevented", name: "prevented", symbol: "diamond" },
  ];
  const FILLED = LINES.filter((line) => line.fill);

  function traces(data) {
    const lines = LINES.map((line) => ({
      visible: line.column !== "pods" || data.columns.pods.some((count) => count > 1),
      type: "scatter", mode: "lines", name: line.name, x: data.x, y: data.columns[line.column],
      yaxis: axis(line.row), legend: legend(line.row), connectgaps: false,
      line: { color: color(line.color), width: line.width, dash: line.dash || "solid", shape: line.step ? "hv" : "linear" },
      hovertemplate: `%{y:${line.format}}`,
    }));
    const marks = MARKS.map((mark) => {
      const items = data.decisions.filter((item) => item.direction === mark.direction);
      return {
        type: "scatter", mode: "markers", name: mark.name,
        x: items.map((item) => item.x), y: items.map((item) => item.threads),
        text: items.map((item) => kit.wrapped(item.reason)), customdata: items.map((item) => item.id),
        yaxis: axis(1), legend: legend(1), cliponaxis: false,
        marker: { symbol: mark.symbol, size: 11, color: color(mark.direction), line: { width: 1.5, color: token("surface") } },
        hovertemplate: "%{text}",
      };
    });
    const fills = FILLED.map((line) => ({
      type: "scatter", mode: "lines", ...kit.area(data.x, data.columns[line.column], false), yaxis: axis(line.row),
      line: { width: 0 }, fill: "tozeroy", fillcolor: kit.faint(color(line.color), line.fill), hoverinfo: "skip", showlegend: false,
    }));
    return [...lines, ...marks, ...fills];
  }
  function layout(data) {
    const made = kit.rowsLayout(chart, ROWS, data);
    // where the router would grow
    made.shapes = [{ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: limit, y1: limit, layer: "below", line: { color: color("prevented"), width: 1, dash: "dash" } }];
    return made;
  }

  let range = chart.dataset.range;
  let data = null;
  let newest = null;
  let lastDecision = 0;
  let ledger = null;
  let follow = true;
  let drawn = false;
  let reading = null;
  let readAt = 0;
  let due = 0;

  async function ask(extra) {
    reading?.abort();
    const mine = new AbortController();
    reading = mine;
    try {
      return await kit.read(`${chart.dataset.url}?${new URLSearchParams({ range, ...extra })}`, mine.signal);
    } finally {
      if (reading === mine) reading = null;
    }
  }
  function failed(error) {
    if (error.name === "AbortError") return;
    const box = el("error");
    box.textContent = "The figures could not be read; trying again. Reload the page if this stays.";
    box.hidden = drawn; // figures that are there stay; the footer says that the connection is lost
  }
  function news(state) {
    const list = document.getElementById("router-decisions");
    if (ledger !== null && ledger !== state && list) window.htmx?.trigger(list, "news");
    ledger = state;
  }

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
    const empty = !next.x.length && !next.decisions.length;
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
    await window.Plotly.react(chart, traces(data), shape, kit.CONFIG);
    if (!drawn) {
      drawn = true;
      chart.on("plotly_relayout", onRelayout);
      chart.on("plotly_click", onClick);
    }
  }
  // Only what is new is asked for and drawn on; what slides out on the left is dropped.
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
    if (next.decisions.length) return load();
    if (follow) chart.layout.xaxis.range = [next.start, next.end];
    data.start = next.start;
    data.end = next.end;
    if (!next.x.length) {
      if (follow) await window.Plotly.relayout(chart, { "xaxis.range": [next.start, next.end] });
      return;
    }
    newest = next.newest;
    const most = Math.ceil(1.1 * next.seconds / next.step) + 60;
    const areas = FILLED.map((line) => {
      const before = chart.data[LINES.indexOf(line)].y;
      return kit.area(next.x, next.columns[line.column], before[before.length - 1] !== null);
    });
    const first = LINES.length + MARKS.length;
    // each trace gets arrays of its own: Plotly appends to them in place
    await window.Plotly.extendTraces(chart, {
      x: [...LINES.map(() => [...next.x]), ...areas.map((part) => part.x)],
      y: [...LINES.map((line) => next.columns[line.column]), ...areas.map((part) => part.y)],
    }, [...LINES.keys(), ...FILLED.map((_, index) => first + index)], most);
    data.x = chart.data[0].x;
    LINES.forEach((line, index) => { data.columns[line.column] = chart.data[index].y; });
  }
  const period = () => 1000 * Math.min(Math.max(data?.step ?? 1, 1), 60);
  function onNews() {
    if (due || document.hidden) return;
    due = setTimeout(() => {
      due = 0;
      if (reading) return;
      if (!drawn || data.step > 10) load();
      else append();
    }, Math.max(0, readAt + period() - Date.now()));
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && data) load(); });

  function onRelayout(change) {
    const zoomed = "xaxis.range[0]" in change || Array.isArray(change["xaxis.range"]);
    if (zoomed && change["xaxis.range"]) return; // our own sliding
    if (zoomed) follow = false;
    else if (change["xaxis.autorange"] || change["xaxis.showspikes"] !== undefined) {
      follow = true;
      load();
    }
    show("follow", !follow);
  }
  // A mark leads to its row below the chart.
  function onClick(event) {
    const point = event.points.find((item) => item.customdata !== undefined);
    const row = point && document.getElementById(`decision-${point.customdata}`);
    if (!row) return;
    row.open = true;
    row.scrollIntoView({ block: "center" });
    row.querySelector("summary").focus();
  }
  el("follow").addEventListener("click", () => { follow = true; load(); });
  function pick(next) {
    range = next;
    follow = true;
    for (const link of document.querySelectorAll(".chart-ranges [data-range]")) {
      if (link.dataset.range === range) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    el("csv").href = `${chart.dataset.csv}?${new URLSearchParams({ range })}`;
    load();
  }
  document.querySelector(".chart-ranges").addEventListener("click", (event) => {
    const link = event.target.closest("[data-range]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    pick(link.dataset.range);
    history.pushState({ range }, "", `?${new URLSearchParams({ range })}`);
  });
  window.addEventListener("popstate", () => pick(new URLSearchParams(location.search).get("range") || "30m"));
  el("png").addEventListener("click", () => {
    if (!drawn) return window.slipway?.toast("There is nothing to draw in this range.", "info");
    return kit.picture(chart, `router-${chart.dataset.cluster}-${range}`);
  });
  document.addEventListener("slipway:theme", () => { if (drawn) draw(); });
  kit.phone.addEventListener("change", () => { if (drawn) draw(); });

  window.slipway?.subscribe(`telemetry:${chart.dataset.topic}`, onNews);
  load();
})();
