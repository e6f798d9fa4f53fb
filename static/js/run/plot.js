// What the charts of one run and those of several have in common.

export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const RANGES = {
  accuracy: (min, max) => [Math.max(0, min - padding(min, max)), Math.min(100, max + padding(min, max))],
  loss: (min, max) => [0, max * 1.06],
  parameters: (min, max) => [0, max * 1.15],
  flops: (min, max) => [0, max * 1.15],
};

function padding(min, max) {
  return Math.max((max - min) * 0.08, 0.5);
}

// The look of an axis; `size` and what it says are the chart's own.
export function axis() {
  return {
    stroke: token("--muted"),
    grid: { stroke: token("--grid"), width: 1 },
    ticks: { stroke: token("--grid"), width: 1, size: 4 },
    font: "11px " + token("--font"),
    labelFont: "11px " + token("--font"),
  };
}

export function compact(value) {
  if (value === null) return "";
  if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (Math.abs(value) >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return (+value.toPrecision(4)).toLocaleString("en");
}

// A value as a legend says it, in its unit.
export function told(value, { factor, digits, unit }) {
  if (value === null || value === undefined) return "—";
  const text = (value * factor).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return unit ? `${text} ${unit}` : text;
}
