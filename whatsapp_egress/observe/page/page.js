// Puts the page together and shows on it what the stream tells.

import { foreign, make, mark, say } from "./dom.js";
import { Lanes } from "./lanes.js";
import { Letters } from "./letters.js";
import { Parts } from "./parts.js";
import { Plots } from "./plots.js";
import { Stream } from "./stream.js";
import { Totals } from "./totals.js";
import { judge } from "./verdict.js";
import { clock, span } from "./words.js";

const place = (id) => document.getElementById(id);
const SIGNS = { bad: "✖ ", warn: "▲ ", notice: "● ", good: "", unknown: "" };

const parts = new Parts(place("parts"));
const totals = new Totals(place("totals"));
const plots = new Plots(place("plots"));
const lanes = new Lanes({
  place: place("lanes"),
  filter: place("filter"),
  shown: place("shown"),
  leftOut: place("left-out"),
});
const letters = new Letters(place("letters"));

const began = Date.now();
let verdict = null;
let lastHeard = null;
let brokenSince = null;

function showVerdict({ level, headline, explained, also }) {
  mark(place("verdict"), "data-level", level);
  say(place("headline"), headline);
  say(place("explained"), explained);
  const list = place("also");
  while (list.children.length > also.length) list.lastElementChild.remove();
  also.forEach((text, index) => {
    const item = list.children[index] ?? list.appendChild(make("li", {}, foreign("")));
    say(item.firstElementChild, text);
  });
  const title = `${SIGNS[level]}${headline}`;
  if (document.title !== title) document.title = title;
}

// What was is not what is: the last verdict must not be read as one on now.
function showBroken() {
  const since = lastHeard ?? began;
  const before = verdict ? [`Before that: ${verdict.headline}`] : [];
  const old = verdict ? " The figures below are old." : "";
  showVerdict({
    level: "unknown",
    headline: "This page is not connected to the worker.",
    explained:
      `Not connected since ${clock(since)} UTC, for ${span(Math.round((Date.now() - since) / 1000))}.${old} It tries ` +
      "again by itself. If it stays so, the worker is down or can't be reached from here, or too many look already.",
    also: before,
  });
}

new Stream({
  overview(overview) {
    lastHeard = Date.now();
    verdict = judge(overview);
    say(place("version"), overview.version);
    showVerdict(verdict);
    parts.show(overview, verdict);
    totals.show(overview);
    lanes.show(overview);
    letters.show(overview);
  },
  series(series) {
    plots.show(series);
  },
  connected() {
    brokenSince = null;
    mark(document.body, "data-stream", "live");
    say(place("connection"), "Live");
  },
  broken() {
    brokenSince ??= Date.now();
    mark(document.body, "data-stream", "broken");
    const since = `Not connected since ${clock(lastHeard ?? began)} UTC`;
    say(place("connection"), verdict ? `${since}; the figures are old` : since);
    showBroken();
  },
});

setInterval(() => brokenSince !== null && showBroken(), 1000);
