"use strict";
// Texts of models and files reach the page as text nodes alone, never as markup.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const BATCH = 40;
const LETTERS = ["A", "B"];
const BOX_COLORS = ["#00c853", "#ff8c00", "#e040fb"];
const filters = ["benchmark", "split", "kind", "verdict"];
let found = data.rows;
let drawn = 0;

function make(tag, properties = {}, ...children) {
  const { className, ...attributes } = properties;
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const group = (row) => [row.benchmark, row.ask].filter(Boolean).join(" · ") || "no benchmark";
const verdict = (credit) => (credit === null ? "unjudged" : credit >= 1 ? "right" : credit > 0 ? "partly" : "wrong");
const isRight = (said) => said !== null && said.credit !== null && said.credit >= 0.5;
const isWrong = (said) => said !== null && said.credit !== null && said.credit < 0.5;
const isAhead = (one, other) => one && other && one.credit !== null && other.credit !== null && one.credit > other.credit;

const VERDICTS = {
  "": ["all", () => true],
  wrong: ["wrong", (row) => row.said.some(isWrong)],
  right: ["right", (row) => row.said.every(isRight)],
  partly: ["partly right", (row) => row.said.some((said) => said && said.credit > 0 && said.credit < 1)],
  unjudged: ["not judged", (row) => row.said.some((said) => said && said.credit === null)],
};
if (data.sides.length === 2) {
  VERDICTS.ahead = ["A right, B wrong", (row) => isAhead(row.said[0], row.said[1])];
  VERDICTS.behind = ["A wrong, B right", (row) => isAhead(row.said[1], row.said[0])];
  VERDICTS.wrong = ["one or both wrong", VERDICTS.wrong[1]];
  VERDICTS.both = ["both wrong", (row) => row.said.every(isWrong)];
  VERDICTS.right = ["both right", VERDICTS.right[1]];
  VERDICTS.apart = ["different words", (row) => row.said[0]?.text !== row.said[1]?.text];
}

// What was asked, what is true, what was said.

function drawRow(row, number) {
  const place = [`${number + 1}`, group(row), row.split, row.kind === "all" ? "" : row.kind, row.id];
  const several = row.said.length > 1;
  const answers = make("dl", { className: "answers" });
  if (row.answers.length) answers.append(make("div", {}, make("dt", {}, "true"), make("dd", {}, ...counted(row.answers))));
  row.said.forEach((said, side) => answers.append(drawSaid(said, several ? `${LETTERS[side]} said` : "said")));
  const pictures = row.names.length + row.pictures.length ? [drawPictures(row)] : [];
  return make(
    "article",
    { tabindex: "-1", className: pictures.length ? "" : "bare", "aria-label": `question ${number + 1}` },
    make("p", { className: "place" }, place.filter(Boolean).join(" · ")),
    ...pictures,
    make("div", {}, make("h2", {}, row.question), answers),
  );
}

// Ten people's answers are few different ones.
function counted(answers) {
  const times = new Map();
  for (const answer of answers) times.set(answer, (times.get(answer) || 0) + 1);
  const parts = [...times].sort((one, other) => other[1] - one[1]);
  return parts.flatMap(([answer, count], index) => [
    index ? " / " : "",
    answer === "" ? make("span", { className: "empty" }, "nothing") : answer,
    ...(count > 1 ? [make("span", { className: "times" }, ` ×${count}`)] : []),
  ]);
}

function drawSaid(said, name) {
  if (said === null) return make("div", {}, make("dt", {}, name), make("dd", { className: "empty" }, "was not asked"));
  const kind = verdict(said.credit);
  const marks = { right: "✓ right", wrong: "✗ wrong", partly: `◐ ${percent(said.credit * 100)}`, unjudged: "? not judged" };
  const text = said.text === "" ? make("span", { className: "empty" }, "nothing") : said.text;
  const cell = make("dd", { className: `said ${kind}` }, text, "  ", make("span", { className: "verdict" }, marks[kind]));
  if (said.scores.length) cell.append(drawChoices(said.scores));
  return make("div", {}, make("dt", {}, name), cell);
}

function drawChoices(scores) {
  const best = Math.max(...scores.map(([, score]) => score ?? -Infinity));
  const weights = scores.map(([, score]) => (score === null ? 0 : Math.exp(score - best)));
  const sum = weights.reduce((one, other) => one + other, 0) || 1;
  const list = make("ul", { className: "choices" });
  scores.forEach(([choice, score], index) => {
    const share = (100 * weights[index]) / sum;
    const numbers = `${percent(share)}  (${score === null ? "not finite" : signed(score, 2)})`;
    const item = make("li", {}, make("span", {}, choice), make("span", { className: "number" }, numbers));
    item.style.setProperty("--share", `${share}%`);
    list.append(item);
  });
  return list;
}

function drawPictures(row) {
  const count = Math.max(row.names.length, row.pictures.length);
  const shown = Array.from({ length: count }, (_, index) => {
    const name = row.names[index] ?? "of the question";
    const number = row.pictures[index] ?? null;
    if (number === null) return make("div", { className: "placeholder" }, `no picture: ${name}`);
    const [width, height] = data.sizes[number];
    const shrink = Math.min(1, 384 / Math.max(width, height));
    const picture = make("img", {
      src: $(`picture-${number}`).textContent, alt: `picture ${name}`, className: Math.max(width, height) <= 128 ? "tiny" : "",
      width: Math.round(width * shrink), height: Math.round(height * shrink), decoding: "async",
    });
    return make("figure", {}, picture, ...(index ? [] : drawBoxes(row)));
  });
  return make("div", { className: "pictures" }, ...shown);
}

// Boxes are in shares of the picture.
function drawBoxes(row) {
  if (!row.box) return [];
  const boxes = [row.box, ...row.said.map((said) => said?.box)];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "boxes: the true one, and those that were said");
  boxes.forEach((box, index) => {
    if (!box) return;
    const rectangle = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const [left, top, right, bottom] = box;
    const values = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
    for (const [name, value] of Object.entries(values)) rectangle.setAttribute(name, value);
    rectangle.style.stroke = BOX_COLORS[index];
    if (index) rectangle.setAttribute("stroke-dasharray", "8 4");
    svg.append(rectangle);
  });
  return [svg];
}

// Which rows are shown, a batch at a time.

function filter() {
  const [benchmark, split, kind, judged] = filters.map((name) => $(name).value);
  const words = $("search").value.trim().toLowerCase();
  const passes = VERDICTS[judged][1];
  found = data.rows.filter(
    (row) =>
      (!benchmark || group(row) === benchmark) && (!split || row.split === split) && (!kind || row.kind === kind) &&
      passes(row) && (!words || searched(row).includes(words)),
  );
  $("rows").replaceChildren();
  drawn = 0;
  drawMore();
  $("count").textContent = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} questions`;
}

const texts = new WeakMap();
function searched(row) {
  if (!texts.has(row)) {
    const parts = [row.id, row.question, ...row.answers, ...row.names, ...row.said.map((said) => said?.text ?? "")];
    texts.set(row, parts.join("\n").toLowerCase());
  }
  return texts.get(row);
}

function drawMore() {
  const end = Math.min(found.length, drawn + BATCH);
  const batch = document.createDocumentFragment();
  for (; drawn < end; drawn++) batch.append(drawRow(found[drawn], drawn));
  $("rows").append(batch);
  $("more").hidden = drawn >= found.length;
}

function move(step) {
  const cards = $("rows").children;
  const focused = document.activeElement.closest("article");
  let next = focused ? [...cards].indexOf(focused) + step : firstVisible();
  if (next >= cards.length) drawMore();
  next = Math.max(0, Math.min(next, cards.length - 1));
  if (!cards[next]) return;
  cards[next].focus({ preventScroll: true });
  cards[next].scrollIntoView({ block: "start" });
}

function firstVisible() {
  const index = [...$("rows").children].findIndex((card) => card.getBoundingClientRect().top >= 0);
  return Math.max(0, index);
}

// What stands above the rows.

function drawSums() {
  const several = data.sides.length > 1;
  const names = several ? data.sides.map((_, side) => `${LETTERS[side]}, %`) : ["%"];
  const heads = ["", "questions", ...names, ...(several ? ["B − A"] : [])];
  const number = (index) => (index ? { className: "number", scope: "col" } : { scope: "col" });
  $("sums").querySelector("thead").append(make("tr", {}, ...heads.map((head, index) => make("th", number(index), head))));
  for (const sum of data.sums) {
    const name = group(sum);
    const jump = make("button", { type: "button" }, sum.part ? sum.name || "–" : name);
    jump.addEventListener("click", () => {
      $("filters").reset();
      $("benchmark").value = data.sums.some((other) => group(other) !== name) ? name : "";
      if (sum.part) $(sum.part).value = sum.name;
      filter();
    });
    const [a, b] = sum.credit;
    const credits = [...sum.credit, ...(several ? [a === null || b === null ? null : b - a] : [])];
    $("sums").querySelector("tbody").append(
      make(
        "tr", { className: sum.part ? "part" : "" }, make("th", { scope: "row" }, jump),
        make("td", { className: "number" }, sum.count.toLocaleString("en")),
        ...credits.map((credit) => make("td", { className: "number" }, credit === null ? "–" : signed(credit, 1))),
      ),
    );
  }
}

function fill(select, options) {
  for (const [value, name] of options) select.append(make("option", { value }, name));
  select.closest("label").hidden = options.length < 3;
}

function start() {
  const names = data.sides.map((name, side) => (data.sides.length > 1 ? `${LETTERS[side]}: ${name}` : name));
  $("sides").textContent = names.join("  –  ");
  document.title = `Answers: ${data.sides.join(" and ")}`;
  $("notes").append(...data.notes.map((note) => make("li", {}, note)));
  drawSums();
  const of = (part) => [...new Set(data.sums.filter((sum) => sum.part === part).map((sum) => sum.name))];
  const benchmarks = [...new Set(data.sums.map(group))];
  fill($("benchmark"), [["", "all"], ...benchmarks.map((name) => [name, name])]);
  fill($("split"), [["", "all"], ...of("split").map((name) => [name, name || "–"])]);
  fill($("kind"), [["", "all"], ...of("kind").map((name) => [name, name || "–"])]);
  fill($("verdict"), Object.entries(VERDICTS).map(([value, [name]]) => [value, name]));
  filters.forEach((name) => $(name).addEventListener("change", filter));
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(filter));
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("more").addEventListener("click", drawMore);
  new IntersectionObserver((entries) => entries[0].isIntersecting && drawMore(), { rootMargin: "600px" }).observe($("more"));
  new ResizeObserver(() => {
    const sticks = getComputedStyle($("filters")).position === "sticky";
    document.documentElement.style.setProperty("--top", `${sticks ? $("filters").offsetHeight + 12 : 12}px`);
  }).observe($("filters"));
  document.addEventListener("keydown", press);
  filter();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target.closest("input, select, .wide")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    "/": () => $("search").focus(),
    f: () => {
      $("verdict").value = $("verdict").value === "wrong" ? "" : "wrong";
      filter();
    },
    "?": () => $("help").showModal(),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
}

// no minus before what rounds to nothing
const signed = (value, digits) => value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
const percent = (value) => `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} %`;

start();
