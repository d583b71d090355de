// The states of a lane: what they are called, and how bad they are.

export const STATES = {
  breaker_open: { name: "Breaker open", level: "bad", is: "sending failed too often in a row, and is stopped" },
  credentials: { name: "No credentials", level: "bad", is: "it waits for its credentials" },
  half_open: { name: "Trying again", level: "warn", is: "after failures in a row, one message finds out" },
  throttled: { name: "Throttled", level: "warn", is: "Meta throttles it" },
  day_limit: { name: "Quota used up", level: "warn", is: "its quota of the day is used up" },
  paused: { name: "Paused", level: "notice", is: "an operator has paused it" },
  deferring: { name: "Deferring", level: "notice", is: "it has more messages than it may send" },
  waiting: { name: "Waiting", level: "good", is: "its next message waits" },
  sending: { name: "Sending", level: "good", is: "it sends" },
  idle: { name: "Idle", level: "unknown", is: "it has nothing to send" },
};

export const TROUBLED = new Set(["breaker_open", "credentials", "half_open", "throttled", "day_limit"]);

export function stateOf(lane) {
  return STATES[lane.state] ?? { name: lane.state, level: "unknown", is: lane.state };
}

// When this worker made the overview, by its own clock: the viewer's may be wrong.
export function nowOf(overview) {
  return overview.startedAt ? Date.parse(overview.startedAt) + overview.uptime * 1000 : Date.now();
}

export function waitingOf(lane) {
  return Math.max(0, lane.active - lane.inFlight);
}

// The last error in words; Meta's title where there is one.
export function titleOf(error) {
  return error.title || error.detail || error.reason || "unknown";
}

const TROUBLES = {
  connect: "no connection",
  no_answer: "no answer in time",
  cut: "the connection broke off",
  file: "the file can't be read",
  junk: "an answer that makes no sense",
};

// What went wrong last with somebody we ask.
export function troubleOf({ detail }) {
  return TROUBLES[detail] ?? (detail ?? "").replace(/^http_/, "HTTP ");
}
