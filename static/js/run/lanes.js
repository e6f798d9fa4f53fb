// The rail of events and the lanes of the seeds, under the curves and over the same epoch axis. Drawn as SVG: each seed
// and each mark is a link to its evidence. The table of the same moves is in the page's "Seeds" panel.

import { gutter, rightPadding } from "./charts.js";
import { ticks } from "./store.js";

const NS = "http://www.w3.org/2000/svg";
const RAIL = 26;
const ROW = 24;
const BAR = 16;
const AXIS = 30;
const SPACING = 6; // px between two snapshots that are drawn
const STAGES = {
  GERMINATED: ["germinated", "germinated"],
  TRAINING: ["training", "training"],
  GRAFTING: ["grafting", "grafting"],
  STABILIZING: ["stabilizing", "stabilizing"],
  EVALUATING: ["evaluating", "evaluating"],
  FOSSILIZED: ["fossilized", "fossilised"],
  CULLED: ["culled", "culled"],
  CANCELLED: ["cancelled", "cancelled"],
  ROLLED_BACK: ["rolled-back", "rolled back"],
  EMBARGOED: ["embargoed", "embargoed"],
};
const HATCHED = new Set(["CULLED", "CANCELLED", "ROLLED_BACK"]);
// Shapes tell the events apart without their colour; each is drawn around (0, 0).
const MARKS = {
  germinate: ["germinated", "M0 -6 5 4H-5Z"],
  graft: ["grafting", "M0 -6 5 0 0 6 -5 0Z"],
  fossilise: ["fossilized", "M-5 -5H5V5H-5Z"],
  cull: ["culled", "M-5 -3 -3 -5 0 -2 3 -5 5 -3 2 0 5 3 3 5 0 2 -3 5 -5 3 -2 0Z"],
  rollback: ["rolled-back", "M-6 0 1 -6V-2H6V2H1V6Z"],
  anomaly: ["anomaly", "M0 5.5-5.5 -4.5H5.5Z"],
  alert: ["alert", "M-2.5 -6H2.5L6 -2.5V2.5L2.5 6H-2.5L-6 2.5V-2.5Z"],
  snapshot: ["snapshot", "M-.75 7H.75V12H-.75Z"],
};

const WORDS = { germinate: "germinated", graft: "grafted", fossilise: "fossilised", cull: "culled", rollback: "rolled back", snapshot: "checkpoint" };

export const EVENT_COLOURS = Object.fromEntries(Object.entries(MARKS).map(([kind, [tone]]) => [kind, `--${tone}`]));
export const BANDS = new Set(["anomaly", "alert"]); // events that last: they are bands over the curves

function make(name, attributes = {}, ...children) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export class Lanes {
  constructor(box, { store, view, onCursor }) {
    Object.assign(this, { box, store, view, onCursor });
    this.sites = [];
    this.spans = [];
    this.events = [];
    this.tip = document.createElement("p");
    this.tip.className = "lane-tip";
    this.svg = make("svg", { role: "group", "aria-label": "Events and seeds over the epochs; the Seeds table below has the same moves" });
    this.key = document.createElement("ul");
    this.key.className = "legend marks";
    this.key.setAttribute("aria-label", "Marks on the rail of events");
    box.append(this.svg, this.tip, this.key);
    this.svg.addEventListener("pointermove", (event) => this.pointed(event));
    this.svg.addEventListener("pointerleave", () => this.onCursor(null));
    for (const type of ["pointerover", "focusin"]) this.svg.addEventListener(type, (event) => this.explain(event));
  }

  update({ sites, spans, events }) {
    Object.assign(this, { sites, spans, events });
    this.draw();
    this.explainMarks();
  }

  // What the shapes on the rail mean: those that are there.
  explainMarks() {
    const kinds = new Set(this.events.map((event) => event.kind));
    this.key.replaceChildren(
      ...Object.entries(MARKS)
        .filter(([kind]) => kinds.has(kind))
        .map(([kind, [tone, path]]) => {
          const shape = make("svg", { viewBox: kind === "snapshot" ? "-7 3 14 14" : "-7 -7 14 14", "aria-hidden": "true" }, make("path", { class: `mark ${tone} tone-${tone}`, d: path }));
          const item = document.createElement("li");
          item.append(shape, WORDS[kind] ?? kind);
          return item;
        }),
    );
  }

  get scale() {
    const from = this.view.from ?? 0;
    const to = this.view.to ?? this.view.epochs;
    const left = gutter();
    const width = Math.max(1, this.box.clientWidth - left - rightPadding);
    return { from, to, left, width, x: (epoch) => left + ((epoch - from) / (to - from)) * width };
  }

  draw() {
    const scale = this.scale;
    const height = RAIL + this.sites.length * ROW + AXIS;
    const focused = document.activeElement?.closest?.(".lanes a")?.getAttribute("data-key");
    this.words = [];
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren(
      this.patterns(scale, height),
      this.axis(scale, height),
      ...this.sites.map((site, row) => this.lane(scale, site, RAIL + row * ROW)),
      make("g", { "clip-path": "url(#lane-area)" }, ...this.rail(scale), ...this.seeds(scale)),
    );
    this.cursor = make("line", { class: "cursor", y1: 0, y2: height - AXIS, visibility: "hidden" });
    // The words stand beside the links, not in them: a link's name is its whole story.
    this.svg.append(make("g", { class: "words", "aria-hidden": "true" }, ...this.words), this.cursor);
    if (focused) this.svg.querySelector(`a[data-key="${focused}"]`)?.focus({ preventScroll: true });
  }

  patterns({ left, width }, height) {
    const hatch = make("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, make("path", { d: "M-1 7 7 -1M-2 2 2 -2M4 8 8 4" }));
    const dots = make("pattern", { id: "dots", width: 5, height: 5, patternUnits: "userSpaceOnUse" }, make("circle", { cx: 2.5, cy: 2.5, r: 0.9 }));
    const area = make("clipPath", { id: "lane-area" }, make("rect", { x: left - 7, y: 0, width: width + 14, height }));
    return make("defs", {}, hatch, dots, area);
  }

  axis({ from, to, left, width, x }, height) {
    const group = make("g", { class: "axis", "aria-hidden": "true" });
    for (const tick of ticks(from, to, width)) {
      group.append(
        make("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - AXIS + 4 }),
        make("text", { x: x(tick), y: height - AXIS + 15, "text-anchor": "middle" }, String(tick)),
      );
    }
    group.append(make("text", { x: left + width / 2, y: height - 3, "text-anchor": "middle" }, "epoch"));
    group.append(make("text", { x: left - 10, y: RAIL / 2 + 4, "text-anchor": "end" }, "events"));
    return group;
  }

  lane({ left, width }, site, top) {
    const middle = top + ROW / 2;
    const label = left > 80 ? site : site.replace("layers.", "").replace("residual", "res");
    return make(
      "g",
      {},
      make("text", { class: "site", x: left - 10, y: middle + 4, "text-anchor": "end" }, label),
      make("line", { class: "rest", x1: left, x2: left + width, y1: middle, y2: middle }),
    );
  }

  rail({ x }) {
    const snapshots = this.events.filter((event) => event.kind === "snapshot").sort((a, b) => a.at[1] - b.at[1]);
    const others = this.events.filter((event) => event.kind !== "snapshot");
    let last = -Infinity;
    const spaced = snapshots.filter((event) => {
      const here = x(this.store.position(event.at));
      if (here - last < SPACING) return false;
      last = here;
      return true;
    });
    return [...spaced, ...others].map((event) => {
      const [tone, path] = MARKS[event.kind];
      const shape = make("path", { class: `mark ${tone} tone-${tone}`, d: path, transform: `translate(${x(this.store.position(event.at)).toFixed(1)} ${RAIL / 2})` });
      if (event.kind === "snapshot") return shape;
      const epoch = Math.max(1, Math.ceil(this.store.position(event.at)));
      const text = event.href ? `Epoch ${epoch}, ${event.text}` : `Epoch ${epoch}, ${event.kind}: ${event.text}`;
      const key = event.href ? `${event.kind}-${event.at[1]}` : `${event.kind}-${event.seed}`;
      return make("a", { href: event.href ?? `#seed-${event.seed}`, "aria-label": text, "data-tip": text, "data-key": key }, shape);
    });
  }

  seeds(scale) {
    const bySeed = new Map();
    for (const span of this.spans) bySeed.set(span.seed, [...(bySeed.get(span.seed) ?? []), span]);
    return [...bySeed].map(([seed, spans]) => {
      const { site, operator } = spans[0];
      const story = spans.map((span) => `${STAGES[span.state][1]} from epoch ${span.from[0]}`).join(", ");
      const link = make("a", { href: `#seed-${seed}`, "aria-label": `Seed ${seed}, ${operator} at ${site}: ${story}`, "data-key": `seed-${seed}` });
      const top = RAIL + this.sites.indexOf(site) * ROW + (ROW - BAR) / 2;
      const [ends, stays] = [spans.filter((span) => HATCHED.has(span.state)), spans.filter((span) => !HATCHED.has(span.state))];
      link.append(...[...stays, ...ends].map((span) => this.span(scale, span, top))); // a cull lasts no time: it goes on top
      return link;
    });
  }

  span({ from, to, x }, span, top) {
    const start = this.store.position(span.from);
    const end = span.until ? this.store.position(span.until) : Math.max(this.store.last, start);
    const [tone, word] = STAGES[span.state];
    const left = x(Math.max(start, from));
    const width = Math.max(HATCHED.has(span.state) ? 9 : 2, x(Math.min(end, to)) - left - 1);
    const group = make("g", {
      class: `span ${tone} tone-${tone}`,
      "data-tip": `Seed ${span.seed} at ${span.site}: ${word}, epoch ${start.toFixed(1)} to ${span.until ? end.toFixed(1) : "now"}`,
    });
    if (end < from || start > to) return group;
    const box = { x: left, y: top, width, height: BAR, rx: 2 };
    group.append(make("rect", box));
    if (HATCHED.has(span.state)) group.append(make("rect", { ...box, class: "hatch" }));
    const indent = span.state === "EMBARGOED" ? 13 : 4; // the cull before it is drawn over its beginning
    const text = [`${span.seed} ${word}`, word.slice(0, 1).toUpperCase()].find((words) => words.length * 6.2 + 4 + indent < width);
    if (text) this.words.push(make("text", { class: tone, x: left + indent, y: top + BAR - 4 }, text));
    return group;
  }

  // --- The cursor that all charts share
  pointAt(epoch) {
    if (!this.cursor) return;
    this.cursor.setAttribute("visibility", epoch === null ? "hidden" : "visible");
    if (epoch === null) return;
    const x = this.scale.x(epoch);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }

  pointed(event) {
    const { from, to, left, width } = this.scale;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const epoch = from + ((x - left) / width) * (to - from);
    this.onCursor(epoch < from || epoch > to ? null : epoch);
  }

  explain(event) {
    const told = event.target.closest("[data-tip]") ?? event.target.querySelector?.("[data-tip]");
    this.tip.textContent = told?.dataset.tip ?? "";
  }
}
