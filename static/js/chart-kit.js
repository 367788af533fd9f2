// What the router's chart and the small charts of all services share: colours, texts, axes, pictures.
// Loaded after Plotly and before them; `window.slipwayCharts`. Knows no page and reads nothing.
"use strict";

window.slipwayCharts = (() => {
  const style = getComputedStyle(document.documentElement);
  const token = (name) => style.getPropertyValue(`--${name}`).trim();
  const color = (name) => token(`chart-${name}`);
  const phone = matchMedia("(max-width: 820px)");
  const coarse = matchMedia("(pointer: coarse)");
  const CONFIG = { displayModeBar: false, displaylogo: false, doubleClick: "reset", responsive: true, scrollZoom: false };

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
  // A filled line cannot have a gap, so the fill goes down to zero around it.
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
  const hover = () => ({
    bgcolor: token("surface"), bordercolor: token("border-strong"), font: { color: token("text"), size: 12 }, align: "left",
  });
  const axis = (row) => (row ? `y${row + 1}` : "y");
  const legend = (row) => (row ? `legend${row + 1}` : "legend");

  // Rows from the top with a shared time axis; each has its own y axis, title and legend.
  function rowsLayout(chart, rows, data, bottom = 46) {
    const height = chart.clientHeight || 780;
    const small = phone.matches;
    const heads = rows.map((row) => (small ? row.phoneHead : 34));
    const inner = height - bottom;
    const room = inner - heads.reduce((sum, head) => sum + head, 0);
    const grid = token("border");
    const ink = token("text");
    const result = {
      height,
      margin: { l: small ? 38 : 52, r: small ? 12 : 20, t: 0, b: bottom },
      paper_bgcolor: token("surface"),
      plot_bgcolor: token("surface"),
      font: { family: token("font"), size: small ? 11 : 12, color: token("muted") },
      hovermode: "x unified",
      hoverlabel: hover(),
      dragmode: coarse.matches ? false : "zoom",
      uirevision: data.range,
      showlegend: true,
      xaxis: {
        type: "date", range: [data.start, data.end], anchor: axis(rows.length - 1),
        gridcolor: grid, linecolor: grid, zeroline: false, tickcolor: grid, ticks: "outside", ticklen: 4,
        nticks: small ? 5 : 10, hoverformat: data.step >= 3600 ? "%Y-%m-%d %H:%M" : "%Y-%m-%d %H:%M:%S",
        showspikes: true, spikemode: "across", spikesnap: "hovered data", spikethickness: 1, spikecolor: token("border-strong"), spikedash: "solid",
      },
    };
    let below = 1;
    rows.forEach((row, index) => {
      const high = below - heads[index] / inner;
      const low = Math.max(high - (row.share * room) / inner, 0);
      below = low;
      result[index ? `yaxis${index + 1}` : "yaxis"] = {
        domain: [low, high], rangemode: "tozero", gridcolor: grid, zeroline: true, zerolinecolor: grid,
        linecolor: grid, nticks: row.share < 0.2 ? 3 : 5, fixedrange: true, automargin: false,
        minallowed: 0, autorangeoptions: { include: [0, row.least] }, tickformat: ",~f",
        ...(row.range ? { range: row.range, autorange: false } : {}),
      };
      result[legend(index)] = {
        orientation: "h", x: 0, xanchor: "left", xref: "paper", y: high, yanchor: "bottom", yref: "paper",
        // weight, not <b>: that would set a style attribute, which the content policy forbids
        title: { text: `${row.title}${small ? "" : "  "}`, side: small ? "top" : "left", font: { color: ink, size: small ? 12 : 13, weight: 600 } },
        font: { size: small ? 11 : 12, color: ink }, bgcolor: "rgba(0,0,0,0)", itemsizing: "constant", itemwidth: 30, tracegroupgap: 0,
      };
    });
    return result;
  }

  function picture(chart, filename, least = 900) {
    return window.Plotly.downloadImage(chart, {
      format: "png", width: Math.max(chart.clientWidth, least), height: chart.clientHeight, scale: 2, filename,
    });
  }
  // Answers in JSON within 15 seconds, else throws.
  async function read(url, signal) {
    const limit = AbortSignal.timeout(15000);
    const answer = await fetch(url, { signal: signal ? AbortSignal.any([signal, limit]) : limit, headers: { Accept: "application/json" } });
    if (!answer.ok || !(answer.headers.get("Content-Type") || "").includes("json")) throw new Error(`status ${answer.status}`);
    return answer.json();
  }

  return { token, color, phone, coarse, CONFIG, faint, wrapped, area, hover, axis, legend, rowsLayout, picture, read };
})();
