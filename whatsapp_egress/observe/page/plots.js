// The last quarter of an hour, drawn by uPlot.

import { make, mark, say } from "./dom.js";
import { clock, milliseconds, rate } from "./words.js";

/* global uPlot */

const HEIGHT = 170;

const perSecond = (value) => `${rate(value)}/s`;

const PLOTS = [
  { title: "Sent", unit: perSecond, perStep: true, series: [["sent", "sent", "--good"]], filled: true },
  {
    title: "Not sent",
    unit: perSecond,
    perStep: true,
    series: [
      ["failed", "failed", "--bad"],
      ["retried", "tried again", "--warn", [6, 3]],
      ["throttled", "throttled", "--notice", [2, 3]],
    ],
  },
  {
    title: "From taken to accepted by Meta",
    unit: milliseconds,
    series: [
      ["p50Ms", "half within", "--good"],
      ["p95Ms", "95% within", "--notice", [6, 3]],
    ],
  },
];

// A value between two gaps makes no line, and is drawn as a point.
function lone(plot, series) {
  const values = plot.data[series];
  const gap = (index) => (values[index] ?? null) === null;
  return [...values.keys()].filter((index) => !gap(index) && gap(index - 1) && gap(index + 1));
}

export class Plots {
  #plots;
  #last = null;

  constructor(place) {
    this.#plots = PLOTS.map((plot) => new Plot(place, plot));
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.#plots.forEach((plot) => plot.draw(this.#last)));
    new ResizeObserver(() => this.#plots.forEach((plot) => plot.fit())).observe(place);
  }

  show(series) {
    this.#last = series;
    for (const plot of this.#plots) plot.show(series);
  }
}

class Plot {
  #plot;
  #canvas;
  #values = [];
  #when;
  #drawn = null;
  #data = null;

  constructor(place, plot) {
    this.#plot = plot;
    this.#canvas = make("div", { class: "canvas", role: "img" });
    this.#when = make("span", { class: "soft" });
    const legend = make("ul", { class: "legend" });
    for (const [, name, , dash] of plot.series) {
      const value = make("b", {}, "–");
      const line = make("span", { class: "line", "data-dash": dash ? String(dash[0]) : "", "aria-hidden": "true" });
      legend.append(make("li", {}, line, `${name} `, value));
      this.#values.push({ value, line });
    }
    plot.series.forEach(([, , color], index) => mark(this.#values[index].line, "data-color", color.slice(2)));
    place.append(
      make("figure", {}, make("figcaption", {}, make("h3", {}, plot.title), this.#when), this.#canvas, legend),
    );
  }

  show(series) {
    this.#data = this.#columns(series);
    if (this.#drawn) this.#drawn.setData(this.#data);
    else this.draw(series);
    this.#tell(null);
    this.#describe();
  }

  draw(series) {
    if (!series) return;
    this.#drawn?.destroy();
    this.#drawn = new uPlot(this.#options(), this.#columns(series), this.#canvas);
  }

  fit() {
    this.#drawn?.setSize({ width: this.#canvas.clientWidth, height: HEIGHT });
  }

  // The last step is still going on: it would look like a fall.
  #columns({ step, until, ...series }) {
    const length = series.sent.length - 1;
    const times = Array.from({ length }, (_, index) => until - (length - index) * step);
    const scale = this.#plot.perStep ? (value) => value / step : (value) => value;
    const columns = this.#plot.series.map(([name]) =>
      series[name].slice(0, length).map((value) => (value === null ? null : scale(value))),
    );
    return [times, ...columns];
  }

  #options() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    axis.font = "12px system-ui, sans-serif";
    const { unit, series, filled } = this.#plot;
    return {
      width: this.#canvas.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.08] } },
      axes: [
        { ...axis, values: (_, times) => times.map((time) => clock(Math.round(time) * 1000).slice(0, 5)), space: 60, size: 28, incrs: [60, 120, 300, 600] },
        { ...axis, values: (_, values) => values.map(unit), size: 64, space: 34 },
      ],
      series: [
        {},
        ...series.map(([, , name, dash]) => ({
          stroke: color(name),
          width: 1.6,
          dash,
          fill: filled ? `${color(name)}22` : undefined,
          points: { show: false, size: 4, fill: color(name), filter: lone },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#tell(plot.cursor.idx ?? null)] },
    };
  }

  // At the cursor, else the newest.
  #tell(index) {
    const [times, ...columns] = this.#data;
    const place = index ?? times.length - 1;
    say(this.#when, index === null ? "newest" : clock(times[place] * 1000));
    columns.forEach((column, number) => {
      const value = column[place];
      say(this.#values[number].value, value === null || value === undefined ? "–" : this.#plot.unit(value));
    });
  }

  #describe() {
    const [times, ...columns] = this.#data;
    const parts = this.#plot.series.map(([, name], number) => {
      const column = columns[number];
      const highest = column.reduce((best, value, index) => (value > (column[best] ?? -1) ? index : best), 0);
      const newest = column.at(-1);
      if (column[highest] === null) return `${name}: nothing`;
      const now = newest === null ? "nothing now" : `${this.#plot.unit(newest)} now`;
      return `${name}: ${now}, at most ${this.#plot.unit(column[highest])} at ${clock(times[highest] * 1000)}`;
    });
    mark(this.#canvas, "aria-label", `${this.#plot.title}, last 15 minutes. ${parts.join(". ")}.`);
  }
}
