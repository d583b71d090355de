// Elements are made here and nowhere else, and what they say is set as text: tenants' ids and error details come
// from outside.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Writes only what changed, so that a selection or a screen reader is not disturbed once a second.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Text from outside, kept from turning the direction of what is around it.
export function foreign(text, attributes = {}) {
  return make("bdi", attributes, text);
}

// A table that is one of cards on a narrow screen. The roles say what CSS makes a browser forget.
export function makeTable(label, columns) {
  const head = make("tr", { role: "row" });
  for (const column of columns) {
    head.append(make("th", { role: "columnheader", scope: "col", class: column.kind ?? "" }, column.title));
  }
  const body = make("tbody", { role: "rowgroup" });
  const table = make(
    "table",
    { role: "table", class: "cards", "aria-label": label },
    make("thead", { role: "rowgroup" }, head),
    body,
  );
  return { table, body };
}

export function makeCell(column, ...children) {
  return make("td", { role: "cell", class: column.kind ?? "", "data-label": column.title }, ...children);
}
