// Runs laid over each other: one uPlot for each measure, all over the same axis, with one cursor and one zoom.
// A run is a colour and a filled marker; its static control has both, but is dashed and hollow.

import { axis, compact, RANGES, token, told } from "./plot.js";
import { Poller } from "./poll.js";

const SYNC = "compare";
const GUTTER = 62;
const SPACING = 160; // px between two markers of a line
const panel = document.getElementById("compare");
const resetButton = document.getElementById("reset-zoom");
const query = new URLSearchParams(location.search);
const view = { from: bound("from"), to: bound("to"), log: query.get("loss") === "log" };
const buttons = [...panel.querySelectorAll("button.series")].map((button) => ({
  button,
  run: button.dataset.run,
  number: Number(button.dataset.number),
  isControl: "control" in button.dataset,
  marker: new Path2D(button.querySelector(".marker path").getAttribute("d")),
}));
const charts = [...panel.querySelectorAll("[data-chart]")].map((figure) => ({
  figure,
  name: figure.dataset.chart,
  column: figure.dataset.column,
  shown: { factor: Number(figure.dataset.factor), digits: Number(figure.dataset.digits), unit: figure.dataset.unit },
  box: figure.querySelector(".plot"),
  outputs: [...figure.querySelectorAll(".values output")],
  plot: null,
}));
let lines = [];
let extent = [0, 1];
let isBusy = false;

function bound(name) {
  const value = Number.parseFloat(query.get(name) ?? "");
  return Number.isFinite(value) && value >= 0 ? value : null;
}

// --- Drawing
function columnsOf(chart) {
  return uPlot.join(lines.map((line) => [line.x, line[chart.column].map((value) => (value === null ? null : value * chart.shown.factor))]));
}

function build() {
  for (const chart of charts) {
    chart.plot?.destroy();
    chart.figure.querySelector("[data-log]")?.setAttribute("aria-pressed", String(view.log));
    chart.plot = new uPlot(options(chart), columnsOf(chart), chart.box);
  }
  zoomTo(...range());
  readOut(null);
}

function options(chart) {
  const isLog = chart.name === "loss" && view.log;
  return {
    width: chart.box.clientWidth,
    height: chart.box.clientHeight,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: SYNC, setSeries: false },
      drag: { x: true, y: false, setScale: true },
      y: false,
      points: { show: false },
      bind: { dblclick: () => () => reset() },
    },
    scales: {
      x: { time: false, range: (plot, min, max) => [min, max] },
      y: isLog ? { distr: 3 } : { range: (plot, min, max) => (min === null ? [0, 1] : RANGES[chart.name](min, max)) },
    },
    axes: [
      { ...axis(), size: 22, label: panel.dataset.axis, labelSize: 16, space: 60, values: (plot, splits) => splits.map(compact) },
      { ...axis(), size: GUTTER - 16, label: chart.figure.dataset.axis, labelSize: 16, space: 26, values: isLog ? undefined : (plot, splits) => splits.map(compact) },
    ],
    series: [{}, ...lines.map((line) => look(line, chart))],
    hooks: {
      setCursor: [follow],
      setScale: [(plot, key) => key === "x" && spread(plot)],
      drawSeries: [(plot, index) => index && mark(plot, chart, lines[index - 1], index)],
    },
  };
}

function look(line, chart) {
  return {
    label: line.button.textContent.trim(),
    show: isShown(line),
    stroke: token(`--series-${line.number}`),
    width: line.isControl ? 1.25 : 1.75,
    dash: line.isControl ? [5, 4] : undefined,
    paths: chart.name === "parameters" ? uPlot.paths.stepped({ align: -1 }) : undefined,
    spanGaps: false,
    points: { show: false },
  };
}

// Markers of different lines stand at different places, so that lines that run together can be told apart.
function mark(plot, chart, line, index) {
  if (!plot.series[index].show) return;
  const { ctx, bbox } = plot;
  const pixel = devicePixelRatio;
  let next = bbox.left + ((line.number * SPACING) / 8 + (line.isControl ? SPACING / 2 : 0)) * pixel * 0.9;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left - 6 * pixel, bbox.top - 6 * pixel, bbox.width + 12 * pixel, bbox.height + 12 * pixel);
  ctx.clip();
  ctx.fillStyle = line.isControl ? token("--panel") : token(`--series-${line.number}`);
  ctx.strokeStyle = line.isControl ? token(`--series-${line.number}`) : token("--panel");
  const known = line[chart.column].map((value, at) => (value === null ? -1 : at)).filter((at) => at >= 0);
  known.forEach((at, place) => {
    const x = plot.valToPos(line.x[at], "x", true);
    if (x < next && !(known.length === 1 || (place === known.length - 1 && next === Infinity))) return;
    next = x + SPACING * pixel;
    ctx.save();
    ctx.translate(x, plot.valToPos(line[chart.column][at] * chart.shown.factor, "y", true));
    ctx.scale(pixel, pixel);
    ctx.fill(line.marker);
    ctx.stroke(line.marker);
    ctx.restore();
  });
  ctx.restore();
}

// --- Which lines are shown
function isShown(line) {
  return line.button.getAttribute("aria-pressed") === "true";
}

for (const { button } of buttons) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    lines.forEach((line, index) => {
      for (const chart of charts) if (line.button === button) chart.plot.setSeries(index + 1, { show: isShown(line) });
    });
  });
}

// --- One zoom for all
function range() {
  return [view.from ?? 0, view.to ?? extent[1]];
}

function spread(source) {
  if (isBusy) return;
  const { min, max } = source.scales.x;
  const [from, to] = range();
  if (min === from && max === to) return;
  view.from = Math.max(0, min);
  view.to = max;
  zoomTo(...range());
  keepView();
}

function zoomTo(min, max) {
  isBusy = true;
  for (const { plot } of charts) plot.setScale("x", { min, max });
  isBusy = false;
  resetButton.hidden = view.from === null && view.to === null;
}

function reset() {
  view.from = view.to = null;
  zoomTo(...range());
  keepView();
}

function keepView() {
  const url = new URL(location.href);
  for (const name of ["from", "to"]) {
    if (view[name] === null) url.searchParams.delete(name);
    else url.searchParams.set(name, +view[name].toPrecision(5));
  }
  if (view.log) url.searchParams.set("loss", "log");
  else url.searchParams.delete("loss");
  history.replaceState(null, "", url);
}

resetButton.addEventListener("click", reset);
for (const { figure } of charts) {
  figure.querySelector("[data-log]")?.addEventListener("click", () => {
    view.log = !view.log;
    keepView();
    build();
  });
}
document.addEventListener("esper:theme", () => lines.length && build());
new ResizeObserver(() => {
  for (const { plot, box } of charts) plot?.setSize({ width: box.clientWidth, height: box.clientHeight });
}).observe(panel);

// --- One cursor for all
function follow(plot) {
  const { left } = plot.cursor;
  readOut(left === undefined || left < 0 ? null : plot.posToVal(left, "x"));
}

// The values at the cursor, each the last one before it; without a cursor the newest. Behind its end a line has none.
function readOut(x) {
  for (const { column, outputs, shown } of charts) {
    outputs.forEach((output, index) => {
      const line = lines.find((other) => other.button === buttons[index].button);
      output.textContent = told(line && valueAt(line, column, x), shown);
    });
  }
}

function valueAt(line, column, x) {
  if (x !== null && (!line.x.length || x > line.x[line.x.length - 1])) return null;
  const at = x === null ? line.x.length - 1 : line.x.findLastIndex((here) => here <= x);
  return line[column][at] ?? null;
}

// --- What the server has
const freshness = document.getElementById("freshness");
const text = document.getElementById("freshness-text");
let loaded = panel.dataset.loaded;

const poller = new Poller(panel.dataset.points, {
  since: () => 0,
  onAnswer: take,
  onContact: (ok) => {
    freshness.classList.toggle("is-cut", !ok);
    if (!ok) text.textContent = "The server does not answer; this is what was known. Trying again.";
  },
});

function take(payload) {
  const found = new Map(payload.lines.map((line) => [`${line.run} ${line.is_control}`, line]));
  lines = buttons.map((button) => ({ ...button, ...found.get(`${button.run} ${button.isControl}`) })).filter((line) => line.x);
  extent = [0, Math.max(1e-6, ...lines.map((line) => line.x[line.x.length - 1] ?? 0))];
  build();
  tellAge(payload);
  const stride = Math.max(1, ...lines.map((line) => line.stride));
  const note = document.getElementById("stride");
  note.hidden = stride === 1;
  note.textContent = `Long runs are thinned: a point stands for up to ${stride} epochs, by their mean. The tables and the CSV file have all.`;
  if (payload.panels === loaded) return;
  loaded = payload.panels;
  htmx.trigger("#compare-tables", "esper:panels");
}

function tellAge(payload) {
  freshness.classList.toggle("is-live", Boolean(payload.poll_after));
  if (!lines.some((line) => line.x.length)) text.textContent = "None of them has measured anything yet";
  else if (!payload.last_at) text.textContent = "";
  else {
    const seconds = Math.max(0, (Date.parse(payload.now) - Date.parse(payload.last_at)) / 1000);
    const age = seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
    text.textContent = payload.poll_after ? `Live: newest measurement ${age} ago` : `All have ended: newest measurement ${age} ago`;
  }
}

poller.ask();
