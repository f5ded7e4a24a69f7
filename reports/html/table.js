// The leaderboard: one row per point, sorted by a column, filtered by words and by what is ticked.

const firstRows = 100;
const facets = ["run", "seed", "status"];

const titled = (name) => name[0].toUpperCase() + name.slice(1);

/** The columns of the table: words first, then the numbers that are ticked. */
function tableColumns(state) {
  const several = (name) => new Set(points.map((point) => point[name])).size > 1;
  const differing = facets.filter((name) => name === "status" || several(name));
  const words = ["method", ...differing].map((name) => ({ name, title: titled(name), words: name !== "seed" }));
  const numbers = content.columns.filter((column) => state.columns.has(column.name));
  const rate = numbers.filter((column) => column.name === "rate");
  const reason = points.some((point) => point.reason) ? [{ name: "reason", title: "Reason", words: true }] : [];
  return [words[0], ...rate, ...words.slice(1), ...numbers.filter((column) => column.name !== "rate"), ...reason];
}

/** All that a filter may find in a point, each word between spaces. */
function haystack(point) {
  const facts = ["run", "model", "method", "status", "reason", "device", "key"].map((name) => point[name]);
  const disturbed = point.disturbed === true ? "disturbed" : "";
  return ` ${[...facts, disturbed, `rate=${point.rate}`, `seed=${point.seed}`].join(" ")} `.toLowerCase();
}
for (const point of points) point.haystack = haystack(point);

function tableRows(state, ticked) {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = words.map((word) => (word.includes("=") ? ` ${word} ` : word));
  const rows = points.filter((point) => ticked(point) && wanted.every((word) => point.haystack.includes(word)));
  return state.sort ? rows.sort(order(state.sort)) : rows;
}

/** Sorts by a column; what has no value comes last either way. */
function order({ name, down }) {
  const sign = down ? -1 : 1;
  const absent = (value) => value === null || value === "";
  return (one, other) => {
    const [a, b] = [one[name], other[name]];
    if (absent(a) || absent(b)) return absent(a) - absent(b);
    return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
  };
}

/** Fill the table. front: the keys on the Pareto front. actions: sort(name), look(point, keep). */
function drawTable(state, ticked, front, actions) {
  const shownColumns = tableColumns(state);
  const rows = tableRows(state, ticked);
  const head = element("tr", {}, ...shownColumns.map((column) => headCell(column, state.sort, actions.sort)));
  document.querySelector("#table thead").replaceChildren(head);
  const listed = rows.slice(0, state.all ? rows.length : firstRows);
  const body = document.querySelector("#table tbody");
  body.replaceChildren(...listed.map((point, place) => row(point, place, shownColumns, front, actions)));
  const count = `${written(rows.length)} of ${written(points.length)} points`;
  document.getElementById("count").textContent =
    listed.length < rows.length ? `${count}, the first ${listed.length} shown` : count;
  document.getElementById("more").hidden = listed.length === rows.length;
}

function headCell(column, sort, onSort) {
  const sorted = sort?.name === column.name;
  const direction = sort?.down ? "descending" : "ascending";
  const mark = sorted ? (sort.down ? " ▼" : " ▲") : "";
  const button = element("button", { type: "button", title: column.about ?? "" }, column.title);
  if (column.unit) button.append(" ", element("span", { className: "unit" }, `(${column.unit})`));
  button.append(mark);
  button.dataset.column = column.name;
  button.addEventListener("click", () => onSort(column));
  const kind = column.words ? "words" : "";
  return element("th", { scope: "col", className: kind, "aria-sort": sorted ? direction : "none" }, button);
}

function row(point, place, shownColumns, front, { look }) {
  const cells = shownColumns.map((column) => cell(point, column, front));
  const made = element("tr", { tabIndex: place ? -1 : 0 }, ...cells);
  made.dataset.key = point.key;
  made.addEventListener("click", () => look(point, true));
  made.addEventListener("focus", () => look(point, false));
  made.addEventListener("keydown", (event) => walkRows(event, made, () => look(point, true)));
  return made;
}

function cell(point, column, front) {
  const value = point[column.name];
  if (column.name === "method") {
    const badges = [front.has(point) && "front", point.disturbed === true && "disturbed"].filter(Boolean);
    return element("td", {}, value, ...badges.map((text) => element("span", { className: `badge ${text}` }, text)));
  }
  if (column.name === "rate" && references.includes(point.method)) return element("td");
  if (column.words) {
    const kind = column.name === "status" ? value : column.name;
    return element("td", { className: `words ${kind}` }, value);
  }
  return element("td", {}, columns.has(column.name) ? shown(value, column) : String(value));
}

/** Arrow keys, Home and End move between rows, Enter keeps the row's record. */
function walkRows(event, made, keep) {
  const body = made.parentElement;
  const goals = { ArrowDown: made.nextElementSibling, ArrowUp: made.previousElementSibling,
    Home: body.firstElementChild, End: body.lastElementChild };
  const goal = goals[event.key];
  if (event.key === "Enter") keep();
  else if (goal) {
    made.tabIndex = -1;
    goal.tabIndex = 0;
    goal.focus();
  } else return;
  event.preventDefault();
}
