// Small charts of all services of a page. The figures of all come in one answer; a chart is drawn when it comes into
// view, and appended to while it is there. Reads what stands in data attributes, and nothing else.
"use strict";

(() => {
  const box = document.getElementById("multiples");
  const kit = window.slipwayCharts;
  if (!box || !window.Plotly || !kit) return;
  const { color, token } = kit;
  const tiles = new Map([...box.querySelectorAll("[data-service]")].map((tile) => [tile.dataset.service, {
    tile,
    plot: tile.querySelector(".multiple-plot"),
    note: tile.querySelector("[data-note]"),
    now: tile.querySelector("[data-now]"),
    seen: false, // in view now
    drawn: false,
    stale: true, // drawn from less than there is
  }]));
  const COLUMNS = ["demand", "ready", "desired", "rejected"];
  let data = null; // x, start, end, step; and each service's columns on that grid
  let readAt = 0;
  let due = 0;
  let reading = false;

  const number = (value) => (Math.round(value * 10) / 10).toLocaleString("en", { maximumFractionDigits: 1 });
  const last = (values) => values.findLast((value) => value !== null) ?? null;

  // Rejected ones are marks on the demand they belonged to, larger where there were more.
  function marks(x, columns) {
    const at = x.map((_, index) => index).filter((index) => columns.rejected[index] > 0);
    return {
      x: at.map((index) => x[index]),
      y: at.map((index) => columns.demand[index]),
      text: at.map((index) => `${number(columns.rejected[index])} rejected a second`),
    };
  }
  function traces(columns) {
    const { x } = data;
    const line = (column, name, extra) => ({
      type: "scatter", mode: "lines", name, x, y: columns[column], connectgaps: false, hovertemplate: `%{y:.4~g} ${name}<extra></extra>`, ...extra,
    });
    return [
      { type: "scatter", mode: "lines", ...kit.area(x, columns.demand, false), line: { width: 0 }, fill: "tozeroy", fillcolor: kit.faint(color("busy"), 0.2), hoverinfo: "skip" },
      line("demand", "demand", { line: { color: color("busy"), width: 1.2 } }),
      line("desired", "wanted", { line: { color: color("desired"), width: 1.2, dash: "dash", shape: "hv" } }),
      line("ready", "running", { line: { color: color("ready"), width: 2, shape: "hv" } }),
      { type: "scatter", mode: "markers", ...marks(x, columns), cliponaxis: false, hovertemplate: "%{text}<extra></extra>", marker: { symbol: "diamond", size: 8, color: color("rejected"), line: { width: 1, color: token("surface") } } },
    ];
  }
  function layout() {
    const grid = token("border");
    return {
      height: 150, margin: { l: 30, r: 12, t: 8, b: 24 }, showlegend: false,
      paper_bgcolor: token("surface"), plot_bgcolor: token("surface"),
      font: { family: token("font"), size: 11, color: token("muted") },
      hovermode: "x unified", hoverlabel: kit.hover(), dragmode: false,
      xaxis: { type: "date", range: [data.start, data.end], fixedrange: true, showgrid: false, linecolor: grid, nticks: 4, tickformat: data.step > 900 ? "%b %-d" : "%H:%M", hoverformat: "%Y-%m-%d %H:%M:%S" },
      yaxis: { rangemode: "tozero", fixedrange: true, gridcolor: grid, zeroline: true, zerolinecolor: grid, nticks: 3, minallowed: 0, autorangeoptions: { include: [0, 1] }, tickformat: ",~f" },
    };
  }
  function words(name, columns) {
    const lost = columns.rejected.reduce((sum, value) => sum + (value ?? 0) * data.step, 0);
    const most = Math.max(0, ...columns.demand.filter((value) => value !== null));
    const ready = last(columns.ready);
    const desired = last(columns.desired);
    return {
      now: `${number(ready ?? 0)} of ${number(desired ?? 0)} running${lost ? `, ${Math.round(lost).toLocaleString("en")} rejected` : ""}`,
      label: `${name}, last ${box.dataset.label}: ${number(ready ?? 0)} of ${number(desired ?? 0)} replicas running, demand up to ${number(most)}, ${Math.round(lost)} rejected`,
    };
  }
  async function draw(name) {
    const item = tiles.get(name);
    const columns = data.services[name];
    const measured = Boolean(columns) && columns.ready.some((value) => value !== null);
    item.note.hidden = measured;
    item.stale = false;
    if (!measured) {
      item.note.textContent = `Not measured in the last ${box.dataset.label}`;
      item.now.textContent = "";
      if (item.drawn) window.Plotly.purge(item.plot);
      item.drawn = false;
      return;
    }
    const said = words(name, columns);
    item.now.textContent = said.now;
    item.plot.setAttribute("aria-label", said.label);
    item.drawn = true;
    await window.Plotly.react(item.plot, traces(columns), layout(), kit.CONFIG);
  }
  // What is in view, one after the other, so that a page of many stays quick to the touch.
  let drawing = false;
  async function drawSeen() {
    if (drawing || !data) return;
    drawing = true;
    try {
      for (const [name, item] of tiles) {
        if (!item.seen || !item.stale) continue;
        await draw(name);
        await new Promise((resolve) => requestAnimationFrame(resolve));
      }
    } finally {
      drawing = false;
    }
  }
  async function append(name, next) {
    const item = tiles.get(name);
    const columns = next.services[name] ?? Object.fromEntries(COLUMNS.map((column) => [column, next.x.map(() => null)]));
    const before = item.plot.data[1].y;
    const fill = kit.area(next.x, columns.demand, before[before.length - 1] !== null);
    const lost = marks(next.x, columns);
    item.plot.layout.xaxis.range = [next.start, next.end];
    const most = data.x.length + 60;
    // each trace gets arrays of its own: Plotly appends to them in place
    await window.Plotly.extendTraces(item.plot, {
      x: [fill.x, [...next.x], [...next.x], [...next.x]],
      y: [fill.y, [...columns.demand], [...columns.desired], [...columns.ready]],
    }, [0, 1, 2, 3], most);
    if (lost.x.length) await window.Plotly.extendTraces(item.plot, { x: [lost.x], y: [lost.y], text: [lost.text] }, [4], most);
    const said = words(name, data.services[name]);
    item.now.textContent = said.now;
    item.plot.setAttribute("aria-label", said.label);
  }

  function address(extra) {
    return `${box.dataset.url}?${new URLSearchParams({ span: box.dataset.span, names: [...tiles.keys()].join(","), ...extra })}`;
  }
  const error = document.querySelector("[data-multiples-error]");
  async function read(extra) {
    reading = true;
    readAt = Date.now();
    try {
      const next = await kit.read(address(extra));
      error.hidden = true;
      return next;
    } catch {
      error.textContent = "The figures could not be read; trying again. Reload the page if this stays.";
      error.hidden = Boolean(data);
      return null;
    } finally {
      reading = false;
    }
  }
  async function load() {
    const next = await read({});
    if (!next) return;
    data = next;
    for (const item of tiles.values()) item.stale = true;
    drawSeen();
  }
  // What slides out on the left goes; a service that was not measured has nothing there.
  function take(next) {
    const count = data.x.length;
    data.start = next.start;
    data.end = next.end;
    data.newest = next.newest;
    const names = new Set([...Object.keys(data.services), ...Object.keys(next.services)]);
    for (const name of names) {
      const known = data.services[name] ?? Object.fromEntries(COLUMNS.map((column) => [column, data.x.map(() => null)]));
      const fresh = next.services[name];
      data.services[name] = Object.fromEntries(COLUMNS.map((column) => [
        column, [...known[column], ...(fresh ? fresh[column] : next.x.map(() => null))].slice(-count),
      ]));
    }
    data.x = [...data.x, ...next.x].slice(-count);
  }
  async function more() {
    if (!data || !data.x.length) return load();
    const next = await read({ after: data.newest });
    if (!next || !next.x.length) return;
    const drawable = [...tiles].filter(([name, item]) => item.drawn && !item.stale && data.services[name]);
    take(next);
    for (const [name, item] of tiles) {
      if (!item.seen || !drawable.some(([other]) => other === name)) {
        item.stale = true;
        continue;
      }
      await append(name, next);
    }
    drawSeen();
  }
  function onNews() {
    if (due || document.hidden) return;
    const wait = Math.max(0, readAt + 1000 * Math.min(data?.step ?? 10, 60) - Date.now());
    due = setTimeout(() => {
      due = 0;
      if (!reading) more();
    }, wait);
  }

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) tiles.get(entry.target.dataset.service).seen = entry.isIntersecting;
    drawSeen();
  }, { rootMargin: "200px" });
  for (const item of tiles.values()) observer.observe(item.tile);
  box.addEventListener("click", (event) => {
    const button = event.target.closest("[data-png]");
    if (!button) return;
    const name = button.closest("[data-service]").dataset.service;
    const item = tiles.get(name);
    if (!item.drawn) return window.slipway?.toast("There is nothing to draw in this range.", "info");
    kit.picture(item.plot, `${name}-demand-${box.dataset.span}`, 600);
  });
  function redraw() {
    for (const item of tiles.values()) item.stale = true;
    drawSeen();
  }
  document.addEventListener("slipway:theme", redraw);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && data) load(); });
  window.slipway?.subscribe("telemetry:*", onNews);
  load();
})();
