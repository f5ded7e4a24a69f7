// What does not change while one looks: headings, figures, what is missing, where it comes from.

function drawHeader() {
  const names = content.runs.map((run) => run.name).join(", ");
  const models = [...new Set(points.map((point) => point.model))].filter((model) => model !== "fbank");
  const methods = new Set(points.map((point) => point.method).filter((method) => !references.includes(method)));
  const told = [models.join(", "), `${methods.size} methods`, `${written(points.length)} points`];
  document.getElementById("title").textContent = names;
  document.getElementById("subtitle").textContent = told.join(" · ");
  const warning = document.getElementById("warning");
  warning.hidden = !points.some((point) => point.random_weights);
  warning.textContent = "Random weights: costs are real, scores mean nothing.";
}

/** The figures, then the names of those that the runs have nothing for. */
function drawFigures() {
  const made = content.figures.filter((one) => one.image).map(({ name, about, image }) => element("figure", {},
    element("h3", {}, name), element("figcaption", {}, about),
    element("img", { src: image, alt: `Figure ${name}: ${about}`, loading: "lazy" })));
  const lacking = content.figures.filter((one) => one.why).map(({ name, why }) =>
    element("li", {}, element("strong", {}, name), ` is not drawn: ${why}`));
  const list = lacking.length ? [element("ul", { className: "list" }, ...lacking)] : [];
  document.getElementById("figure-list").replaceChildren(...made, ...list);
}

function drawGaps() {
  const list = document.getElementById("gap-list");
  if (!content.gaps.length) return list.replaceChildren("Nothing: all that was asked for is there.");
  const items = content.gaps.map((gap) => {
    const run = content.runs.length > 1 ? `${gap.run}: ` : "";
    const points = gap.points.length > 3
      ? element("details", {}, element("summary", {}, `${gap.points.length} points`), gap.points.join(", "))
      : element("div", {}, gap.points.join(", "));
    return element("li", {}, element("strong", { className: gap.status }, gap.status),
      ` ${run}${gap.sections}: ${gap.reason}`, points);
  });
  list.replaceChildren(element("ul", { className: "list" }, ...items));
}

function drawProvenance() {
  const made = content.runs.flatMap(({ name, info }) => [element("h3", {}, name), described(info)]);
  document.getElementById("provenance-list").replaceChildren(...made);
}

/** run.json as a list of terms; what is inside of an entry has names of its own. */
function described(info) {
  const entries = Object.entries(info).flatMap(([key, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.entries(value).map(([inner, told]) => [`${key}: ${inner}`, told]) : [[key, value]]);
  if (!entries.length) return element("p", {}, "run.json is not there: where it comes from is not known.");
  return element("dl", {}, ...entries.flatMap(([key, value]) => [
    element("dt", {}, key.replaceAll("_", " ")),
    element("dd", {}, Array.isArray(value) ? value.join(", ") || "none" : value === null ? "none" : String(value)),
  ]));
}
