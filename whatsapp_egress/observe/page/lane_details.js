// What a lane shows when it is opened: breaker, pause, the last error in full, and its phone numbers.

import { foreign, make, makeCell, makeTable, mark, say } from "./dom.js";
import { ago, at, count, many, NONE, rate, until } from "./words.js";

const COLUMNS = [
  { title: "Phone number id", kind: "wide" },
  { title: "In flight", kind: "number" },
  { title: "In hand", kind: "number" },
  { title: "Rate", kind: "number" },
  { title: "May send at once", kind: "number" },
  { title: "Throttled" },
];

const FACTS = [
  ["Breaker", breaker],
  ["Pause", pause],
  ["Last error", lastError],
  ["Meta's advice", (lane) => lane.lastError?.advice || NONE],
];

const BREAKERS = { closed: "closed", open: "open", half_open: "half open: one message finds out" };

export function fillDetails(place, lane, now) {
  if (!place.firstElementChild) build(place, lane.tenantId);
  const [list, table] = place.children;
  FACTS.forEach(([, text], index) => say(list.children[index].lastElementChild.firstElementChild, text(lane, now)));
  const body = table.tBodies[0];
  while (body.rows.length > lane.numbers.length) body.lastElementChild.remove();
  lane.numbers.forEach((number, index) => {
    const row = body.rows[index] ?? body.appendChild(makeRow());
    const [id, inFlight, active, pace, tokens, throttled] = row.cells;
    say(id.firstElementChild, number.phoneNumberId);
    say(inFlight, count(number.inFlight));
    say(active, count(number.active));
    say(pace, `${rate(number.rate)}/s`);
    say(tokens, `${rate(number.tokens)} of ${rate(number.burst)}`);
    say(throttled, until(number.throttledUntil, now) || "no");
    mark(throttled, "data-level", until(number.throttledUntil, now) ? "warn" : "");
  });
  table.hidden = lane.numbers.length === 0;
}

function build(place, tenantId) {
  const list = make("dl", { class: "details-list" });
  for (const [title] of FACTS) {
    list.append(make("div", {}, make("dt", {}, title), make("dd", {}, foreign(""))));
  }
  place.append(list, makeTable(`Phone numbers of ${tenantId}`, COLUMNS).table);
}

function makeRow() {
  const cells = COLUMNS.map((column) => makeCell(column));
  cells[0].append(foreign(""));
  return make("tr", { role: "row" }, ...cells);
}

function breaker({ breaker: { state, failures, until: end } }, now) {
  const again = until(end, now);
  const counted = failures ? `, ${many(failures, "failure", "failures")} in a row` : "";
  return `${BREAKERS[state] ?? state}${counted}${again ? `, ${again}` : ""}`;
}

function pause({ pause: paused }, now) {
  if (!paused) return "none";
  const end = paused.until ? until(paused.until, now) : "until it is resumed";
  return `by ${paused.actor} since ${at(paused.since, now)}, ${end}: ${paused.reason}`;
}

function lastError({ lastError: error }, now) {
  if (!error) return "none";
  const code = error.code === null ? "" : `code ${error.code}${error.subcode ? `/${error.subcode}` : ""}, `;
  const became = error.reason ? `, dead-lettered as ${error.reason}` : "";
  return `${at(error.at, now)} (${ago(error.at, now)}), ${code}${error.title ? `${error.title}: ` : ""}${error.detail}${became}`;
}
