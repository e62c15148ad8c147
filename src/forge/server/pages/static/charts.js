// The charts of a release, from its history; under each the same numbers as a table.
"use strict";

const charts = document.getElementById("charts");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function seconds(value) { return value === null ? "–" : value >= 1 ? `${value.toFixed(2)} s` : `${(value * 1000).toFixed(0)} ms`; }
function percent(value) { return value === null ? "–" : `${(value * 100).toFixed(value < 0.1 ? 2 : 1)} %`; }
function plain(value) { return value === null ? "–" : String(Math.round(value * 100) / 100); }
function bytes(value) { return value === null ? "–" : `${(value / 1048576).toFixed(1)} MiB`; }

function versionColour(version, history, stable) {
  if (version === stable) return colour("--arm-stable");
  const others = history.versions.filter((one) => one !== stable);
  return colour(`--arm-${others.indexOf(version) % 4}`);
}

function series(history, pick) { return history.points.map((point) => { const value = pick(point); return value === undefined ? null : value; }); }
function arms(history, stable, key, dash) {
  return history.versions.map((version) => ({
    label: dash ? `${version} ${dash}` : version, stroke: versionColour(version, history, stable), width: 2,
    dash: dash ? [4, 4] : undefined,
    values: series(history, (point) => point.arms && point.arms[version] ? point.arms[version][key] : null),
  })).filter((one) => one.values.some((value) => value !== null));
}

function chart(title, words, history, lines, show, extra) {
  const shown = lines.filter((line) => line.values.some((value) => value !== null));
  if (!shown.length) return;
  const section = document.createElement("section");
  const heading = document.createElement("h2");
  heading.textContent = title;
  const note = document.createElement("p");
  note.className = "quiet small";
  note.textContent = words;
  const place = document.createElement("div");
  place.className = "chart";
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${title}: the table below has the numbers`);
  section.append(heading, note, place, table(title, history, shown, show));
  charts.append(section);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const plot = new uPlot({
    width: Math.max(280, charts.clientWidth), height: 220, legend: { live: true },
    scales: { x: { time: true }, y: extra && extra.range ? { range: extra.range } : {} },
    axes: [axis, { ...axis, size: 64, values: (_plot, ticks) => ticks.map(show) }],
    series: [{}, ...shown.map((line) => ({ label: line.label, stroke: line.stroke, width: line.width || 2, dash: line.dash, spanGaps: false, points: { show: history.points.length < 60 }, value: (_plot, value) => show(value === undefined ? null : value) }))],
    bands: (extra && extra.bands) || [],
  }, [history.points.map((point) => point.at), ...shown.map((line) => line.values)], place);
  addEventListener("resize", () => plot.setSize({ width: Math.max(280, charts.clientWidth), height: 220 }));
}

function table(title, history, lines, show) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = `${title} as a table`;
  summary.className = "small";
  const wrap = document.createElement("div");
  wrap.className = "scroll";
  wrap.tabIndex = 0;
  const body = document.createElement("table");
  const add = (cells, kind) => {
    const row = body.insertRow();
    for (const text of cells) { const cell = document.createElement(kind); cell.textContent = text; row.append(cell); }
  };
  add(["Time", ...lines.map((line) => line.label)], "th");
  const every = Math.max(1, Math.floor(history.points.length / 40));
  history.points.forEach((point, at) => {
    if (at % every === 0 || at === history.points.length - 1) add([new Date(point.at * 1000).toISOString().slice(11, 19), ...lines.map((line) => show(line.values[at]))], "td");
  });
  wrap.append(body);
  details.append(summary, wrap);
  return details;
}

let open = [];
async function draw() {
  const answer = await fetch(charts.dataset.history);
  if (!answer.ok) return;
  const history = await answer.json();
  const stable = charts.dataset.stable;
  open = [...charts.querySelectorAll("details")].map((one) => one.open);
  charts.replaceChildren();
  if (!history.points.length) return;
  chart("Traffic", "Each version's share: asked for (solid) and observed at the router (dashed).", history,
    [...arms(history, stable, "asked").map((line) => ({ ...line, values: line.values.map((value) => (value || 0) / 10000) })),
     ...arms(history, stable, "observed", "observed").map((line) => ({ ...line, values: line.values.map((value) => value === null ? null : value / 10000) }))],
    percent, { range: [0, 1] });
  chart("Errors", "Failed requests of the last 10 seconds, by version.", history, arms(history, stable, "error_rate"), percent);
  chart("Error ratio to stable", "How many times as often it fails as stable: bounds that hold at every time at once (95 %).", history, [
    { label: "at least", stroke: colour("--bad"), values: series(history, (point) => point.interval ? point.interval[0] : null) },
    { label: "at most", stroke: colour("--wait"), values: series(history, (point) => point.interval ? (point.interval[1] === null ? null : Math.min(point.interval[1], 100)) : null) },
  ], plain);
  chart("Latency, 95 of 100", "95 of 100 requests of the last 10 seconds were answered in this time or less.", history, arms(history, stable, "p95"), seconds);
  chart("Memory", "Of the version's largest replica.", history, arms(history, stable, "memory"), bytes);
  const names = [...new Set(history.points.flatMap((point) => Object.keys(point.metrics || {})))];
  chart("Evidence", "Logarithm of the evidence against it; above the bound it goes back. Under 1 % of good versions ever reach it.", history, [
    { label: "all together", stroke: colour("--bad"), values: series(history, (point) => point.log_evidence) },
    ...names.map((name, at) => ({ label: name, stroke: colour(`--arm-${at % 4}`), dash: [2, 3], width: 1.5, values: series(history, (point) => (point.metrics || {})[name]) })),
    { label: "bound", stroke: colour("--soft"), dash: [8, 4], values: series(history, (point) => point.bound) },
  ], plain);
  chart("Cost", "Failed requests of this version so far, and those above what stable would have failed.", history, [
    { label: "failed", stroke: colour("--bad"), values: series(history, (point) => point.failed || 0) },
    { label: "above stable", stroke: colour("--wait"), dash: [4, 4], values: series(history, (point) => point.excess || 0) },
  ], plain);
  charts.querySelectorAll("details").forEach((one, at) => { one.open = Boolean(open[at]); });
}
if (charts) {
  draw();
  document.addEventListener("forge:renewed", draw);
  document.addEventListener("forge:theme", draw);
}
