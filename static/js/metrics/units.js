// Values of metrics as people read them, by the unit of their series: the same words as apps/dashboards/units.py.

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NOTHING = "—";

function digits(value) {
  return (+value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

function bytes(value) {
  let power = 0;
  let scaled = Math.abs(value);
  while (scaled >= 1024 && power < BYTES.length - 1) {
    scaled /= 1024;
    power += 1;
  }
  return `${value < 0 ? "−" : ""}${power ? +scaled.toPrecision(3) : Math.round(scaled)} ${BYTES[power]}`;
}

function seconds(value) {
  if (value === 0) return "0 s";
  if (Math.abs(value) < 0.001) return `${digits(value * 1e6)} µs`;
  if (Math.abs(value) < 1) return `${digits(value * 1000)} ms`;
  if (Math.abs(value) < 120) return `${digits(value)} s`;
  if (Math.abs(value) < 7200) return `${digits(Math.round(value / 60))} min`;
  return `${+(value / 3600).toPrecision(3)} h`;
}

const TOLD = {
  ratio: (value) => `${+(value * 100).toPrecision(4)} %`,
  bytes,
  seconds,
  celsius: (value) => `${digits(value)} °C`,
  watts: (value) => `${digits(value)} W`,
};

export function told(value, unit, isRate = false) {
  if (value === null || value === undefined) return NOTHING;
  return (TOLD[unit] ?? digits)(value) + (isRate ? "/s" : "");
}

// The label of a tick: as short as it can be told.
export function tick(value, unit) {
  if (unit === "ratio") return `${+(value * 100).toPrecision(3)}`;
  if (TOLD[unit]) return TOLD[unit](value);
  if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (Math.abs(value) >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return digits(value);
}

export function age(elapsed) {
  if (elapsed < 90) return `${Math.round(elapsed)} s`;
  if (elapsed < 5400) return `${Math.round(elapsed / 60)} min`;
  if (elapsed < 172800) return `${Math.round(elapsed / 3600)} h`;
  return `${Math.round(elapsed / 86400)} days`;
}
