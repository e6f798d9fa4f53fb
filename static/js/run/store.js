// The measurements of one run, by epoch. Answers of the server are merged into it; charts read aligned columns from it.

export class Store {
  constructor(columns) {
    this.columns = columns;
    this.rows = new Map(); // epoch -> {column: value}
    this.last = 0;
  }

  // Takes over `points` ({column: [values]}). After a rollback the server sends epochs again; the newer rows win.
  merge(points) {
    points.epoch.forEach((epoch, index) => {
      const row = {};
      for (const column of this.columns) row[column] = points[column][index];
      this.rows.set(epoch, row);
      this.last = Math.max(this.last, epoch);
    });
    return points.epoch.length > 0;
  }

  get epochs() {
    return [...this.rows.keys()].sort((a, b) => a - b);
  }

  value(epoch, column) {
    return this.rows.get(epoch)?.[column] ?? null;
  }

  // Where (epoch, step) lies on the epoch axis: steps between two measured epochs are spread evenly.
  position([epoch, step]) {
    const steps = this.stepsPerEpoch;
    return steps ? step / steps : Math.max(0, epoch - 1);
  }

  get stepsPerEpoch() {
    const row = this.rows.get(this.last);
    return row?.step ? row.step / this.last : 0;
  }
}

// Columns over the union of the stores' epochs. A missing epoch is a row of nulls, so that no line joins over it.
export function aligned(range, sources) {
  const xs = [];
  for (let epoch = range[0]; epoch <= range[1]; epoch += 1) xs.push(epoch);
  return [xs, ...sources.map(({ store, column, factor }) => xs.map((epoch) => scaled(store.value(epoch, column), factor)))];
}

function scaled(value, factor) {
  return value === null ? null : value * factor;
}

// Evenly spaced whole numbers, about one in `gap` pixels: the ticks of every epoch axis of the page.
export function ticks(min, max, width, gap = 56) {
  const wanted = Math.max(1, width / gap);
  const raw = (max - min) / wanted;
  const magnitude = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const step = Math.max(1, [1, 2, 5, 10].map((n) => n * magnitude).find((n) => n >= raw));
  const found = [];
  for (let tick = Math.ceil(min / step) * step; tick <= max; tick += step) found.push(tick);
  return found;
}
