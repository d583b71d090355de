// Numbers, spans and times as people read them.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NONE = "–";

export function count(number) {
  return number === null || number === undefined ? NONE : grouped.format(number);
}

export function rate(number) {
  return number === null || number === undefined ? NONE : number < 100 ? fine.format(number) : grouped.format(number);
}

export function percent(part) {
  if (!part) return "0%";
  return part < 0.001 ? "under 0.1%" : `${fine.format(part * 100)}%`;
}

export function many(number, one, more) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const whole = Math.max(0, seconds);
  if (whole < 9.95) return `${fine.format(whole)} s`;
  if (whole < 100) return `${Math.round(whole)} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(minutes / 1440)} days`;
}

export function milliseconds(number) {
  if (number === null || number === undefined) return NONE;
  return number < 1000 ? `${number < 10 ? fine.format(number) : grouped.format(number)} ms` : span(number / 1000);
}

const moments = new Map();

// Milliseconds since the epoch. The same few hundred texts are read each second.
export function moment(iso) {
  let known = moments.get(iso);
  if (known === undefined) {
    if (moments.size > 5000) moments.clear();
    known = Date.parse(iso);
    moments.set(iso, known);
  }
  return known;
}

export function clock(time) {
  return new Date(time).toISOString().slice(11, 19);
}

// With the day where that is another one than now's.
export function at(iso, now) {
  if (!iso) return NONE;
  const text = new Date(moment(iso)).toISOString();
  const day = text.slice(0, 10) === new Date(now).toISOString().slice(0, 10) ? "" : `${text.slice(5, 10)} `;
  return day + text.slice(11, 19);
}

export function ago(iso, now) {
  if (!iso) return "never";
  const seconds = (now - moment(iso)) / 1000;
  return seconds < 1.5 ? "just now" : `${span(Math.round(seconds))} ago`;
}

// Of a time that comes; nothing for one that is here before it can be read.
export function until(iso, now) {
  if (!iso) return "";
  const seconds = (moment(iso) - now) / 1000;
  if (seconds < 0.5) return "";
  return `until ${at(iso, now)}, in ${span(Math.ceil(seconds))}`;
}

export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
