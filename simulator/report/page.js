"use strict";
/* What a page of charts does: draws them in the theme's colours, keeps their time axes together, sorts tables, prints.

   Charts come as plain Plotly figures (simulator.report.charts) in the element #run-data; a colour in them is a name, `$blue`.
   A page whose run still goes on calls `charts.show(data)` with newer ones; what is zoomed stays so. */
const charts = (() => {
  const root = document.documentElement;
  const place = (chart) => document.getElementById("chart-" + chart.key);
  const narrow = () => window.innerWidth < 600;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

  let data = { charts: [], marks: { shapes: [], labels: [] }, span: [0, 1], clock: false };
  let range = null;  // what all charts over time show; null: the whole run
  const linear = new Set();  // charts that the reader has switched

  // ---- drawing ----

  // Colours by name become the theme's; lists of numbers are left alone, for they are long.
  function coloured(value, colours) {
    if (typeof value === "string" && value[0] === "$") return (colours[value] ??= colour(value.slice(1)));
    if (Array.isArray(value)) {
      const long = typeof value[0] === "number" && typeof value.at(-1) === "number";
      return long ? value : value.map((item) => coloured(item, colours));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, colours)]));
    }
    return value;
  }

  // The library reads a small markup in its labels; a name is only ever a name.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Figures have seconds. On an axis of dates the library wants text: numbers it takes for local time, small ones for years.
  const dated = (seconds) => (data.clock ? new Date(Math.round(1000 * seconds)).toISOString().slice(0, -1).replace("T", " ") : seconds);
  const asSeconds = (x) => (typeof x === "number" ? x : Date.parse(x.replace(" ", "T") + (x.length > 10 ? "Z" : "T00:00Z")) / 1000);

  function traces(chart) {
    return chart.data.map((trace) => ({
      ...trace,
      ...(trace.name ? { name: plain(trace.name) } : {}),
      ...(chart.linked && data.clock ? { x: trace.x.map(dated) } : {}),
    }));
  }

  const moved = (mark) => Object.fromEntries(
    Object.entries(mark).map(([key, value]) => [key, ["x", "x0", "x1"].includes(key) ? dated(value) : value]));

  function layout(chart, first) {
    const slim = narrow() && !root.classList.contains("paper");
    const made = {
      paper_bgcolor: "$page", plot_bgcolor: "$page", separators: ".,",
      font: { color: "$text", family: getComputedStyle(document.body).fontFamily, size: 13 },
      hoverlabel: { bgcolor: "$panel", bordercolor: "$line", font: { color: "$text" } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
      dragmode: slim ? false : "zoom",
      ...chart.layout,
    };
    // The same margin on every chart, so that the same second stands in the same place.
    made.margin = { l: slim ? 62 : 84, r: 14, t: 8, b: 50, ...chart.layout.margin };
    made.xaxis = { ...made.xaxis };
    made.yaxis = { ...made.yaxis };
    if (chart.linked) {
      made.xaxis.range = (range || data.span).map(dated);
      // Lines stand before the bands; a heat map would hide them.
      const over = chart.data[0].type === "heatmap" ? { layer: "above" } : {};
      made.shapes = [...data.marks.shapes.map((shape) => ({ ...shape, ...over })), ...(made.shapes || [])].map(moved);
      const labels = first && !slim ? data.marks.labels : [];
      made.annotations = [...(made.annotations || []), ...labels.map((label) => ({ ...label, text: plain(label.text) }))].map(moved);
    }
    if (slim) {
      made.xaxis.nticks = 5;
      if (made.xaxis.ticktext) {
        made.xaxis.tickvals = made.xaxis.tickvals.slice(1);
        made.xaxis.ticktext = made.xaxis.ticktext.slice(1);
        // Labels of percentiles grow to the right: more than four would run into one another.
        const every = Math.ceil(made.xaxis.tickvals.length / 4), last = made.xaxis.tickvals.length - 1;
        for (const key of ["tickvals", "ticktext"]) made.xaxis[key] = made.xaxis[key].filter((_, at) => (last - at) % every === 0);
      }
    }
    if (linear.has(chart.key)) {
      for (const key of ["tickmode", "tickvals", "ticktext"]) delete made.yaxis[key];
      Object.assign(made.yaxis, { type: "linear", rangemode: "tozero" });
    }
    return made;
  }

  function drawOne(chart, first) {
    const colours = {};
    return Plotly.react(place(chart), coloured(traces(chart), colours), coloured(layout(chart, first), colours), CONFIG)
      .then(() => follow(chart));
  }

  const drawable = () => data.charts.filter(place);

  // At once: for print, which waits for nothing.
  function draw() {
    return Promise.all(drawable().map((chart, at) => drawOne(chart, at === 0)));
  }

  // One after the other, with room for the reader in between: the first chart is there long before the last one.
  async function drawInTurn() {
    for (const [at, chart] of drawable().entries()) {
      await drawOne(chart, at === 0);
      await new Promise((done) => setTimeout(done, 0));
    }
  }

  // ---- one time axis ----

  function follow(chart) {
    const here = place(chart);
    if (!chart.linked || here.dataset.followed) return;
    here.dataset.followed = "yes";
    here.on("plotly_relayout", (change) => {
      const wide = change["xaxis.autorange"];
      const some = Object.keys(change).some((key) => key.startsWith("xaxis"));
      if (some) zoom(wide ? null : here.layout.xaxis.range.map(asSeconds));
    });
    here.on("plotly_hover", (hover) => point(asSeconds(hover.points[0].x), here));
    here.on("plotly_unhover", () => point(null));
    here.addEventListener("keydown", (event) => walk(event, chart));
    here.addEventListener("blur", () => leave(here));
  }

  // ---- one instant ----

  // What is pointed at in one chart over time is marked on the others, by a line that lies over them: nothing is drawn anew, so
  // it costs next to nothing. Where a chart's own tooltip stands it needs none.
  let wanted = null, waiting = false;

  function point(seconds, without) {
    wanted = { seconds, without };
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }

  function mark() {
    waiting = false;
    const [first, last] = range || data.span, part = (wanted.seconds - first) / (last - first);
    const on = drawable().filter((chart) => chart.linked).map(place);
    // Everything is measured before anything is moved: in turns, the browser would lay out the page once for each chart.
    const plots = on.map((here) => {
      const plot = here.querySelector(".nsewdrag")?.getBoundingClientRect(), box = here.getBoundingClientRect();
      return plot && { left: plot.left - box.left + part * plot.width, top: plot.top - box.top, height: plot.height };
    });
    for (const [at, here] of on.entries()) {
      const line = here.querySelector(":scope > .instant") || here.appendChild(Object.assign(document.createElement("div"), { className: "instant" }));
      line.hidden = wanted.seconds === null || here === wanted.without || !plots[at] || part < 0 || part > 1;
      if (line.hidden) continue;
      line.style.height = `${plots[at].height}px`;
      line.style.transform = `translate(${plots[at].left}px, ${plots[at].top}px)`;
    }
  }

  // The keyboard's pointer: arrows go from value to value of what is shown, Home and End to its ends, Escape leaves.
  const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  const walked = new Map();

  function walk(event, chart) {
    const here = place(chart);
    if (event.target !== here) return;
    if (event.key === "Escape") return leave(here);
    if (!(event.key in STEPS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [first, last] = range || data.span;
    const heat = chart.data[0].type === "heatmap", edges = chart.data[0].x;
    const xs = (heat ? edges.slice(1).map((edge, at) => (edge + edges[at]) / 2) : edges).filter((x) => x >= first && x <= last);
    if (!xs.length) return;
    const step = STEPS[event.key], before = walked.get(chart.key);
    const next = before === undefined ? (Number.isFinite(step) ? 0 : step) : xs.findIndex((x) => x >= before) + step;
    const x = xs[Math.min(Math.max(next, 0), xs.length - 1)];
    walked.set(chart.key, x);
    const values = heat ? [] : chart.data.map((trace) => [trace.name, trace.y?.[trace.x.indexOf(x)]]).filter(([name, y]) => name && Number.isFinite(y));
    if (form) document.getElementById("range-said").textContent =
      `${written(x)}${data.clock ? "" : " s"}` + values.map(([name, y]) => `; ${name} ${y.toLocaleString("en", { maximumSignificantDigits: 4 })}`).join("");
    if (!heat) Plotly.Fx.hover(here, { xval: data.clock ? Date.parse(dated(x).replace(" ", "T") + "Z") : x }, ["xy"]);
    point(x, heat ? null : here);
  }

  function leave(here) {
    walked.clear();
    if (here.layout) Plotly.Fx.unhover(here);
    point(null);
  }

  const same = (a, b) => Math.abs(asSeconds(a[0]) - asSeconds(b[0])) < 1e-6 && Math.abs(asSeconds(a[1]) - asSeconds(b[1])) < 1e-6;

  // A zoom into one chart is a zoom into all; null: the whole run.
  function zoom(wanted) {
    range = wanted;
    const shown = (range || data.span).map(dated);
    for (const chart of drawable()) {
      const here = place(chart);
      if (chart.linked && here.layout && !same(here.layout.xaxis.range, shown)) Plotly.relayout(here, { "xaxis.range": shown.slice() });
    }
    tell(range || data.span);
  }

  const form = document.getElementById("range");
  const from = document.getElementById("range-from"), to = document.getElementById("range-to");

  function written(seconds) {
    if (!data.clock) return String(Number(seconds.toFixed(3)));
    const pad = (n) => String(n).padStart(2, "0");
    const whole = Math.floor(seconds + 1e-9), rest = seconds - whole;
    return `${Math.floor(whole / 3600)}:${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}` + (rest > 0.0005 ? rest.toFixed(3).slice(1) : "");
  }

  // 90, 1:30 and 0:01:30 are the same.
  function read(text) {
    const parts = text.trim().split(":").map(Number);
    return parts.some((part) => !Number.isFinite(part) || part < 0) ? NaN : parts.reduce((sum, part) => 60 * sum + part, 0);
  }

  function tell(shown) {
    if (!form) return;
    from.value = written(shown[0]);
    to.value = written(shown[1]);
    document.getElementById("range-said").textContent = `All charts show ${from.value} to ${to.value}`;
  }

  if (form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const wanted = [read(from.value), read(to.value)];
      const sound = wanted[0] < wanted[1];
      for (const field of [from, to]) field.setAttribute("aria-invalid", String(!sound));
      if (sound) zoom(wanted);
      else document.getElementById("range-said").textContent = "Not a stretch of time: from must come before to";
    });
    document.getElementById("range-all").addEventListener("click", () => zoom(null));
  }

  // ---- scale, theme, print ----

  for (const button of document.querySelectorAll("button.scale")) {
    button.addEventListener("click", () => {
      const chart = data.charts.find((candidate) => candidate.key === button.dataset.for);
      const wasLinear = linear.delete(chart.key);
      if (!wasLinear) linear.add(chart.key);
      button.setAttribute("aria-pressed", String(wasLinear));
      drawOne(chart, drawable()[0] === chart);
    });
  }

  const THEMES = ["auto", "light", "dark"];
  const theme = document.getElementById("theme");
  function setTheme(name) {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
    theme.setAttribute("aria-label", `Theme: ${name}. Press for ${THEMES[(THEMES.indexOf(name) + 1) % THEMES.length]}.`);
  }
  if (theme) {
    let kept = "auto";
    try { kept = localStorage.getItem("simulator-theme") || kept; } catch { /* some browsers keep nothing for files */ }
    setTheme(THEMES.includes(kept) ? kept : "auto");
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(root.dataset.theme || "auto") + 1) % THEMES.length];
      setTheme(next);
      try { localStorage.setItem("simulator-theme", next); } catch { /* as above */ }
      draw();
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // Paper is white and narrower than most screens; what is folded away on the screen would be missing there.
  const opened = new Set();
  window.addEventListener("beforeprint", () => {
    root.classList.add("paper");
    for (const part of document.querySelectorAll("details:not(.numbers, [open])")) {
      opened.add(part);
      part.open = true;
    }
    draw();
    for (const chart of drawable()) Plotly.relayout(place(chart), { width: 680, height: place(chart).classList.contains("tall") ? 380 : 300 });
  });
  window.addEventListener("afterprint", () => {
    root.classList.remove("paper");
    for (const part of opened) part.open = false;
    opened.clear();
    for (const chart of drawable()) Plotly.relayout(place(chart), { width: null, height: null, autosize: true });
    draw();
  });

  // ---- tables ----

  const UNITS = { "µs": 1e-3, ms: 1, s: 1e3, m: 6e4, h: 3.6e6, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, thousand: 1e3, million: 1e6, billion: 1e9, trillion: 1e12 };

  // "1m30s", "8.12 ms", "1,234", "<0.1%", "525.1 million CNY": a number to sort by; null for what is none.
  function figure(text) {
    const found = [...text.replace(/,/g, "").matchAll(/(-?[0-9]+(?:\.[0-9]+)?) ?([^\s0-9.]*)/g)];
    if (!found.length || !/^[<-]?[0-9]/.test(text.trim())) return null;
    const spans = /^[0-9]+[hms]/.test(text) ? found : found.slice(0, 1);
    const sum = spans.reduce((total, [, digits, unit]) => total + Number(digits) * (UNITS[unit] || 1), 0);
    return text.trim().startsWith("<") ? sum - 1e-9 : sum;
  }

  function compare(a, b, numeric) {
    if (!numeric) return a.localeCompare(b, "en", { numeric: true });
    const x = figure(a), y = figure(b);
    return x === null || y === null ? (x === null) - (y === null) : x - y;
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0], text = (row) => row.cells[column].textContent.trim();
    const numeric = table.tHead.rows[0].cells[column].classList.contains("n");
    const known = (row) => !numeric || figure(text(row)) !== null;  // what has no figure comes last, whichever way
    const rows = [...body.rows].sort((a, b) => known(b) - known(a) || direction * compare(text(a), text(b), numeric));
    body.append(...rows);
    for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
      if (at === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      if (!head.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort"), first = head.classList.contains("n") ? "descending" : "ascending";
        const next = now ? (now === "ascending" ? "descending" : "ascending") : first;  // of figures the most, of words the first
        sort(table, column, next === "ascending" ? 1 : -1);
      });
    }
  }

  // ---- the beginning, and each time a run has gone on ----

  function show(newer) {
    data = newer;
    if (form) form.hidden = !data.charts.some((chart) => chart.linked);
    tell(range || data.span);
    return drawInTurn().then(() => { root.dataset.charts = "drawn"; });
  }

  show(JSON.parse(document.getElementById("run-data").textContent));
  return { show, zoom };
})();
