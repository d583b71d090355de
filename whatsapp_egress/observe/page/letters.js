// The latest dead letters.

import { foreign, make, makeCell, makeTable, mark, say } from "./dom.js";
import { nowOf } from "./states.js";
import { ago, at, count, NONE } from "./words.js";

const COLUMNS = [
  { title: "When", kind: "when" },
  { title: "Tenant", kind: "tenant" },
  { title: "Message", kind: "id" },
  { title: "Reason" },
  { title: "Code", kind: "number" },
  { title: "What happened", kind: "wide error" },
  { title: "What to do", kind: "wide why" },
  { title: "Attempts", kind: "number" },
];

export class Letters {
  #table;
  #body;

  constructor(place) {
    const { table, body } = makeTable("Latest dead letters", COLUMNS);
    this.#table = table;
    this.#body = body;
    place.append(table);
  }

  show(overview) {
    const now = nowOf(overview);
    const letters = overview.deadLetters;
    const rows = this.#body.rows;
    while (rows.length > letters.length) this.#body.lastElementChild.remove();
    letters.forEach((letter, index) => fill(rows[index] ?? this.#body.appendChild(makeRow()), letter, now));
    mark(this.#table, "data-empty", letters.length ? "" : "None since this worker started.");
  }
}

function makeRow() {
  const cells = COLUMNS.map((column) => makeCell(column));
  for (const cell of [cells[0], cells[5]]) cell.append(foreign("", { class: "first" }), foreign("", { class: "soft" }));
  for (const cell of [cells[1], cells[2], cells[6]]) cell.append(foreign(""));
  return make("tr", { role: "row" }, ...cells);
}

function fill(row, letter, now) {
  const [when, tenant, message, reason, code, title, advice, attempts] = row.cells;
  say(when.firstElementChild, at(letter.at, now));
  say(when.lastElementChild, ago(letter.at, now));
  say(tenant.firstElementChild, letter.tenantId ?? NONE);
  say(message.firstElementChild, letter.internalId ?? NONE);
  say(reason, letter.reason.replaceAll("_", " "));
  say(code, letter.code === null ? NONE : String(letter.code));
  say(title.firstElementChild, letter.title || letter.detail);
  say(title.lastElementChild, letter.title ? letter.detail : "");
  say(advice.firstElementChild, letter.advice);
  say(attempts, count(letter.attempts));
}
