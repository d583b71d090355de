// The sums over all tenants.

import { make, mark, say } from "./dom.js";
import { count, many, milliseconds, percent, span } from "./words.js";

// Title, value and a note, and whether it is to stand out.
const FIGURES = [
  ["Sent", (t) => count(t.sentLastMinute), () => "last minute"],
  [
    "Failed",
    (t) => count(t.failedLastMinute),
    (t) => `last minute, ${percent(t.errorRate)} of all`,
    (t) => (t.errorRate >= 0.05 ? "bad" : ""),
  ],
  ["In flight", (t) => count(t.inFlight), (t) => `requests to Meta, of ${count(t.window)}`],
  ["Waiting", (t) => count(Math.max(0, t.active - t.inFlight)), () => "messages in hand"],
  ["Deferred", (t) => count(t.deferred), () => "in tenants' own queues"],
  [
    "In the queue",
    (t) => count(t.queueDepth),
    (_, away) => (away ? "when last seen" : "not taken yet"),
    (t) => (t.queueDepth >= 1000 ? "warn" : ""),
  ],
  ["Dead letters", (t) => count(t.deadLetterDepth), (_, away) => (away ? "when last seen" : "in outbound-failed")],
  ["Oldest", (t) => span(t.oldestSeconds), () => "message that waits", (t) => (t.oldestSeconds >= 600 ? "warn" : "")],
  ["Fairness", (t) => t.fairness.toFixed(2), () => "1 is even (Jain)"],
  [
    "Loop lag",
    (t) => milliseconds(t.loopLag * 1000),
    (t) => `${many(Math.round(t.heldBytes / 1024), "KiB", "KiB")} held`,
    (t) => (t.loopLag >= 0.1 ? "warn" : ""),
  ],
];

export class Totals {
  #figures = [];

  constructor(list) {
    for (const [title] of FIGURES) {
      const value = make("span", { class: "value" });
      const note = make("span", { class: "soft" });
      const figure = make("div", { class: "figure" }, make("dt", {}, title), make("dd", {}, value, note));
      list.append(figure);
      this.#figures.push({ figure, value, note });
    }
  }

  show({ totals, checks }) {
    const away = checks.rabbitmq.status === "unhealthy"; // the depths are then old
    FIGURES.forEach(([, value, note, level], index) => {
      const figure = this.#figures[index];
      say(figure.value, value(totals));
      say(figure.note, note(totals, away));
      mark(figure.figure, "data-level", level ? level(totals) : "");
    });
  }
}
