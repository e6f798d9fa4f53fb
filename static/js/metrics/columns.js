// Curves of the server as the columns that uPlot draws: one axis of time, and nothing joined over a gap.

const MISSED = 2.5; // readings that are missing before a line breaks

// [times, mean, least, greatest, mean, ...], and whether each curve has a band.
export function columns(curves) {
  const broken = curves.map((curve) => new Set(gaps(curve)));
  const moments = new Set(curves.flatMap((curve, index) => [...curve.times, ...broken[index]]));
  const times = [...moments].sort((a, b) => a - b);
  const place = new Map(times.map((at, index) => [at, index]));
  const data = [times];
  curves.forEach((curve, index) => {
    for (const values of [curve.mean, curve.least, curve.greatest]) {
      const column = new Array(times.length).fill(undefined); // undefined: this curve has no point here, the line goes on
      for (const at of broken[index]) column[place.get(at)] = null;
      curve.times.forEach((at, point) => (column[place.get(at)] = values[point]));
      data.push(column);
    }
  });
  return data;
}

export function hasBand(curve) {
  return curve.step > 0 && !curve.is_rate;
}

// Moments right after which a curve has nothing for longer than it should.
function gaps({ times, step }) {
  const steps = times.slice(1).map((at, index) => at - times[index]);
  const usual = step || [...steps].sort((a, b) => a - b)[Math.floor(steps.length / 2)];
  return steps.flatMap((long, index) => (long > MISSED * usual ? [times[index] + usual / 2] : []));
}

// The least and greatest value that is drawn, with what else must be seen.
export function extent(curves, besides) {
  const values = curves.flatMap((curve) => (hasBand(curve) ? [...curve.least, ...curve.greatest] : curve.mean));
  const known = [...values, ...besides].filter((value) => value !== null && Number.isFinite(value));
  return known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

// Where the axis of values ends: shares from 0 to 1, unless there is a threshold to look at closely.
export function scale([low, high], { isShare, isClose }) {
  const isBounded = isShare && low >= 0 && high <= 1;
  if (isBounded && !isClose) return [0, 1];
  const span = high - low || Math.abs(high) || 1;
  if (low === 0 && high === 0) return [0, 1];
  if (low >= 0 && low < 0.6 * high) return [0, isBounded ? Math.min(1, high + span * 0.12) : high + span * 0.12];
  const ends = [low < 0 ? low - span * 0.15 : Math.max(0, low - span * 0.15), high + span * 0.15];
  return isBounded ? [ends[0], Math.min(1, ends[1])] : ends;
}
