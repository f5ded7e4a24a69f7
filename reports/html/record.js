"use strict";
// The content, how its numbers are written, and the panel with the whole record of a point.

const content = JSON.parse(document.getElementById("content").textContent);
const columns = new Map(content.columns.map((column) => [column.name, column]));
const points = content.points.map((values) =>
  Object.fromEntries(content.fields.map((field, place) => [field, values[place]])));
const references = ["dense", "fbank", "random-init"];

/** An element with properties and children; text is never read as HTML. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A plain number as people read it: four digits, or all those before the point. */
function written(value) {
  if (value === null || value === undefined) return "";
  const whole = Math.abs(value) >= 1000;
  const digits = whole ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 };
  return value.toLocaleString("en", digits);
}

/** A value of a column, in the column's unit. */
function shown(value, column) {
  return value === null ? "" : written(value / column.divisor);
}

function heading(column) {
  return column.unit ? `${column.title} (${column.unit})` : column.title;
}

/** `low-rank at 0.5`; a reference has no rate. */
function named(point) {
  return references.includes(point.method) ? point.method : `${point.method} at ${point.rate}`;
}

/** A fact as text; what is unknown or not so is not told. */
function fact(value) {
  if (value === true) return "yes";
  return value === null || value === false || value === "" ? "" : String(value);
}

/** Show the points of one mark, which are the seeds of a method and rate. */
function showRecord(seeds, kept, release) {
  const panel = document.getElementById("record");
  panel.replaceChildren(element("h3", {}, named(seeds[0])));
  if (kept) {
    const button = element("button", { type: "button" }, "Kept: let go");
    button.addEventListener("click", release);
    panel.append(element("p", {}, button));
  }
  panel.append(facts(seeds));
  for (const group of new Set(content.columns.map((column) => column.group))) {
    const rows = content.columns.filter((column) =>
      column.group === group && seeds.some((point) => point[column.name] !== null));
    if (rows.length) panel.append(numbers(group, rows, seeds));
  }
}

function facts(seeds) {
  const list = element("dl");
  for (const name of content.fields) {
    if (columns.has(name) || name === "method") continue;
    const told = [...new Set(seeds.map((point) => fact(point[name])))].filter(Boolean);
    if (told.length) list.append(element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, told.join(", ")));
  }
  return list;
}

/** One group of columns: a value, or the mean and each seed's. */
function numbers(group, rows, seeds) {
  const several = seeds.length > 1;
  const headings = [group, ...(several ? ["mean", ...seeds.map((point) => `seed ${point.seed}`)] : [""])];
  const body = rows.map((column) => {
    const values = seeds.map((point) => point[column.name]);
    const cells = (several ? [mean(values), ...values] : values).map((value) =>
      element("td", {}, shown(value, column)));
    return element("tr", { title: `${column.name}: ${column.about}` }, element("td", {}, heading(column)), ...cells);
  });
  return element("table", {},
    element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...body));
}

/** The mean of what is known, null of nothing. */
function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
