// What is chosen on the page, and what is drawn again when that changes.

const state = {
  x: "", y: "", logX: false, logY: false, filter: "", all: false, sort: null, kept: null,
  columns: new Set(content.columns.filter((column) => column.shown).map((column) => column.name)),
  hidden: { method: new Set(), run: new Set(), device: new Set() },
};
let drawn = { walk: [], front: new Set(), remarks: [] };
let cursor = -1;

const ticked = (point) => Object.entries(state.hidden).every(([name, hidden]) => !hidden.has(point[name]));

function redraw() {
  if (state.x && window.Plotly) drawn = drawChart(state, ticked);
  cursor = -1;
  document.getElementById("notes").replaceChildren(...drawn.remarks.map((text) => element("li", {}, text)));
  retable();
}

function retable() {
  drawTable(state, ticked, drawn.front, { sort: sortBy, look: (point, keep) => look([point], keep) });
}

/** The first click sorts the good end up, the second turns that round. */
function sortBy(column) {
  const first = column.better ? column.better === "higher" : false;
  state.sort = { name: column.name, down: state.sort?.name === column.name ? !state.sort.down : first };
  retable();
  document.querySelector(`#table [data-column="${CSS.escape(column.name)}"]`).focus();
}

/** Show a mark's record, unless another one is kept. keep: until it is let go. */
function look(seeds, keep) {
  if (state.kept && !keep) return;
  if (keep) state.kept = seeds;
  showRecord(seeds, Boolean(state.kept), release);
}

function release() {
  if (!state.kept) return;
  showRecord(state.kept, false, release);
  state.kept = null;
}

/** Arrow keys walk through the marks along x, as hovering does. */
function walkMarks(event) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (event.key === "Enter" && cursor >= 0) look(drawn.walk[cursor].seeds, true);
  else if (event.key === "Escape") release();
  else if (step && drawn.walk.length) {
    const count = drawn.walk.length;
    cursor = cursor < 0 ? (step > 0 ? 0 : count - 1) : (cursor + step + count) % count;
    const { curve, place, seeds } = drawn.walk[cursor];
    Plotly.Fx.hover("chart", [{ curveNumber: curve, pointNumber: place }]);
    look(seeds, false);
  } else return;
  event.preventDefault();
}

function fillAxis(letter) {
  const select = document.getElementById(letter);
  for (const group of new Set(content.columns.map((column) => column.group))) {
    const options = content.columns.filter((column) => column.group === group).map((column) =>
      element("option", { value: column.name, title: column.about }, heading(column)));
    select.append(element("optgroup", { label: group }, ...options));
  }
  select.addEventListener("change", () => choose({ [letter]: select.value }));
}

/** Put other columns on the axes; each takes the scale that the figures would give it. */
function choose(axes) {
  for (const [letter, name] of Object.entries(axes)) {
    state[letter] = name;
    state[`log${letter.toUpperCase()}`] = wide(columns.get(name));
  }
  for (const letter of ["x", "y"]) {
    document.getElementById(letter).value = state[letter];
    document.getElementById(`log-${letter}`).checked = state[`log${letter.toUpperCase()}`];
  }
  redraw();
}

/** The pair to begin with: superb_s or the first task, against parameters or the first cost. */
function firstAxes() {
  const first = (group) => content.columns.find((column) => column.group === group)?.name;
  const y = columns.has("superb_s") ? "superb_s" : first("Tasks") ?? first("Costs") ?? "rate";
  const x = columns.has("params_total") ? "params_total" : first("Costs") ?? "rate";
  return { x, y };
}

/** Whether any of it was measured; the page of failures alone says so where the chart would be. */
function measured() {
  return content.columns.some((column) => column.group !== "Compression");
}

function listen() {
  const chart = document.getElementById("chart");
  chart.on("plotly_hover", (event) => event.points[0].customdata && look(event.points[0].customdata, false));
  chart.on("plotly_click", (event) => event.points[0].customdata && look(event.points[0].customdata, true));
  chart.addEventListener("keydown", walkMarks);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function controls() {
  document.getElementById("swap").addEventListener("click", () => choose({ x: state.y, y: state.x }));
  for (const letter of ["x", "y"]) {
    document.getElementById(`log-${letter}`).addEventListener("change", (event) => {
      state[`log${letter.toUpperCase()}`] = event.target.checked;
      redraw();
    });
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    retable();
  });
  document.getElementById("more").addEventListener("click", () => {
    state.all = true;
    retable();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && release());
}

function begin() {
  drawHeader();
  drawChoices("method", "Methods");
  drawChoices("run", "Runs");
  drawChoices("device", "Measured on");
  document.getElementById("choices").open = matchMedia("(min-width: 860px)").matches;
  drawColumnChoice();
  controls();
  if (columns.has("superb_s")) state.sort = { name: "superb_s", down: true };
  for (const draw of [drawFigures, drawGaps, drawProvenance, retable]) draw();
  document.getElementById("record").replaceChildren(element("p", { className: "empty" },
    "The whole record of a point stands here while it is pointed at."));
}

begin();
document.addEventListener("DOMContentLoaded", () => {
  const chart = document.getElementById("chart");
  if (!measured()) {
    const why = `None of the ${points.length} points was measured; what failed is listed below.`;
    document.querySelector("#tradeoff .toolbar").hidden = true;
    return chart.append(element("p", { className: "empty" }, why));
  }
  fillAxis("x");
  fillAxis("y");
  choose(firstAxes());
  listen();
  performance.mark("drawn");
});
