// The chart: seeds become marks, marks become curves and the Pareto front, as in results/curves.py.

const dashes = ["solid", "dash", "dot", "dashdot"];
const level = (method) => method === "fbank" || method === "random-init";
const looks = new Map(content.looks.map((look) => [`${look.run}\n${look.method}`, look]));

/** What points must agree in to lie on one line of these axes: `device`, `grade`, both or neither. */
const apart = (x, y) => [...new Set([x.apart, y.apart])].filter(Boolean);

/** The different values of a fact, as far as it is known. */
const values = (some, name) => [...new Set(some.map((point) => point[name]))].filter(Boolean);

const mixed = new Set(["device", "grade"].filter((name) => values(points, name).length > 1));

/** One mark per run, model, method and rate: the mean and the range of its seeds on both axes.
 *
 * What lacks a number on an axis is left out; FBANK and the random encoder need only one.
 */
function gather(chosen, x, y) {
  const groups = new Map();
  for (const point of chosen) {
    const known = [x, y].filter((column) => point[column.name] !== null).length;
    if (known < (level(point.method) ? 1 : 2)) continue;
    const kinds = apart(x, y).filter((name) => mixed.has(name)).map((name) => point[name]);
    const kind = kinds.filter(Boolean).join("; ");
    const key = [point.run, point.model, point.method, point.rate, kind].join("\n");
    if (!groups.has(key)) groups.set(key, { ...point, kind, seeds: [] });
    groups.get(key).seeds.push(point);
  }
  return [...groups.values()].map((mark) => ({ ...mark, x: range(mark, x), y: range(mark, y) }));
}

/** Mean, lowest and highest value of a mark's seeds, in the column's unit. */
function range(mark, column) {
  const known = mark.seeds.map((point) => point[column.name]).filter((value) => value !== null);
  if (!known.length) return null;
  const scaled = [mean(known), Math.min(...known), Math.max(...known)].map((value) => value / column.divisor);
  return { mean: scaled[0], low: scaled[1], high: scaled[2] };
}

/** The marks that no other beats on both axes, the cheapest first; one front for each kind. */
function fronts(marks, x, y) {
  const [costSign, scoreSign] = [x.better === "higher" ? -1 : 1, y.better === "higher" ? 1 : -1];
  const competing = marks.filter((mark) => !level(mark.method));
  return [...Map.groupBy(competing, (mark) => mark.kind).values()].map((rivals) => {
    const placed = rivals.map((mark) => ({ mark, cost: costSign * mark.x.mean, score: scoreSign * mark.y.mean }));
    placed.sort((a, b) => a.cost - b.cost || b.score - a.score);
    const kept = [];
    for (const one of placed) {
      const best = kept.at(-1);
      const equal = best && one.score === best.score && one.cost === best.cost;
      if (!best || one.score > best.score || equal) kept.push(one);
    }
    return kept.map((one) => one.mark);
  });
}

/** Colours of the page, which the chart takes over. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["paper", "ink", "muted", "grid", "front", "warn", "line"].map((name) =>
    [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** The colour of a look; the references' black and grey follow the page. */
function tint(look, colours) {
  return { black: colours.ink, "#555555": colours.muted }[look.colour] ?? look.colour;
}

/** All curves. Kinds beyond a run's first are dashed otherwise and hollow, as further runs are. */
function curveTraces(marks, x, y, colours) {
  const placed = marks.filter((mark) => !level(mark.method));
  const kinds = Map.groupBy(placed, (mark) => mark.run);
  for (const [run, ofRun] of kinds) kinds.set(run, [...new Set(ofRun.map((mark) => mark.kind))].sort());
  const count = new Set(placed.map((mark) => mark.kind)).size;
  const lines = Map.groupBy(placed, (mark) => [mark.run, mark.model, mark.method, mark.kind].join("\n"));
  const denseLast = [...lines.values()].sort((a, b) => (a[0].method === "dense") - (b[0].method === "dense"));
  return denseLast.map((line) => {
    line.sort((a, b) => a.rate - b.rate);
    const look = looks.get(`${line[0].run}\n${line[0].method}`);
    return curveTrace(line, look, kinds.get(line[0].run).indexOf(line[0].kind), count, x, y, colours);
  });
}

/** kind: the place of the line's kind among those of its run. count: of kinds in all runs. */
function curveTrace(line, look, kind, count, x, y, colours) {
  const colour = tint(look, colours);
  const dense = line[0].method === "dense";
  const dash = dashes[(dashes.indexOf(look.dash) + kind) % dashes.length];
  const several = line.some((mark) => mark.seeds.length > 1);
  const bars = (axis) => ({
    type: "data", symmetric: false, visible: several, color: colour, thickness: 1, width: 3,
    array: line.map((mark) => mark[axis].high - mark[axis].mean),
    arrayminus: line.map((mark) => mark[axis].mean - mark[axis].low),
  });
  return {
    name: line[0].method, type: "scatter", mode: dense ? "markers" : "lines+markers",
    x: line.map((mark) => mark.x.mean), y: line.map((mark) => mark.y.mean),
    error_x: bars("x"), error_y: bars("y"), customdata: line.map((mark) => mark.seeds),
    text: line.map((mark) => tooltip(mark, x, y, count)), hovertemplate: "%{text}<extra></extra>",
    line: { color: colour, width: 1.8, dash: dense ? "solid" : dash },
    marker: {
      symbol: look.symbol, size: dense ? 14 : 8, line: { color: colour, width: 1.5 },
      color: look.hollow || kind > 0 ? colours.paper : colour,
    },
  };
}

/** The few words beside a mark; `<` of a name is no mark-up. kinds: of all marks, told if several. */
function tooltip(mark, x, y, kinds) {
  const seeds = mark.seeds.length > 1 ? `mean of ${mark.seeds.length} seeds` : `seed ${mark.seed}`;
  const numbers = [[x, mark.x], [y, mark.y]].map(([column, value]) =>
    `${heading(column)}: ${written(value.mean)}`);
  const run = content.runs.length > 1 ? [mark.run] : [];
  const lines = [`${named(mark)}, ${seeds}`, ...run, ...numbers, ...(kinds > 1 ? [mark.kind] : [])];
  const [title, ...rest] = lines.map((text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"));
  return [`<b>${title}</b>`, ...rest].join("<br>");
}

/** A staircase: the best to be had at each cost. Of several fronts each is dashed otherwise. */
function frontTrace(front, place, colours) {
  return {
    name: "Pareto front", type: "scatter", mode: "lines", hoverinfo: "skip",
    x: front.map((mark) => mark.x.mean), y: front.map((mark) => mark.y.mean),
    line: { color: colours.front, width: 6, shape: "hv", dash: dashes[place % dashes.length] },
  };
}

/** Rings around what was disturbed while it was timed, where an axis depends on that. */
function ringTrace(marks, colours) {
  return {
    name: "disturbed", type: "scatter", mode: "markers", hoverinfo: "skip",
    x: marks.map((mark) => mark.x.mean), y: marks.map((mark) => mark.y.mean),
    marker: { symbol: "circle-open", size: 17, color: colours.warn, line: { width: 2 } },
  };
}

/** FBANK and the random encoder: a line across at their score, a band for the range of seeds. */
function levelShapes(marks, x, y, colours) {
  const labelled = new Set();
  return marks.filter((mark) => level(mark.method)).flatMap((mark) => {
    const scored = [["x", x], ["y", y]].filter(([letter, column]) =>
      mark[letter] && ["Scores", "Tasks"].includes(column.group));
    return scored.flatMap(([letter]) => {
      const place = `${mark.method} ${letter} ${mark[letter].mean}`;
      const text = labelled.has(place) ? "" : mark.method;
      labelled.add(place);
      return levelShape(mark, letter, text, colours);
    });
  });
}

function levelShape(mark, letter, text, colours) {
  const { mean: middle, low, high } = mark[letter];
  const look = looks.get(`${mark.run}\n${mark.method}`);
  const colour = tint(look, colours);
  const other = letter === "x" ? "y" : "x";
  const shape = (from, to) => ({
    [`${other}ref`]: "paper", [`${other}0`]: 0, [`${other}1`]: 1,
    [`${letter}0`]: from, [`${letter}1`]: to, layer: "below",
  });
  const label = { text, textposition: mark.method === "fbank" ? "start" : "end", yanchor: "bottom",
    font: { size: 11, color: colour } };
  const line = { color: colour, width: 1.5, dash: look.dash };
  const across = { ...shape(middle, middle), type: "line", line, label };
  const band = { ...shape(low, high), type: "rect", fillcolor: colour, opacity: 0.12, line: { width: 0 } };
  return high > low ? [across, band] : [across];
}

function axisLayout(column, log, turned, colours) {
  const better = column.group === "Tasks" ? `, ${column.better} is better` : "";
  return {
    title: { text: heading(column) + better, standoff: 12 }, type: log ? "log" : "linear",
    autorange: turned ? "reversed" : true, automargin: true, gridcolor: colours.grid,
    linecolor: colours.line, zeroline: false, tickformat: log ? "~g" : "", nticks: 8,
    ...(log ? { dtick: "D2" } : {}),
  };
}

function layout(state, x, y, shapes, colours) {
  const narrow = document.getElementById("chart").clientWidth < 560;
  return {
    xaxis: axisLayout(x, state.logX, false, colours),
    yaxis: axisLayout(y, state.logY, y.better === "lower", colours),
    shapes, showlegend: false, hovermode: "closest", hoverdistance: 30,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    margin: narrow ? { l: 48, r: 12, t: 28, b: 48 } : { l: 64, r: 20, t: 32, b: 56 },
    paper_bgcolor: colours.paper, plot_bgcolor: colours.paper,
    font: { color: colours.ink, size: narrow ? 11 : 13, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: colours.paper, bordercolor: colours.line, font: { color: colours.ink }, align: "left" },
  };
}

/** Whether the figures would take a logarithmic axis: positive costs that span a decade. */
function wide(column) {
  const known = points.filter((point) => !level(point.method)).map((point) => point[column.name])
    .filter((value) => value !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  return column.group === "Costs" && low > 0 && high > 10 * low;
}

/** Draw what is ticked. Returns the marks in their order along x, the front's points, and remarks. */
function drawChart(state, ticked) {
  const [x, y] = [columns.get(state.x), columns.get(state.y)];
  const colours = palette();
  const chosen = points.filter(ticked);
  const gathered = gather(chosen, x, y);
  const positive = (mark) => !(state.logX && mark.x?.mean <= 0) && !(state.logY && mark.y?.mean <= 0);
  const marks = gathered.filter(positive);
  const fronted = fronts(marks, x, y);
  const disturbed = [x, y].some((column) => column.apart === "device")
    ? marks.filter((mark) => !level(mark.method) && mark.seeds.some((point) => point.disturbed === true)) : [];
  const traces = [
    ...fronted.map((front, place) => frontTrace(front, place, colours)),
    ...curveTraces(marks, x, y, colours),
    ...(disturbed.length ? [ringTrace(disturbed, colours)] : []),
  ];
  const chart = document.getElementById("chart");
  Plotly.react(chart, traces, layout(state, x, y, levelShapes(marks, x, y, colours), colours), {
    responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });
  chart.setAttribute("aria-label", `Chart: ${heading(y)} against ${heading(x)}, ${marks.length} marks`);
  return {
    walk: traces.flatMap((trace, curve) => (trace.customdata ?? []).map((seeds, place) =>
      ({ seeds, curve, place, x: trace.x[place] }))).sort((a, b) => a.x - b.x),
    front: new Set(fronted.flat().flatMap((mark) => mark.seeds)),
    remarks: remarks(chosen, gathered, marks, disturbed, x, y),
  };
}

/** What the reader should know of what is drawn. */
function remarks(chosen, gathered, marks, disturbed, x, y) {
  const drawn = new Set(gathered.flatMap((mark) => mark.seeds));
  const absent = chosen.filter((point) => !drawn.has(point));
  const seeds = Math.max(1, ...marks.map((mark) => mark.seeds.length));
  const kinds = values(marks.filter((mark) => !level(mark.method)), "kind");
  const told = [`Grey steps: the Pareto front of what is shown${kinds.length > 1 ? ", one for each" : ""}.`];
  if (seeds > 1) told.push(`Marks are means, bars the range of up to ${seeds} seeds.`);
  if (kinds.length > 1) told.push(`Not comparable, so never joined and dashed apart: ${kinds.join(" | ")}.`);
  for (const name of apart(x, y).filter((one) => !mixed.has(one) && values(points, one).length)) {
    told.push(`${name === "device" ? "Measured on" : "superb_s by"} ${values(points, name)[0]}.`);
  }
  if (absent.length) {
    told.push(`Without a number on one of the axes: ${absent.length} of ${chosen.length} points (${tally(absent)}).`);
  }
  if (gathered.length > marks.length) {
    told.push(`At or below 0, which a logarithmic axis lacks: ${gathered.length - marks.length} marks.`);
  }
  if (disturbed.length) told.push(`Rings: disturbed while they were timed (${disturbed.length} marks).`);
  for (const column of new Set([x, y])) if (column.about) told.push(`${column.title}: ${column.about}.`);
  return told;
}

/** `3 failed, 2 done`. */
function tally(some) {
  const kinds = [...Map.groupBy(some, (point) => point.status)];
  return kinds.map(([status, ofIt]) => `${ofIt.length} ${status}`).join(", ");
}
