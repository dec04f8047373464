"use strict";
// Live pages ask for their content again when the server says that something changed; charts are drawn from one series.
(() => {
  const root = document.body.dataset.root;
  const content = document.getElementById("content");
  const CHART_MS = 5000;
  const REFRESH_MS = 2000;
  const charts = [];

  const wants = () => !document.hidden && document.getElementById("live")?.checked;
  const typing = () => content.contains(document.activeElement) && document.activeElement.matches("input, select");

  function refresh() {
    if (wants() && !typing() && new URLSearchParams(location.search).get("before") === null) {
      htmx.ajax("GET", location.pathname + location.search, { target: "#content", swap: "innerHTML" });
    }
  }

  let due = null;
  function changed() {
    due ??= setTimeout(() => { due = null; refresh(); }, REFRESH_MS);
  }

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw(told) {
    while (charts.length) charts.pop().destroy();
    for (const place of content.querySelectorAll(".chart")) {
      const names = place.dataset.series.split(" ");
      const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
      const lines = names.map((name, i) => ({ label: name, stroke: color(i ? "--second" : "--accent"), width: 2, spanGaps: true, points: { size: 4 } }));
      const options = {
        width: place.clientWidth, height: 160, cursor: { show: false }, legend: { show: names.length > 1, live: false },
        scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 0.1) * 1.1] } },
        axes: [{ ...axis, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toISOString().slice(11, 16)) }, { ...axis, size: 52 }],
        series: [{}, ...lines],
      };
      charts.push(new uPlot(options, [told.at, ...names.map((name) => told[name])], place));
    }
  }

  async function chart() {
    if (!content.querySelector(".chart")) return;
    try {
      const answer = await fetch(root + "series.json");
      if (answer.ok) draw(await answer.json());
    } catch { /* the service is away: the next attempt follows */ }
  }

  // The place in the tables and the choice "Live" survive when the content is replaced.
  let live = true;
  document.body.addEventListener("change", (event) => { if (event.target.id === "live") live = event.target.checked; });
  document.body.addEventListener("htmx:afterSwap", () => {
    const box = document.getElementById("live");
    if (box) box.checked = live;
    if (!content.querySelector(".chart > .uplot")) chart();
  });

  if (content.hasAttribute("data-live")) {
    const source = new EventSource(root + "events");
    source.addEventListener("changed", changed);
    chart();
    setInterval(() => { if (wants()) chart(); }, CHART_MS);
    addEventListener("resize", chart);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", chart);
    addEventListener("pagehide", () => source.close());
  }
})();
