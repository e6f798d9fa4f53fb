// The page of a run: joins the poller to the curves and lanes, keeps zoom and scale in the URL, says how fresh it all is.

import { Charts } from "./charts.js";
import { BANDS, EVENT_COLOURS, Lanes } from "./lanes.js";
import { Poller } from "./poll.js";
import { Store } from "./store.js";

const STALE_SECONDS = 15;
const COLUMNS = ["step", "train_loss", "validation_loss", "validation_accuracy", "parameters", "train_flops"];

const instrument = document.getElementById("instrument");
const refresh = document.getElementById("refresh");
const resetButton = document.getElementById("reset-zoom");
const store = new Store(COLUMNS);
const controlStore = new Store(COLUMNS);
const query = new URLSearchParams(location.search);
const view = {
  epochs: Number(instrument.dataset.epochs),
  from: bounded(query.get("from")),
  to: bounded(query.get("to")),
  log: query.get("loss") === "log",
};

function bounded(text) {
  const epoch = Number.parseFloat(text ?? "");
  return Number.isFinite(epoch) && epoch >= 0 && epoch <= Number(instrument.dataset.epochs) ? epoch : null;
}

if (view.from !== null && view.to !== null && view.from >= view.to) view.from = view.to = null;

// --- Curves and lanes follow one cursor and one zoom
const lanes = new Lanes(document.getElementById("lanes"), {
  store,
  view,
  onCursor: (epoch) => {
    charts.pointAt(epoch);
    lanes.pointAt(epoch);
  },
});
const charts = new Charts([...document.querySelectorAll("[data-chart]")], {
  store,
  controlStore,
  view,
  events: () =>
    lanes.events
      .filter((event) => event.kind !== "snapshot" && !BANDS.has(event.kind))
      .map((event) => ({ x: store.position(event.at), colour: EVENT_COLOURS[event.kind] })),
  bands: () =>
    lanes.events
      .filter((event) => BANDS.has(event.kind))
      .map((event) => ({ from: store.position(event.at), to: event.until ? store.position(event.until) : Math.max(store.last, 1), colour: EVENT_COLOURS[event.kind] })),
  onCursor: (epoch) => lanes.pointAt(epoch),
  onZoom: () => {
    keepView();
    lanes.draw();
  },
});

function keepView() {
  const url = new URL(location.href);
  const isZoomed = view.from !== null || view.to !== null;
  setOrDrop(url, "from", isZoomed ? (view.from ?? 0).toFixed(1) : null);
  setOrDrop(url, "to", isZoomed ? (view.to ?? view.epochs).toFixed(1) : null);
  setOrDrop(url, "loss", view.log ? "log" : null);
  history.replaceState(null, "", url);
  resetButton.hidden = !isZoomed;
}

function setOrDrop(url, name, value) {
  if (value === null) url.searchParams.delete(name);
  else url.searchParams.set(name, value);
}

resetButton.addEventListener("click", () => charts.reset());
resetButton.hidden = view.from === null && view.to === null;
document.addEventListener("esper:theme", () => charts.build());
new ResizeObserver(() => {
  charts.resize();
  lanes.draw();
}).observe(instrument);

// --- What the worker recorded
const recorded = document.getElementById("recorded");

if (recorded) {
  const recordings = new Poller(recorded.dataset.recorded, {
    since: () => 0,
    onAnswer: (payload) => charts.record(payload.charts),
    onContact: () => {}, // how fresh the page is, the measurements tell
  });
  recordings.ask();
}

// --- New measurements
let controlPoller = null;
const freshness = { lastAt: null, contact: Date.now(), isCut: false, isMoving: false, isSilent: false, skew: 0 };

const poller = new Poller(instrument.dataset.live, {
  since: () => store.last,
  onAnswer: take,
  onContact: (ok) => {
    freshness.isCut = !ok;
    if (ok) freshness.contact = Date.now();
    showFreshness();
  },
});

function take(payload) {
  store.merge(payload.points);
  freshness.skew = Date.parse(payload.now) - Date.now();
  freshness.lastAt = payload.last_at ? Date.parse(payload.last_at) : null;
  freshness.lastEpoch = payload.last_epoch;
  freshness.isMoving = payload.state === "RUNNING";
  freshness.isSilent = payload.is_silent;
  freshness.isFinal = payload.is_final;
  view.epochs = payload.is_final && !payload.more ? Math.max(1, store.last) : Math.max(payload.epochs, store.last);
  if (!payload.more) {
    lanes.update(payload);
    charts.update();
    refreshPanels(payload.panels);
  }
  if (payload.control && !controlPoller) followControl(payload.control);
}

function followControl(id) {
  const url = instrument.dataset.liveOfControl.replace("00000000-0000-0000-0000-000000000000", id);
  controlPoller = new Poller(url, {
    since: () => controlStore.last,
    onAnswer: (payload) => {
      controlStore.merge(payload.points);
      charts.update();
    },
    onContact: () => {},
  });
  controlPoller.ask();
}

// The panels are drawn by the server; they are fetched again when their version is not the one that is shown.
function refreshPanels(version) {
  if (version === document.getElementById("run-head").dataset.panels) return;
  refresh.dispatchEvent(new CustomEvent("esper:panels"));
}

// After a command the page asks at once instead of waiting for its turn.
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig?.verb === "post") poller.ask();
});

// --- How old is what is shown
const label = document.getElementById("freshness");
const text = document.getElementById("freshness-text");

function showFreshness() {
  const age = freshness.lastAt === null ? null : Math.max(0, (Date.now() + freshness.skew - freshness.lastAt) / 1000);
  const isStale = freshness.isMoving && (freshness.isSilent || (age !== null && age > STALE_SECONDS));
  label.className = `freshness${freshness.isCut ? " is-cut" : isStale ? " is-stale" : freshness.isMoving ? " is-live" : ""}`;
  text.textContent = sentence(age, isStale);
}

function sentence(age, isStale) {
  if (freshness.isCut) {
    return `The server does not answer since ${seconds((Date.now() - freshness.contact) / 1000)}; this is what was known then. Trying again.`;
  }
  if (age === null) return "Nothing measured yet";
  const measured = `epoch ${freshness.lastEpoch} measured ${seconds(age)} ago`;
  if (isStale) return `Stale: ${measured}, nothing since`;
  return freshness.isMoving ? `Live: ${measured}` : `Last: ${measured}`;
}

function seconds(age) {
  if (age < 90) return `${Math.round(age)} s`;
  if (age < 5400) return `${Math.round(age / 60)} min`;
  if (age < 172800) return `${Math.round(age / 3600)} h`;
  return `${Math.round(age / 86400)} days`;
}

setInterval(showFreshness, 1000);
poller.ask();
