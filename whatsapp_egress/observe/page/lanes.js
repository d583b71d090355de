// The lanes as a table whose rows live on from one overview to the next, so that focus and what is open stay.

import { foreign, make, makeCell, makeTable, mark, say } from "./dom.js";
import { fillDetails } from "./lane_details.js";
import { nowOf, stateOf, titleOf, waitingOf } from "./states.js";
import { ago, count, many, rate, sentence, span, until } from "./words.js";

const COLUMNS = [
  { title: "Tenant", kind: "wide tenant" },
  { title: "State", kind: "state" },
  { title: "Why it waits", kind: "wide why" },
  { title: "Rate", kind: "number" },
  { title: "In flight", kind: "number" },
  { title: "Waiting", kind: "number" },
  { title: "Deferred", kind: "number" },
  { title: "Oldest", kind: "number" },
  { title: "Last minute", kind: "number minute" },
  { title: "Last error", kind: "wide error" },
];

const SORT_EVERY = 5000; // ms: rows that jump each second can't be read
const HELD = 10_000; // ms after the last touch: nothing moves under a pointer or the keyboard

export class Lanes {
  #table;
  #body;
  #shown;
  #leftOut;
  #filter;
  #rows = new Map();
  #made = 0;
  #sortedAt = -Infinity;
  #touchedAt = -Infinity;
  #overview = null;

  constructor({ place, filter, shown, leftOut }) {
    const { table, body } = makeTable("Lanes", COLUMNS);
    this.#table = table;
    this.#body = body;
    this.#filter = filter;
    this.#shown = shown;
    this.#leftOut = leftOut;
    place.append(table);
    filter.addEventListener("input", () => this.#sift());
    for (const touch of ["pointermove", "pointerdown", "keydown", "focusin"]) {
      body.addEventListener(touch, () => (this.#touchedAt = performance.now()));
    }
  }

  show(overview) {
    this.#overview = overview;
    const lanes = new Map(overview.lanes.map((lane) => [lane.tenantId, lane]));
    for (const [tenantId, row] of this.#rows) {
      if (!lanes.has(tenantId)) {
        row.main.remove();
        row.details.remove();
        this.#rows.delete(tenantId);
      }
    }
    const fresh = overview.lanes.filter((lane) => !this.#rows.has(lane.tenantId));
    for (const lane of fresh) this.#rows.set(lane.tenantId, this.#row(lane));
    const now = nowOf(overview);
    for (const lane of overview.lanes) fill(this.#rows.get(lane.tenantId), lane, now);
    this.#sort(overview.lanes, fresh);
    this.#sift();
    const left = overview.lanesLeftOut;
    say(this.#leftOut, left ? `${many(left, "lane", "lanes")} in less trouble not shown.` : "");
  }

  // While the order is held, lanes that are new come last.
  #sort(lanes, fresh) {
    const now = performance.now();
    if (now - this.#touchedAt < HELD) {
      this.#body.append(...fresh.flatMap((lane) => this.#both(lane)));
    } else if (fresh.length || now - this.#sortedAt >= SORT_EVERY) {
      this.#sortedAt = now;
      this.#arrange(lanes);
    }
  }

  #arrange(lanes) {
    const focused = document.activeElement;
    let place = this.#body.firstElementChild;
    for (const element of lanes.flatMap((lane) => this.#both(lane))) {
      if (element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(element, place);
    }
    // An element that is moved loses the focus.
    if (focused !== document.activeElement) focused.focus({ preventScroll: true });
  }

  #both(lane) {
    const { main, details } = this.#rows.get(lane.tenantId);
    return [main, details];
  }

  #row(lane) {
    const id = `lane-${(this.#made += 1)}`;
    const button = make(
      "button",
      { type: "button", class: "opener", "aria-expanded": "false", "aria-controls": id },
      make("span", { class: "arrow", "aria-hidden": "true" }),
      foreign(lane.tenantId),
    );
    const cells = COLUMNS.map((column) => makeCell(column));
    cells[0].append(button);
    cells[1].append(make("span", { class: "badge" }));
    for (const cell of [cells[2], cells[3], cells[8], cells[9]]) cell.append(foreign("", { class: "first" }), foreign("", { class: "soft" }));
    const main = make("tr", { role: "row", class: "lane" }, ...cells);
    const inside = make("td", { role: "cell", colspan: String(COLUMNS.length), class: "inside" });
    const details = make("tr", { role: "row", class: "details", id, hidden: "" }, inside);
    const row = { main, details, cells, inside, open: false, lane };
    button.addEventListener("click", () => {
      row.open = !row.open;
      mark(button, "aria-expanded", String(row.open));
      details.hidden = !row.open;
      if (row.open) fillDetails(inside, row.lane, nowOf(this.#overview));
    });
    return row;
  }

  #sift() {
    const wanted = this.#filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of this.#rows.values()) {
      const fits = !wanted || textOf(row.lane).includes(wanted);
      shown += fits;
      row.main.hidden = !fits;
      row.details.hidden = !fits || !row.open;
    }
    const all = this.#rows.size;
    say(this.#shown, wanted ? `${count(shown)} of ${many(all, "lane", "lanes")}` : "");
    mark(this.#table, "data-empty", all === 0 ? "No lanes: no messages have come yet." : shown ? "" : "No lane fits the filter.");
  }
}

function textOf(lane) {
  const error = lane.lastError;
  const words = [lane.tenantId, stateOf(lane).name, lane.state, lane.waitsFor?.inWords, lane.pause?.reason, lane.pause?.actor];
  if (error) words.push(error.title, error.detail, error.reason, error.code);
  words.push(...lane.numbers.map((number) => number.phoneNumberId));
  return words.join("\n").toLowerCase();
}

function fill(row, lane, now) {
  const [, state, why, pace, inFlight, waiting, deferred, oldest, minute, failure] = row.cells;
  row.lane = lane;
  mark(row.main, "data-state", lane.state);
  mark(state.firstElementChild, "data-level", stateOf(lane).level);
  say(state.firstElementChild, stateOf(lane).name);
  const [reason, more] = whyOf(lane, now);
  say(why.firstElementChild, reason);
  say(why.lastElementChild, more);
  say(pace.firstElementChild, `${rate(lane.rate)}/s`);
  say(pace.lastElementChild, lane.rate < lane.limit ? `of ${rate(lane.limit)}/s` : "");
  say(inFlight, count(lane.inFlight));
  say(waiting, count(waitingOf(lane)));
  say(deferred, count(lane.deferred));
  say(oldest, span(lane.oldestSeconds));
  say(minute.firstElementChild, `${count(lane.sentLastMinute)} sent`);
  say(minute.lastElementChild, lane.failedLastMinute ? `${count(lane.failedLastMinute)} failed` : "");
  mark(minute.lastElementChild, "data-level", lane.failedLastMinute ? "bad" : "");
  say(failure.firstElementChild, lane.lastError ? errorOf(lane.lastError, now) : "");
  say(failure.lastElementChild, lane.lastError?.advice ?? "");
  if (row.open) fillDetails(row.inside, lane, now);
}

function whyOf(lane, now) {
  if (lane.pause) {
    const end = until(lane.pause.until, now) || "until it is resumed";
    return [`Paused by ${lane.pause.actor}: ${lane.pause.reason}`, sentence(end)];
  }
  if (!lane.waitsFor) return ["", ""];
  return [sentence(lane.waitsFor.inWords), sentence(until(lane.waitsFor.until, now))];
}

function errorOf(error, now) {
  const code = error.code === null ? "" : ` (${error.code})`;
  return `${titleOf(error)}${code}, ${ago(error.at, now)}`;
}
