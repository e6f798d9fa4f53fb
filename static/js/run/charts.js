// The curves: one uPlot for each chart, all over the same epoch axis, with one cursor and one zoom.

import { axis as axisLook, compact, RANGES, token, told } from "./plot.js";
import { aligned, ticks } from "./store.js";

const SYNC = "run";
const GUTTER = { wide: 104, narrow: 58 };
const RIGHT = 14;
const TITLE = 18;

const COLOURS = {
  train_loss: "--series-2",
  validation_loss: "--series-1",
  validation_accuracy: "--series-1",
  parameters: "--series-3",
  train_flops: "--series-4",
  esper_run_samples_per_second: "--series-1",
  esper_run_gradient_norm: "--series-5",
  esper_run_overhead_ratio: "--series-2",
};
const CONTROL_COLUMN = { accuracy: "validation_accuracy", loss: "validation_loss", parameters: "parameters", flops: "train_flops" };
const LAST = { size: 22, label: "epoch", labelSize: 14 }; // the lanes have the axis of the curves above them; these have their own
const EDGES = ["least", "greatest"].map((label) => ({ label, stroke: "transparent", width: 0, points: { show: false } }));

export function gutter() {
  return matchMedia("(max-width: 760px)").matches ? GUTTER.narrow : GUTTER.wide;
}

export const rightPadding = RIGHT;

export class Charts {
  // `view` holds the zoom ({from, to} in epochs, null = all) and whether the loss is logarithmic.
  constructor(figures, { store, controlStore, view, events, bands, onCursor, onZoom }) {
    Object.assign(this, { store, controlStore, view, events, bands, onCursor, onZoom });
    this.charts = figures.map((figure) => this.describe(figure));
    this.busy = false;
    this.build();
  }

  describe(figure) {
    const buttons = [...figure.querySelectorAll("button.series")];
    const name = figure.dataset.chart;
    const main = buttons.find((button) => button.dataset.column);
    const series = buttons.map((button) => ({
      button,
      isControl: button.classList.contains("control"),
      column: button.dataset.column ?? CONTROL_COLUMN[name],
      factor: Number(button.dataset.factor ?? main.dataset.factor),
      digits: Number(button.dataset.digits ?? main.dataset.digits),
      unit: button.dataset.unit ?? main.dataset.unit,
    }));
    const chart = { name, figure, series, axis: figure.dataset.axis, box: figure.querySelector(".plot"), plot: null, isLast: figure.matches("#recorded .chart:last-child"), recorded: "recorded" in figure.dataset ? null : undefined };
    buttons.forEach((button, index) => button.addEventListener("click", () => this.toggle(chart, index)));
    figure.querySelector("[data-log]")?.addEventListener("click", () => {
      this.view.log = !this.view.log;
      this.onZoom();
      this.build();
    });
    return chart;
  }

  toggle(chart, index) {
    const { button } = chart.series[index];
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    chart.plot?.setSeries(index + 1, { show: shown });
  }

  range() {
    const { from, to, epochs } = this.view;
    return [from ?? 0, to ?? epochs];
  }

  build() {
    for (const chart of this.charts) {
      chart.plot?.destroy();
      chart.figure.querySelector("[data-log]")?.setAttribute("aria-pressed", String(Boolean(this.view.log)));
      chart.plot = new uPlot(this.options(chart), this.data(chart), chart.box);
    }
    this.zoomTo(...this.range());
    this.readOut(null);
  }

  options(chart) {
    const isLog = chart.name === "loss" && this.view.log;
    const hasTitle = gutter() > 80;
    const axis = axisLook();
    return {
      width: chart.box.clientWidth,
      height: chart.box.clientHeight,
      padding: [6, RIGHT, 4, 0],
      legend: { show: false },
      cursor: {
        sync: { key: SYNC, setSeries: false },
        drag: { x: true, y: false, setScale: true },
        y: false,
        points: { size: 6 },
        bind: { dblclick: () => () => this.reset() },
      },
      scales: {
        x: { time: false, range: (plot, min, max) => [min, max] },
        y: isLog ? { distr: 3 } : { range: (plot, min, max) => (min === null ? [0, 1] : (RANGES[chart.name] ?? RANGES.flops)(min, max)) },
      },
      axes: [
        { ...axis, ...(chart.isLast ? LAST : { size: 4, ticks: { show: false }, values: () => [] }), splits: (plot, index, min, max) => ticks(min, max, plot.bbox.width / devicePixelRatio) },
        {
          ...axis,
          size: hasTitle ? gutter() - TITLE : gutter(),
          label: hasTitle ? chart.axis : undefined,
          labelSize: TITLE,
          space: 26,
          values: isLog ? undefined : (plot, splits) => splits.map((value) => compact(value)),
        },
      ],
      series: [{}, ...chart.series.map((series) => this.line(series, chart)), ...(isRecorded(chart) ? EDGES : [])],
      bands: isRecorded(chart) ? [{ series: [3, 2], fill: `${token(COLOURS[chart.series[0].column])}30` }] : [],
      hooks: {
        setCursor: [(plot) => this.follow(plot)],
        setScale: [(plot, key) => key === "x" && this.spread(plot)],
        drawAxes: [(plot) => this.drawEvents(plot)],
      },
    };
  }

  line(series, chart) {
    const stepped = chart.name === "parameters" ? uPlot.paths.stepped({ align: -1 }) : undefined;
    return {
      label: series.column,
      show: series.button.getAttribute("aria-pressed") === "true",
      stroke: series.isControl ? token("--control") : token(COLOURS[series.column]),
      width: series.isControl ? 1.25 : 1.75,
      dash: series.isControl ? [4, 3] : undefined,
      paths: stepped,
      spanGaps: false,
      points: { show: (plot) => plot.data[0].length - countNulls(plot.data[1]) < 3 },
    };
  }

  data(chart) {
    if (isRecorded(chart)) return this.recordedData(chart);
    const last = Math.max(this.store.last, this.controlStore.last, 1);
    return aligned(
      [1, last],
      chart.series.map((series) => ({ ...series, store: series.isControl ? this.controlStore : this.store })),
    );
  }

  // What the worker recorded lies between the epochs: it has places of its own.
  recordedData({ recorded, series: [{ factor }] }) {
    if (!recorded) return [[], [], [], []];
    const scaled = (values) => values.map((value) => (value === null ? null : value * factor));
    return [recorded.step.map((step) => this.store.position([1, step])), scaled(recorded.mean), scaled(recorded.least), scaled(recorded.greatest)];
  }

  record(charts) {
    for (const chart of this.charts.filter(isRecorded)) chart.recorded = charts[chart.name] ?? null;
    this.update();
  }

  update() {
    const hasControl = this.controlStore.last > 0;
    for (const chart of this.charts) {
      const label = chart.figure.querySelector("[data-of-control]");
      if (label) label.hidden = !hasControl;
      chart.plot.setData(this.data(chart), false);
    }
    this.zoomTo(...this.range());
    this.readOut(this.cursorEpoch ?? null);
  }

  resize() {
    for (const { plot, box } of this.charts) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  }

  // --- One zoom for all
  spread(source) {
    if (this.busy) return;
    const { min, max } = source.scales.x;
    const [from, to] = this.range();
    if (min === from && max === to) return;
    this.view.from = Math.max(0, min);
    this.view.to = Math.min(this.view.epochs, max);
    this.zoomTo(min, max);
    this.onZoom();
  }

  zoomTo(min, max) {
    this.busy = true;
    for (const { plot } of this.charts) plot.setScale("x", { min, max });
    this.busy = false;
  }

  reset() {
    this.view.from = null;
    this.view.to = null;
    this.zoomTo(...this.range());
    this.onZoom();
  }

  // --- One cursor for all
  follow(plot) {
    const { left } = plot.cursor;
    const epoch = left === undefined || left < 0 ? null : Math.round(plot.posToVal(left, "x"));
    if (epoch === this.cursorEpoch) return;
    this.cursorEpoch = epoch;
    this.readOut(epoch);
    this.onCursor(epoch === null ? null : plot.posToVal(left, "x"));
  }

  pointAt(epoch) {
    const { plot } = this.charts[0];
    if (epoch === null) plot.setCursor({ left: -10, top: -10 }, true, true);
    else plot.setCursor({ left: plot.valToPos(epoch, "x"), top: 10 }, true, true);
  }

  // The values at the cursor, or the newest ones.
  readOut(epoch) {
    for (const chart of this.charts) {
      for (const { button, column, isControl, ...shown } of chart.series) {
        if (isRecorded(chart)) {
          button.querySelector("output").textContent = told(this.recordedAt(chart, epoch), shown);
          continue;
        }
        const store = isControl ? this.controlStore : this.store;
        button.querySelector("output").textContent = told(store.value(epoch ?? store.last, column), shown);
      }
    }
  }

  recordedAt({ recorded }, epoch) {
    if (!recorded) return null;
    const at = epoch === null ? recorded.mean.length - 1 : recorded.step.findLastIndex((step) => this.store.position([1, step]) <= epoch);
    return recorded.mean[at] ?? null;
  }

  // A band as long as something was odd, a few pixels at least; with an edge, so that it is not seen by its colour alone.
  shade(plot, from, to, colour) {
    const { ctx, bbox } = plot;
    const [least, most] = [bbox.left, bbox.left + bbox.width];
    const left = Math.max(least, plot.valToPos(from, "x", true));
    const right = Math.min(most, Math.max(plot.valToPos(to, "x", true), left + 3 * devicePixelRatio));
    if (right <= left || left > most) return;
    ctx.fillStyle = colour;
    ctx.globalAlpha = 0.16;
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.globalAlpha = 0.8;
    ctx.fillRect(left, bbox.top, right - left, 2 * devicePixelRatio);
  }

  // Thin lines where the network changed, in the colour of what happened.
  drawEvents(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const { from, to, colour } of this.bands()) this.shade(plot, from, to, token(colour));
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.globalAlpha = 0.65;
    for (const event of this.events()) {
      const x = plot.valToPos(event.x, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = token(event.colour);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

function isRecorded(chart) {
  return chart.recorded !== undefined;
}

function countNulls(values) {
  return values.reduce((count, value) => count + (value === null ? 1 : 0), 0);
}
