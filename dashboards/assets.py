"""The report's style and script; `page` puts them into the document."""

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --surface: #ffffff; --ink: #1b1f24; --muted: #59616b;
  --line: #d9dde2; --accent: #0b5cad; --star: #a84a00; --good: #1a6b45; --warn: #7a5200; --bad: #a3262a; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #101317; --surface: #181c22; --ink: #e8eaed; --muted: #a3abb6; --line: #333a44; --accent: #7db8f5;
    --star: #f2a05c; --good: #74cfa0; --warn: #e0b75c; --bad: #f08d8d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 4px; }
p { margin: 0 0 10px; }
a { color: var(--accent); }
.muted, figcaption, footer { color: var(--muted); font-size: .9rem; }
section, .answer { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 18px 0; min-width: 0; }
.answer { border-left: 5px solid var(--star); }
.answer.none { border-left-color: var(--line); }
.answer > p:first-child { font-size: 1.2rem; line-height: 1.45; margin: 0; overflow-wrap: anywhere; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px 24px;
  margin: 16px 0 0; }
dl.tiles dt { color: var(--muted); font-size: .85rem; }
dl.tiles dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dl.tiles dd small { display: block; font-size: .82rem; font-weight: 400; color: var(--muted); line-height: 1.35; }
figure { margin: 0; }
figcaption { margin-top: 8px; }
.chart { width: 100%; min-height: 140px; }
.scroll { overflow-x: auto; margin-top: 12px; }
.scroll.tall { max-height: 560px; overflow-y: auto; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible, button:focus-visible, summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 8px; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
thead th { position: sticky; top: 0; background: var(--surface); color: var(--muted); font-weight: 600; z-index: 1; }
td.n, th.n { text-align: right; }
td.wrap { white-space: normal; min-width: 130px; overflow-wrap: anywhere; }
tr.pick > * { background: color-mix(in srgb, var(--star) 12%, transparent); }
th button { all: unset; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.state-done { color: var(--good); } .state-infeasible { color: var(--warn); } .state-failed { color: var(--bad); }
.state-running { color: var(--accent); }
.state-duplicate, .state-asked, .state-queued, .state-cancelled { color: var(--muted); }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; margin: 8px 0; }
footer { padding-bottom: 32px; }
@media (max-width: 560px) {
  header, main, footer { padding-left: 10px; padding-right: 10px; }
  section, .answer { padding: 14px 12px; }
  td.config { white-space: normal; min-width: 110px; }
  dl.tiles { grid-template-columns: 1fr 1fr; } dl.tiles dd { font-size: 1.2rem; } }
@media print { .scroll.tall { max-height: none; } section { break-inside: avoid-page; } }
"""

SCRIPT = """
(function () {
  "use strict";
  const config = JSON.parse(document.getElementById("plot-config").textContent);
  const figures = [...document.querySelectorAll(".chart")].map(
    (box) => [box, JSON.parse(document.getElementById(box.dataset.figure).textContent)]);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function themed(layout, width, entries) {
    const out = structuredClone(layout), ink = colour("--ink"), line = colour("--line"), narrow = width < 520;
    out.font = { ...out.font, color: ink, size: narrow ? 11 : 13 };
    out.hoverlabel = { ...out.hoverlabel, bgcolor: colour("--surface"), bordercolor: line, font: { color: ink } };
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink };
    for (const key of Object.keys(out).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(out[key], { gridcolor: line, linecolor: line, tickfont: { color: colour("--muted") } });
    }
    if (narrow) {
      out.margin = { ...out.margin, l: 40, r: 6 };
      if (entries > 6) {
        out.legend = { ...out.legend, entrywidth: 0.46, entrywidthmode: "fraction", maxheight: 1 };
        out.height += 14 * entries;
      }
    }
    return out;
  }
  function draw() {
    for (const [box, figure] of figures) {
      const layout = themed(figure.layout, box.clientWidth, figure.data.length);
      box.style.height = layout.height + "px";
      Plotly.react(box, figure.data, layout, config);
    }
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, body = head.closest("table").tBodies[0];
      const up = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => {
        const cell = row.cells[head.cellIndex];
        return "v" in cell.dataset ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent;
      };
      const order = (a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) { return (x === null) - (y === null); }
        const less = typeof x === "number" ? x - y : x.localeCompare(y);
        return up ? less : -less;
      };
      for (const other of head.parentElement.cells) { other.removeAttribute("aria-sort"); }
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...[...body.rows].sort(order));
    });
  }
})();
"""
