"use strict";
/* The page of a run that goes on: listens to its events, shows the newest, draws the charts that can be seen, stops the run.

   Everything comes whole: a reload, or a connection that was lost for a while, needs no memory. `charts` is the report's own
   script. Nothing waits in line: while charts are drawn only the newest others are kept. */
(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);
  const token = new URLSearchParams(location.search).get("token");
  const address = (path) => `${path}?token=${encodeURIComponent(token)}`;
  const ICONS = { pass: "✓", fail: "✗", invalid: "!" };
  const REPORT_AFTER_MS = 1500;  // the verdict is read, then the report has it too

  let paused = false, over = false;
  let held = {};  // the newest of each sort, while the display stands still
  let data = null;  // the newest charts
  let drawing = false, again = false;

  // ---- figures ----

  function tile(figure) {
    const made = document.createElement("div");
    made.className = `tile ${figure.tone}`;
    for (const [kind, text] of [["label", figure.label], ["value", figure.value], ["label", figure.note]]) {
      const part = made.appendChild(document.createElement("span"));
      part.className = kind;
      part.textContent = text;
    }
    return made;
  }

  function threshold(one) {
    const made = document.createElement("li");
    made.className = one.met ? "good" : "bad";
    made.textContent = `${one.met ? "✓" : "✗"} ${one.what}: now ${one.now}`;
    return made;
  }

  function showNow(now) {
    const share = now.duration_s > 0 ? Math.min(now.elapsed_s / now.duration_s, 1) : 0;
    by("progress").value = share;
    by("clock").textContent = `${now.elapsed_s.toFixed(1)} s of ${now.duration_s} s`;
    if (by("told").textContent !== now.told) by("told").textContent = now.told;
    by("tiles").replaceChildren(...now.tiles.map(tile));
    by("asked").hidden = !now.thresholds.length;
    by("threshold-list").replaceChildren(...now.thresholds.map(threshold));
    by("stop").disabled = now.stopping || !["starting", "running"].includes(now.phase);
    if (now.stopping) by("stop").textContent = "Stopping";
    root.dataset.phase = now.phase;
  }

  // ---- charts ----

  const near = new Set();  // keys of the charts that can be seen, or nearly
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const key = entry.target.id.slice("figure-".length);
      if (entry.isIntersecting) near.add(key);
      else near.delete(key);
    }
    drawSoon();
  }, { rootMargin: "200px" });

  function showCharts(newer) {
    data = newer;
    const known = new Set(newer.charts.map((chart) => chart.key));
    for (const figure of document.querySelectorAll(".figure[hidden]")) {
      if (known.has(figure.id.slice("figure-".length))) {
        figure.hidden = false;
        watcher.observe(figure);
      }
    }
    by("waiting").hidden = known.size > 0;
    drawSoon();
  }

  // Only what is looked at: a browser on the machine under load is to take as little of it as can be.
  async function drawSoon() {
    again = true;
    if (drawing || document.hidden) return;
    drawing = true;
    try {
      while (again && data) {
        again = false;
        const seen = data.charts.filter((chart) => near.has(chart.key));
        if (seen.length) await charts.show({ ...data, charts: seen });
      }
    } finally {
      drawing = false;
    }
  }
  document.addEventListener("visibilitychange", () => { if (again) drawSoon(); });

  // ---- the end ----

  function showEnd(end) {
    over = true;
    source.close();
    by("verdict").hidden = false;
    by("verdict").classList.add(end.tone);
    by("verdict-icon").textContent = ICONS[end.tone] || "?";
    by("verdict-word").textContent = end.word;
    by("verdict-cause").textContent = end.cause ? `: ${end.cause}` : "";
    by("now").hidden = true;
    document.querySelector(".kind").textContent = "This run is over";
    document.title = `${end.word}: ${document.querySelector("h1").textContent}`;
    by("after").hidden = false;
    by("report").hidden = !end.report;
    by("kept").textContent = end.report ? `It stays in ${end.folder}; this address goes in a few seconds.` : "";
    root.dataset.phase = "over";
    if (end.report && !paused) setTimeout(() => location.replace(address("report")), REPORT_AFTER_MS);
  }

  // ---- what comes ----

  const SORTS = { now: showNow, charts: showCharts, end: showEnd };

  function arrived(sort, text) {
    root.classList.remove("lost");
    if (paused && sort !== "end") held[sort] = text;
    else SORTS[sort](JSON.parse(text));
  }

  const source = new EventSource(address("events"));
  for (const sort of Object.keys(SORTS)) source.addEventListener(sort, (event) => arrived(sort, event.data));
  source.addEventListener("error", () => {
    if (over) return;
    root.classList.add("lost");
    by("told").textContent = source.readyState === EventSource.CLOSED
      ? "refused: too many viewers watch already; close one and load this page again"
      : "no connection: the run has ended, or was killed; trying again";
  });

  // ---- buttons ----

  by("pause").addEventListener("click", () => {
    paused = !paused;
    root.classList.toggle("paused", paused);
    by("pause").setAttribute("aria-pressed", String(paused));
    by("pause").textContent = paused ? "Display paused, the run goes on" : "Pause the display";
    if (!paused) {
      const newest = held;
      held = {};
      for (const [sort, text] of Object.entries(newest)) SORTS[sort](JSON.parse(text));
    }
  });

  by("stop").addEventListener("click", async () => {
    if (!window.confirm("Stop the load now? What is under way is waited for, then audited and reported, as after Ctrl-C.")) return;
    by("stop").disabled = true;
    const answer = await fetch(address("stop"), { method: "POST" }).catch(() => null);
    if (answer === null || !answer.ok) {
      by("stop").disabled = false;
      by("told").textContent = "the run could not be asked to stop; press Ctrl-C in its terminal";
    }
  });
})();
