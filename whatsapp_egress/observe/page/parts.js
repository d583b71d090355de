// The five who may be to blame, each with how it is.

import { foreign, make, mark, say } from "./dom.js";
import { nowOf, troubleOf } from "./states.js";
import { ago, count, many, milliseconds, NONE, span } from "./words.js";

const CHECKED = {
  healthy: ["good", "Well"],
  degraded: ["warn", "Ails"],
  unhealthy: ["bad", "Away"],
  unknown: ["unknown", "Not asked yet"],
};

const WELL = CHECKED.healthy;

const BACKPRESSURE = { road: "the way to Meta is shut", slow: "Meta is slow", bytes: "it holds too many bytes" };

export class Parts {
  #cards = new Map();

  constructor(list) {
    for (const [where, title] of [
      ["worker", "This worker"],
      ["broker", "RabbitMQ"],
      ["tenantService", "Tenant Service"],
      ["meta", "Meta"],
      ["tenants", "Tenants"],
    ]) {
      const word = make("p", { class: "word" });
      const facts = make("ul", { class: "facts" });
      const card = make("li", { class: "part" }, make("h3", {}, title), word, facts);
      list.append(card);
      this.#cards.set(where, { card, word, facts });
    }
  }

  show(overview, verdict) {
    const { checks } = overview;
    // What was found, the worst first; else what was seen of it.
    const worst = (where, otherwise) => {
      const found = verdict.findings.find((each) => each.where === where);
      return found ? [found.level, found.word] : otherwise;
    };
    this.#fill("worker", worst("worker", WELL), workerFacts(overview));
    this.#fill("broker", worst("broker", checked(checks.rabbitmq)), brokerFacts(overview));
    const service = checked(checks.tenantService);
    this.#fill("tenantService", worst("tenantService", service), facts(checks.tenantService, overview));
    this.#fill("meta", worst("meta", checked(checks.metaApi)), facts(checks.metaApi, overview));
    this.#fill("tenants", worst("tenants", WELL), tenantFacts(overview));
  }

  #fill(where, [level, word], lines) {
    const { card, word: place, facts: list } = this.#cards.get(where);
    mark(card, "data-level", level);
    say(place, word);
    while (list.children.length > lines.length) list.lastElementChild.remove();
    lines.forEach((line, index) => {
      const item = list.children[index] ?? list.appendChild(make("li", {}, foreign("")));
      say(item.firstElementChild, line);
    });
  }
}

function checked(check) {
  return CHECKED[check.status] ?? ["unknown", check.status];
}

function facts(check, overview) {
  const lines = [
    check.latency === null ? "no answer measured yet" : `answered in ${milliseconds(check.latency)}`,
    check.lastSeen === null ? "not asked yet" : `asked ${ago(check.lastSeen, nowOf(overview))}`,
  ];
  if (check.detail) lines.push(`last trouble: ${troubleOf(check)}`);
  return lines;
}

function brokerFacts(overview) {
  const { rabbitmq } = overview.checks;
  const lines = [
    rabbitmq.latency === null ? "no answer measured yet" : `answered in ${milliseconds(rabbitmq.latency)}`,
    rabbitmq.lastSeen === null ? "queues not seen yet" : `queues seen ${ago(rabbitmq.lastSeen, nowOf(overview))}`,
  ];
  if (rabbitmq.detail) lines.push(rabbitmq.detail);
  return lines;
}

function workerFacts({ totals, uptime, backpressure }) {
  const late = totals.loopLag < 0.001 ? "loop under 1 ms late" : `loop ${milliseconds(totals.loopLag * 1000)} late`;
  const lines = [`up ${span(uptime)}`, late];
  for (const reason of backpressure) lines.push(`takes nothing more: ${BACKPRESSURE[reason] ?? reason}`);
  return lines;
}

function tenantFacts({ lanes, totals }) {
  const paused = lanes.filter((lane) => lane.state === "paused").length;
  const busy = lanes.filter((lane) => lane.inFlight || lane.active).length;
  const lines = [
    totals.lanes ? `${many(totals.lanes, "lane", "lanes")}, ${count(busy)} with work` : "no lanes yet",
    `fairness ${totals.fairness === null ? NONE : totals.fairness.toFixed(2)} of 1`,
  ];
  if (paused) lines.push(`${count(paused)} paused`);
  return lines;
}
