"use strict";
// Live pages ask for their content again when the server says that something changed; charts are drawn from one series.
(() => {
  const root = document.body.dataset.root;
  const content = document.getElementById("content");
  const CHART_MS = 15000; // the charts' own step
  const REFRESH_MS = 5000; // least time between two refreshes; the first change after a calm shows at once
  const RETRY_MS = 2000;
  const charts = [];

  const wants = () => !document.hidden && document.getElementById("live")?.checked;
  const typing = () => content.contains(document.activeElement) && document.activeElement.matches("input, select");

  function refresh() {
    if (wants() && !typing() && new URLSearchParams(location.search).get("before") === null) {
      htmx.ajax("GET", location.pathname + location.search, { target: "#part", swap: "innerHTML" })
        .catch(() => { /* the notice says it */ });
    }
  }

  let due = null;
  let refreshed = 0;
  function changed() {
    due ??= setTimeout(() => { due = null; refreshed = performance.now(); refresh(); }, refreshed + REFRESH_MS - performance.now());
  }

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  let told = null;
  function draw() {
    if (told === null) return;
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
      if (answer.ok) told = await answer.json();
      draw();
    } catch { /* the service is away: the next attempt follows */ }
  }

  // What keeps the page from being current stands above the content, which stays as it was.
  const notice = document.getElementById("connection");
  let cut = false;
  let failed = false;
  function say() {
    const since = new Date().toISOString().slice(11, 19);
    const text = cut ? "The page is not live: the service does not answer, or tells too many other browsers. Trying again."
      : failed ? "The service did not answer the last request. The page shows what it said before." : "";
    if (notice.dataset.text !== text) {
      notice.dataset.text = text;
      notice.textContent = text && `${text} Since ${since} UTC.`;
      notice.className = text && "notice bad";
    }
  }
  document.body.addEventListener("htmx:afterRequest", (event) => { failed = !event.detail.successful; say(); });

  // The browser's own reconnection gives up for good where a proxy answers for a service that restarts.
  let source = null;
  function listen() {
    let opened = false;
    source = new EventSource(root + "events");
    source.addEventListener("changed", changed);
    source.addEventListener("open", () => {
      opened = true;
      if (cut) { cut = false; say(); refresh(); chart(); }
    });
    source.addEventListener("error", () => {
      source.close();
      cut = !opened; // a stream ends after some minutes, and the next one opens at once
      say();
      setTimeout(listen, RETRY_MS);
    });
  }

  // An answer is read from its beginning. Charts survive when what is around them is replaced.
  document.body.addEventListener("htmx:afterSwap", () => {
    document.getElementById("answer")?.focus();
    if (!content.querySelector(".chart > .uplot")) chart();
  });

  if (content.hasAttribute("data-live")) {
    listen();
    chart();
    setInterval(() => { if (wants() && !cut) chart(); }, CHART_MS);
    addEventListener("resize", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    addEventListener("pagehide", () => source.close());
  }
})();
