// Every chart of stored metrics on a page: one zoom and one cursor for all, redrawn with the theme and the window.

import { MetricChart } from "./chart.js";

const charts = [...document.querySelectorAll("[data-metrics]")].map((figure) => new MetricChart(figure, { onZoom: spread }));
const reset = document.getElementById("reset-zoom");

function spread(source, min, max) {
  for (const chart of charts) chart.zoomTo(min, max);
  if (reset) reset.hidden = min === null;
}

reset?.addEventListener("click", () => spread(null, null, null));
document.addEventListener("esper:theme", () => charts.forEach((chart) => chart.build()));
const resizing = new ResizeObserver(() => charts.forEach((chart) => chart.resize()));
for (const chart of charts) {
  resizing.observe(chart.box);
  chart.ask();
}
setInterval(() => charts.forEach((chart) => chart.showAge()), 1000);
