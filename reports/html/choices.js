// Tick boxes: what the chart and the table show, each method with the line and mark it is drawn with.

/** A tick box that says when it is ticked and when not. */
function tickBox(value, checked, change) {
  const box = element("input", { type: "checkbox", checked, value });
  box.addEventListener("change", () => change(box.checked));
  return box;
}

/** Tick boxes for the values of a fact, the methods with the mark that they are drawn with. */
function drawChoices(name, title) {
  const known = values(points, name);
  if (known.length < 2 && name !== "method") return;
  const boxes = known.map((value) => tickBox(value, true, (checked) => {
    state.hidden[name][checked ? "delete" : "add"](value);
    redraw();
  }));
  const chips = boxes.map((box) => element("label", { className: "chip" }, box,
    ...(name === "method" ? [swatch(box.value)] : []), box.value));
  const buttons = [["all", true], ["none", false]].map(([text, checked]) => {
    const button = element("button", { type: "button", "aria-label": `${title}: ${text}` }, text);
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = checked;
      state.hidden[name] = new Set(checked ? [] : known);
      redraw();
    });
    return button;
  });
  document.getElementById("choices").append(element("fieldset", {},
    element("legend", {}, title, ...buttons), element("div", { className: "chips" }, ...chips)));
}

/** Plotly's marks, as paths in the middle of a swatch. */
const outlines = {
  circle: "M13 3a4 4 0 1 1 0 8a4 4 0 1 1 0-8z", square: "M9.5 3.5h7v7h-7z", diamond: "M13 2l5 5l-5 5l-5-5z",
  "triangle-up": "M13 2.5l4.5 8h-9z", "triangle-down": "M13 11.5l4.5-8h-9z",
  "triangle-left": "M8.5 7l8-4.5v9z", "triangle-right": "M17.5 7l-8-4.5v9z",
  cross: "M11.5 3h3v2.5H17v3h-2.5V11h-3V8.5H9v-3h2.5z",
  x: "M10 2.5l3 3l3-3l1.5 1.5l-3 3l3 3l-1.5 1.5l-3-3l-3 3L8.5 10l3-3l-3-3z",
  pentagon: "M13 2.5l4.5 3.3l-1.7 5.2h-5.6l-1.7-5.2z", hexagon: "M13 2l4.3 2.5v5L13 12l-4.3-2.5v-5z",
  star: "M13 1l1.6 4H19l-3.5 2.7l1.3 4.3L13 9.4L9.2 12l1.3-4.3L7 5h4.4z",
};

/** The line and mark of a method, beside its tick box. */
function swatch(method) {
  const look = content.looks.find((one) => one.method === method);
  const colour = tint(look, { ink: "var(--ink)", muted: "var(--muted)" });
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("viewBox", "0 0 26 14");
  made.setAttribute("aria-hidden", "true");
  const dashArray = { dash: "6 3", dot: "2 2" }[look.dash] ?? "none";
  const line = { stroke: colour, "stroke-width": 1.8, "stroke-dasharray": dashArray, fill: "none" };
  const parts = [[method === "dense" ? "" : "M0 7h26", line], [outlines[look.symbol] ?? "", { fill: colour }]];
  for (const [path, looks] of parts) {
    const part = document.createElementNS("http://www.w3.org/2000/svg", "path");
    part.setAttribute("d", path);
    for (const [key, value] of Object.entries(looks)) part.style.setProperty(key, value);
    made.append(part);
  }
  return made;
}

function drawColumnChoice() {
  const chips = content.columns.map((column) => {
    const box = tickBox(column.name, column.shown, (checked) => {
      state.columns[checked ? "add" : "delete"](column.name);
      retable();
    });
    return element("label", { className: "chip", title: column.about }, box, column.title);
  });
  document.querySelector("#columns div").append(element("div", { className: "chips" }, ...chips));
}
