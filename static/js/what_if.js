// The What if tab: the chart of a run that is done, and fields that only exact times need.
// Reads its data from the URL in #what-if-chart's data attributes.
"use strict";

(() => {
  // Exact times are asked for only when they are chosen. -------------------------------------------------
  const span = document.getElementById("id_span");
  const exact = document.querySelector("[data-exact]");
  const showExact = () => { exact.hidden = span.value !== "exact"; };
  if (span && exact) {
    span.addEventListener("change", showExact);
    showExact();
  }

  // The chart ---------------------------------------------------------------------------------------------
  const phone = matchMedia("(max-width: 820px)");
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const color = (name) => token(`chart-${name}`);
  const RUNS = [
    { key: "recorded", name: "as it was", color: "desired", width: 1.6, dash: "solid" },
    { key: "as_set", name: "as set, simulated", color: "starting", width: 1.4, dash: "dot" },
    { key: "settings", name: "as it would be", color: "ready", width: 2.4, dash: "solid" },
  ];
  let data = null;
  const node = () => document.getElementById("what-if-chart");

  function traces() {
    const line = (run, column, axis, legend) => ({
      type: "scatter", mode: "lines", name: run.name, x: data.x, y: data[run.key][column], yaxis: axis, legend,
      connectgaps: false, hovertemplate: "%{y:.2f}",
      line: { color: color(run.color), width: run.width, dash: run.dash, shape: column === "replicas" ? "hv" : "linear" },
    });
    return [
      ...RUNS.map((run) => line(run, "replicas", "y", "legend")),
      { type: "scatter", mode: "lines", name: "requests", x: data.x, y: data.arrivals, yaxis: "y2", legend: "legend2",
        connectgaps: false, hovertemplate: "%{y:.2f}", line: { color: color("client"), width: 1.2 } },
      ...RUNS.map((run) => ({ ...line(run, "rejected", "y2", "legend2"), name: `503 ${run.name}` })),
    ];
  }

  function layout(chart) {
    const small = phone.matches;
    const ink = token("text");
    const grid = token("border");
    const height = chart.clientHeight || 460;
    const share = (pixels) => pixels / (height - 40);
    const heads = small ? [64, 108] : [30, 30];
    const half = (1 - share(heads[0]) - share(heads[1])) / 2;
    const tops = [1 - share(heads[0]), half];
    const axis = (top) => ({ domain: [top - half, top], rangemode: "tozero", gridcolor: grid, zerolinecolor: grid, fixedrange: true, automargin: false });
    const legend = (top, head) => ({ orientation: "h", x: 1, xanchor: "right", y: top + share(head), yanchor: "top", bgcolor: "rgba(0,0,0,0)", font: { size: 11 } });
    const title = (text, top, head) => ({ text, x: 0, xref: "paper", xanchor: "left", y: top + share(head), yref: "paper", yanchor: "top", showarrow: false, font: { size: 12, color: ink } });
    return {
      height,
      margin: { l: small ? 36 : 48, r: small ? 10 : 18, t: 0, b: 40 },
      paper_bgcolor: token("surface"),
      plot_bgcolor: token("surface"),
      font: { family: "system-ui, sans-serif", size: 11, color: ink },
      hovermode: "x unified",
      hoverlabel: { bgcolor: token("surface-2"), bordercolor: grid, font: { color: ink } },
      xaxis: { type: "date", gridcolor: grid, anchor: "y2", nticks: small ? 4 : 8 },
      yaxis: axis(tops[0]),
      yaxis2: axis(tops[1]),
      legend: { ...legend(tops[0], heads[0]), ...(small ? { x: 0, xanchor: "left", y: tops[0] + share(heads[0] - 20) } : {}) },
      legend2: { ...legend(tops[1], heads[1]), ...(small ? { x: 0, xanchor: "left", y: tops[1] + share(heads[1] - 20) } : {}) },
      annotations: [title("Replicas", tops[0], heads[0]), title("A second", tops[1], heads[1])],
    };
  }

  function draw() {
    const chart = node();
    if (!chart || !data || !window.Plotly) return;
    window.Plotly.react(chart, traces(), layout(chart), { displayModeBar: false, responsive: true });
    chart.dataset.drawn = "true";
  }

  async function load() {
    const chart = node();
    if (!chart || chart.dataset.drawn) return;
    const failed = document.querySelector("[data-what-if-error]");
    try {
      const answer = await fetch(chart.dataset.url, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`the portal answered ${answer.status}`);
      data = await answer.json();
      draw();
    } catch (error) {
      failed.textContent = `The chart could not be read: ${error.message}. Load the page again.`;
      failed.hidden = false;
    }
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-what-if-png]") || !data) return;
    const chart = node();
    const filename = `${chart.dataset.service}-what-if-${chart.dataset.run}`;
    window.Plotly.downloadImage(chart, { format: "png", filename, width: 1400, height: 700, scale: 2 });
  });
  document.addEventListener("slipway:theme", draw);
  phone.addEventListener("change", draw);
  // the run's card is read again while it goes on, and has a chart when it is done
  document.addEventListener("htmx:afterSettle", load);
  load();
})();
