// One chart of stored metrics: asks the server for its curves, draws them, and says how old they are.
//
//   <figure class="chart metric" data-metrics="/charts/metrics.json?..." data-threshold="0.9" data-from="…" data-until="…">

import { columns, extent, hasBand, scale } from "./columns.js";
import { age, tick, told } from "./units.js";

const RETRY = 10000;
const SYNC = "metrics";
const GUTTER = 62;
const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4"];
const DASHES = [undefined, [6, 3]];

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (index) => token(COLOURS[index % COLOURS.length]);
const dash = (index) => DASHES[Math.floor(index / COLOURS.length) % DASHES.length];

export class MetricChart {
  // `onZoom(chart, min, max)` after a drag, with nulls after a double click.
  constructor(figure, { onZoom }) {
    this.figure = figure;
    this.onZoom = onZoom;
    this.box = figure.querySelector(".plot");
    this.legend = figure.querySelector(".legend");
    this.freshness = figure.querySelector(".age");
    this.threshold = number(figure.dataset.threshold);
    this.from = number(figure.dataset.from);
    this.until = number(figure.dataset.until);
    this.hidden = new Set();
    this.zoom = null;
    this.etag = "";
    this.payload = null;
    this.contact = Date.now();
    document.addEventListener("visibilitychange", () => !document.hidden && this.wait && this.ask());
  }

  async ask() {
    clearTimeout(this.timer);
    this.wait = RETRY;
    try {
      const headers = { Accept: "application/json" };
      if (this.etag) headers["If-None-Match"] = this.etag;
      const response = await fetch(this.figure.dataset.metrics, { headers, cache: "no-store" });
      if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
      if (response.status === 400) return this.refuse((await response.json()).detail);
      if (response.status !== 304) {
        if (!response.ok) throw new Error(`status ${response.status}`);
        this.etag = response.headers.get("ETag") ?? "";
        this.payload = await response.json();
        this.skew = this.payload.now - Date.now() / 1000;
        this.build();
      }
      this.contact = Date.now();
      this.isCut = false;
      this.wait = this.payload.poll_after ?? 0;
    } catch {
      this.isCut = true; // the server or the network is away: what was known stays, and it is tried again
      if (!this.payload) this.say("The server does not answer. Trying again.");
    }
    this.showAge();
    if (this.wait && !document.hidden) this.timer = setTimeout(() => this.ask(), this.wait);
  }

  // The question itself is wrong: asking again brings nothing.
  refuse(detail) {
    this.wait = 0;
    this.say(`Nothing to draw: ${detail}.`);
    if (this.freshness) this.freshness.lastElementChild.textContent = "not drawn";
    this.freshness = null;
  }

  say(text) {
    this.plot?.destroy();
    this.plot = null;
    this.box.replaceChildren(Object.assign(document.createElement("p"), { className: "muted none", textContent: text }));
  }

  build() {
    if (!this.payload) return;
    const { curves } = this.payload;
    this.showLegend();
    if (!curves.some((curve) => curve.times.length)) {
      this.say(this.payload.last_at ? "No sample in this time." : "Nothing was measured yet: collectors read every 15 seconds.");
      return;
    }
    this.plot?.destroy();
    this.box.replaceChildren();
    this.plot = new uPlot(this.options(), columns(curves), this.box);
    this.zoomTo(...(this.zoom ?? [null, null]));
    this.readOut(null);
  }

  options() {
    const { curves } = this.payload;
    const unit = curves[0].unit;
    const axis = {
      stroke: token("--muted"),
      grid: { stroke: token("--grid"), width: 1 },
      ticks: { stroke: token("--grid"), width: 1, size: 4 },
      font: "11px " + token("--font"),
    };
    const besides = this.threshold === null ? [] : [this.threshold];
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [8, 26, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: SYNC, setSeries: false },
        drag: { x: true, y: false, setScale: true },
        y: false,
        points: { size: 6 },
        bind: { dblclick: () => () => this.onZoom(this, null, null) },
      },
      scales: {
        x: { time: true, range: (plot, min, max) => [min, max] },
        y: { range: () => scale(extent(curves, besides), { isShare: unit === "ratio", isClose: this.threshold !== null }) },
      },
      axes: [
        { ...axis, size: 26, space: 76, values: (plot, splits, index, space, increment) => splits.map((at) => moment(at, increment)) },
        { ...axis, size: GUTTER, space: 24, values: (plot, splits) => splits.map((value) => tick(value, unit)) },
      ],
      series: [{}, ...curves.flatMap((curve, index) => this.lines(curve, index))],
      bands: curves.flatMap((curve, index) =>
        hasBand(curve) ? [{ series: [3 * index + 3, 3 * index + 2], fill: `${colour(index)}26` }] : [],
      ),
      hooks: {
        setCursor: [(plot) => this.follow(plot)],
        setScale: [(plot, key) => key === "x" && this.spread(plot)],
        drawAxes: [(plot) => this.drawSpan(plot)],
        draw: [(plot) => this.drawMarks(plot)],
      },
    };
  }

  lines(curve, index) {
    const show = !this.hidden.has(curve.id);
    const few = curve.times.length < 3;
    return [
      { label: curve.label, show, stroke: colour(index), width: 1.75, dash: dash(index), points: { show: few } },
      { label: "least", show: show && hasBand(curve), stroke: "transparent", width: 0, points: { show: false } },
      { label: "greatest", show: show && hasBand(curve), stroke: "transparent", width: 0, points: { show: false } },
    ];
  }

  // --- Legend: each curve with its value at the cursor, or its newest
  showLegend() {
    const { curves, left_out: leftOut } = this.payload;
    const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
    this.legend.replaceChildren(...curves.map((curve, index) => this.entry(curve, index)));
    if (leftOut) this.legend.append(Object.assign(document.createElement("li"), { className: "muted", textContent: `and ${leftOut} more, not drawn` }));
    this.legend.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  entry(curve, index) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `series line-${index + 1}`;
    button.setAttribute("aria-pressed", String(!this.hidden.has(curve.id)));
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.setAttribute("aria-hidden", "true");
    button.append(swatch, `${curve.label} `, Object.assign(document.createElement("output"), { textContent: "—" }));
    button.addEventListener("click", () => {
      this.hidden[this.hidden.has(curve.id) ? "delete" : "add"](curve.id);
      this.build();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  readOut(index) {
    this.payload.curves.forEach((curve, number) => {
      const at = index === null ? curve.mean.length - 1 : curve.times.indexOf(this.plot.data[0][index]);
      const output = this.legend.querySelectorAll("output")[number];
      if (output) output.textContent = told(curve.mean[at], curve.unit, curve.is_rate);
    });
  }

  follow(plot) {
    this.readOut(plot.cursor.idx ?? null);
  }

  // --- Zoom: the page spreads it over all of its charts
  spread(plot) {
    if (this.isBusy || plot !== this.plot) return; // not before it is shown
    const { min, max } = plot.scales.x;
    const [from, to] = this.zoom ?? [this.payload.start, this.payload.end];
    if (min !== from || max !== to) this.onZoom(this, min, max);
  }

  zoomTo(min, max) {
    this.zoom = min === null ? null : [min, max];
    if (!this.plot) return;
    this.isBusy = true;
    this.plot.setScale("x", min === null ? { min: this.payload.start, max: this.payload.end } : { min, max });
    this.isBusy = false;
  }

  resize() {
    this.plot?.setSize({ width: this.box.clientWidth, height: this.box.clientHeight });
  }

  // --- What is drawn besides the curves
  drawSpan(plot) {
    if (this.from === null) return;
    const { ctx, bbox } = plot;
    const left = Math.max(bbox.left, plot.valToPos(this.from, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(this.until ?? this.payload.end, "x", true));
    if (right <= left) return;
    ctx.save();
    ctx.fillStyle = `${token("--bad")}14`;
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.restore();
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    const pixel = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    if (this.threshold !== null) {
      const y = plot.valToPos(this.threshold, "y", true);
      ctx.strokeStyle = ctx.fillStyle = token("--bad");
      ctx.lineWidth = 1.25 * pixel;
      ctx.setLineDash([5 * pixel, 4 * pixel]);
      line(ctx, bbox.left, y, bbox.left + bbox.width, y);
      ctx.setLineDash([]);
      ctx.font = `${11 * pixel}px ${token("--font")}`;
      ctx.textAlign = "left";
      ctx.textBaseline = y - bbox.top < 16 * pixel ? "top" : "bottom";
      ctx.fillText(`threshold ${told(this.threshold, this.payload.curves[0].unit)}`, bbox.left + 6 * pixel, y + (ctx.textBaseline === "top" ? 3 : -2) * pixel);
    }
    ctx.fillStyle = ctx.strokeStyle = token("--held");
    ctx.lineWidth = pixel;
    const bottom = bbox.top + bbox.height;
    for (const curve of this.payload.curves) {
      for (const at of curve.anomalies) {
        const x = plot.valToPos(at, "x", true);
        ctx.globalAlpha = 0.55;
        line(ctx, x, bbox.top, x, bottom);
        ctx.globalAlpha = 1;
        ctx.beginPath();
        ctx.moveTo(x, bottom - 8 * pixel);
        ctx.lineTo(x + 5 * pixel, bottom);
        ctx.lineTo(x - 5 * pixel, bottom);
        ctx.fill();
      }
    }
    ctx.restore();
  }

  // --- How old is what is shown
  showAge() {
    if (!this.freshness) return;
    const { last_at: lastAt, stale_after: staleAfter, poll_after: moves } = this.payload ?? {};
    const elapsed = lastAt ? Math.max(0, Date.now() / 1000 + this.skew - lastAt) : null;
    const isStale = Boolean(moves) && elapsed !== null && elapsed > staleAfter;
    this.freshness.classList.toggle("is-cut", Boolean(this.isCut));
    this.freshness.classList.toggle("is-stale", isStale);
    this.freshness.classList.toggle("is-live", Boolean(moves) && elapsed !== null && !isStale && !this.isCut);
    if (this.isCut) this.freshness.lastElementChild.textContent = `no answer since ${age((Date.now() - this.contact) / 1000)}`;
    else if (elapsed === null) this.freshness.lastElementChild.textContent = this.payload ? "no sample" : "loading";
    else this.freshness.lastElementChild.textContent = isStale ? `stale: newest ${age(elapsed)} ago` : `newest ${age(elapsed)} ago`;
  }
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

// A tick of the time axis, in the viewer's zone and manner: the day where one begins, else the time.
function moment(at, increment) {
  const date = new Date(at * 1000);
  return increment >= 86400 || (date.getHours() === 0 && date.getMinutes() === 0) ? day.format(date) : clock.format(date);
}

function line(ctx, x1, y1, x2, y2) {
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
}

function number(text) {
  const value = Number.parseFloat(text ?? "");
  return Number.isFinite(value) ? value : null;
}
