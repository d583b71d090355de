// Says in words whose trouble it is: this worker's, the broker's, the Tenant Service's, Meta's or one tenant's.

import { nowOf, STATES, stateOf, titleOf, troubleOf, TROUBLED } from "./states.js";
import { count, many, milliseconds, percent, until } from "./words.js";

const LEVELS = { bad: 3, warn: 2, notice: 1, good: 0, unknown: 0 };

const STARTING_SECONDS = 15;
const BUSY = 0.1; // seconds that the loop is late
const TOO_BUSY = 0.5;
const DEEP = 1000; // messages in the queue, as for the alert
const ERROR_RATE = 0.05; // as for the alert
const MANY_FAILED = 3;

export function judge(overview) {
  const findings = [
    ...ofBroker(overview),
    ...ofMeta(overview),
    ...ofTenantService(overview),
    ...ofWorker(overview),
    ...ofTenants(overview),
  ];
  // The order above is kept among findings that are equally bad: the broker's trouble makes others'.
  findings.sort((one, other) => LEVELS[other.level] - LEVELS[one.level]);
  const [first, ...rest] = findings.length ? findings : [allWell(overview)];
  return { ...first, also: rest.map((finding) => finding.headline), findings };
}

function allWell({ totals }) {
  const { sentLastMinute: sent, failedLastMinute: failed } = totals;
  const failures = failed ? `${many(failed, "message", "messages")} failed (${percent(totals.errorRate)})` : "none failed";
  return {
    where: "nobody",
    level: "good",
    headline: "All is well.",
    explained:
      sent + failed
        ? `In the last minute ${many(sent, "message was", "messages were")} sent, and ${failures}.`
        : "There was nothing to send in the last minute.",
  };
}

function* ofBroker({ checks, uptime }) {
  const { status } = checks.rabbitmq;
  if (status === "unhealthy" && uptime < STARTING_SECONDS) {
    yield {
      where: "broker",
      level: "notice",
      word: "Starting",
      headline: "Starting: not connected to the broker yet.",
      explained: "If it stays so, RabbitMQ is away or refuses this worker.",
    };
  } else if (status === "unhealthy") {
    yield {
      where: "broker",
      level: "bad",
      word: "Away",
      headline: "It is the broker: nothing is consumed.",
      explained:
        "RabbitMQ is away, or refuses this worker. Messages wait in its queue; this worker connects again by itself. " +
        "Look at RabbitMQ, its alarms, and the network to it.",
    };
  } else if (status === "degraded") {
    yield {
      where: "broker",
      level: "bad",
      word: "Takes nothing",
      headline: "It is the broker: nothing can be published.",
      explained:
        "Messages are consumed, but dead letters and events are not taken, and wait. Most often RabbitMQ has an alarm " +
        "of memory or disk.",
    };
  }
}

function* ofMeta(overview) {
  const { checks, roadBreaker, backpressure, totals } = overview;
  const again = until(roadBreaker.until, nowOf(overview));
  if (roadBreaker.state !== "closed") {
    yield {
      where: "meta",
      level: "bad",
      word: "Shut off",
      headline: "It is Meta, or the way to it: sending fails for all tenants.",
      explained:
        `Sending is stopped for all ${again || "until one message has got through"}; one message then finds out. ` +
        "Messages wait. See metastatus.com, and the network from here.",
    };
  } else if (checks.metaApi.status === "unhealthy") {
    yield {
      where: "meta",
      level: "bad",
      word: "Away",
      headline: "It is Meta, or the way to it: requests fail.",
      explained:
        `Last trouble: ${troubleOf(checks.metaApi) || "unknown"}. What can be tried again is tried again. ` +
        "See metastatus.com, and the network from here.",
    };
  }
  if (backpressure.includes("slow")) {
    yield {
      where: "meta",
      level: "warn",
      word: "Slow",
      headline: "Meta is slow for everybody.",
      explained:
        `At most ${many(totals.window, "request is", "requests are")} under way now, and no more is taken from the ` +
        "queue until it is better.",
    };
  }
}

function* ofTenantService({ checks, lanes }) {
  if (checks.tenantService.status !== "unhealthy") return;
  const waiting = lanes.filter((lane) => lane.state === "credentials");
  const why = troubleOf(checks.tenantService);
  yield {
    where: "tenantService",
    level: waiting.length ? "bad" : "warn",
    word: "Away",
    headline: waiting.length
      ? `It is the Tenant Service: ${named(waiting)} ${waiting.length === 1 ? "waits" : "wait"} for credentials.`
      : "The Tenant Service does not answer; nobody waits for it yet.",
    explained: `Tenants whose credentials are in the cache send on.${why ? ` Last trouble: ${why}.` : ""}`,
  };
}

function* ofWorker({ totals, backpressure, checks }) {
  if (totals.loopLag >= BUSY) {
    yield {
      where: "worker",
      level: totals.loopLag >= TOO_BUSY ? "bad" : "warn",
      word: "Too busy",
      headline: "It is us: this worker is too busy.",
      explained: `What it has to do comes ${milliseconds(totals.loopLag * 1000)} late. Give it more processor, or add workers.`,
    };
  }
  if (backpressure.includes("bytes")) {
    yield {
      where: "worker",
      level: "warn",
      word: "Full",
      headline: "It is us: this worker holds as many bytes as it may.",
      explained: "Nothing more is taken until some are sent. See HELD_MAX_BYTES, and whose messages these are.",
    };
  }
  if (totals.queueDepth >= DEEP && checks.rabbitmq.status !== "unhealthy") {
    yield {
      where: "worker",
      level: "notice",
      word: "Queue is deep",
      headline: `${count(totals.queueDepth)} messages wait in the broker's queue.`,
      explained: "More come than this worker takes. See whether it falls; if not, add workers.",
    };
  }
}

function* ofTenants(overview) {
  const { lanes, checks, roadBreaker } = overview;
  // Whose trouble is only the Tenant Service's or Meta's is not in trouble itself.
  const itself = ({ state }) =>
    !(state === "credentials" && checks.tenantService.status === "unhealthy") &&
    !((state === "breaker_open" || state === "half_open") && roadBreaker.state !== "closed");
  const troubled = lanes.filter((lane) => TROUBLED.has(lane.state) && itself(lane));
  if (troubled.length) yield trouble(troubled, overview);
  const failing = lanes.filter((lane) => !troubled.includes(lane) && fails(lane));
  if (failing.length) yield failure(failing);
  else if (!troubled.length && overview.totals.errorRate >= ERROR_RATE) yield failures(overview.totals);
  const deferring = lanes.filter((lane) => lane.state === "deferring");
  if (deferring.length) {
    yield {
      where: "tenants",
      level: "notice",
      word: `${count(deferring.length)} deferring`,
      headline: `${named(deferring)} ${deferring.length === 1 ? "has" : "have"} more messages than may be sent at once.`,
      explained: "The rest waits in deferred queues, and is sent in order.",
    };
  }
  const paused = lanes.filter((lane) => lane.state === "paused");
  if (paused.length) {
    yield {
      where: "tenants",
      level: "notice",
      word: `${count(paused.length)} paused`,
      headline: `${named(paused)} ${paused.length === 1 ? "is" : "are"} paused by an operator.`,
      explained: paused.length === 1 && paused[0].pause ? `${paused[0].pause.actor}: ${paused[0].pause.reason}` : "",
    };
  }
}

function trouble(lanes, overview) {
  const worst = lanes[0];
  const level = lanes.some((lane) => stateOf(lane).level === "bad") ? "bad" : "warn";
  if (lanes.length > 1) {
    const kinds = Object.keys(STATES)
      .map((state) => [STATES[state].name, lanes.filter((lane) => lane.state === state).length])
      .filter(([, number]) => number)
      .map(([name, number]) => `${name.toLowerCase()}: ${number}`);
    return {
      where: "tenants",
      level,
      word: `${lanes.length} in trouble`,
      headline: `It is ${lanes.length} tenants, each for itself: ${named(lanes)}.`,
      explained: `${kinds.join(", ")}. The others are not held up.`,
    };
  }
  const error = worst.lastError;
  const why = error ? ` ${titleOf(error)}${error.code === null ? "" : ` (${error.code})`}. ${error.advice}` : "";
  const end = worst.waitsFor ? until(worst.waitsFor.until, nowOf(overview)) : "";
  return {
    where: "tenants",
    level,
    word: "1 in trouble",
    headline: `It is one tenant, ${worst.tenantId}: ${stateOf(worst).is}.`,
    explained: `${end ? `It waits ${end}. ` : ""}The others are not held up.${why}`,
  };
}

function fails(lane) {
  const ended = lane.sentLastMinute + lane.failedLastMinute;
  return lane.failedLastMinute >= MANY_FAILED && lane.failedLastMinute / ended >= ERROR_RATE;
}

function failure(lanes) {
  const failed = lanes.reduce((sum, lane) => sum + lane.failedLastMinute, 0);
  const error = lanes[0].lastError;
  return {
    where: "tenants",
    level: "warn",
    word: "Messages fail",
    headline: `Messages of ${named(lanes)} fail: ${count(failed)} in the last minute.`,
    explained: error ? `The last error: ${titleOf(error)}. ${error.advice}` : "",
  };
}

// Of tenants that have no lane, or of what names no tenant.
function failures({ failedLastMinute: failed, errorRate }) {
  return {
    where: "tenants",
    level: "warn",
    word: "Messages fail",
    headline: `${many(failed, "message", "messages")} failed in the last minute: ${percent(errorRate)} of all.`,
    explained: "Why, and whose they are, is below in the latest dead letters.",
  };
}

function named(lanes) {
  const names = lanes.slice(0, 3).map((lane) => lane.tenantId);
  const left = lanes.length - names.length;
  return names.join(", ") + (left ? ` and ${left} more` : "");
}
