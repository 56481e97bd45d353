/* Figures in the reader's browser: in the page's colours and fit for its width, on a linear or a logarithmic axis, with the
   front's lines alone, and as complete pictures. */
(function () {
  "use strict";

  const LINE_PX = 18;  // of a heading above a picture
  const TOOLS_PX = 24, ENTRY_PX = 17;  // heights of a chart's own buttons and of an entry of its legend on a narrow screen

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** Return how many entries a figure's legend has. */
  const entriesOf = (data) => data.filter((trace) => trace.showlegend !== false && trace.type !== "parcoords").length;

  /** Return a figure's layout in the page's colours (light or dark), fit for its width in pixels. */
  function themed(layout, width, entries) {
    const out = structuredClone(layout), ink = colour("--ink"), line = colour("--line"), narrow = width < 520;
    out.font = { ...out.font, color: ink, size: narrow ? 11 : 13 };
    out.hoverlabel = { ...out.hoverlabel, bgcolor: colour("--surface"), bordercolor: line, font: { color: ink } };
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink };
    for (const key of Object.keys(out).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(out[key], { gridcolor: line, linecolor: line, tickfont: { color: colour("--muted") } });
    }
    if (narrow) {
      out.margin = { ...out.margin, l: 40, r: 6, t: ((out.margin || {}).t || 0) + TOOLS_PX };  // a finger has no pointer that hides them
      out.height += TOOLS_PX;
      for (const note of (out.annotations || []).filter(({ name }) => name === "label")) {
        note.text = note.text.replace(/^trial (?=\d+$)/, "");  // the words would be cut off
      }
      if (entries > 4) {
        out.legend = { ...out.legend, orientation: "v", maxheight: 1 };
        out.height += ENTRY_PX * entries;
      }
    }
    return out;
  }

  // ---- linear or logarithmic --------------------------------------------------------------------------------

  /** Make a layout's x axis logarithmic or linear; ranges and notes on it move along. */
  function setLog(layout, log) {
    const axis = layout.xaxis;
    if ((axis.type === "log") === log) { return; }
    const moved = (value) => (log ? Math.log10(value) : 10 ** value);
    Object.assign(axis, log ? { type: "log", dtick: "D2", tickformat: "~g" } : { type: "linear", dtick: null, tickformat: "" });
    axis.rangemode = log ? "normal" : "nonnegative";
    if (axis.range) {
      if (log && axis.range[0] <= 0) { axis.range = [(layout.meta.extent || [axis.range[1] / 10])[0] * 0.95, axis.range[1]]; }
      axis.range = axis.range.map(moved);
    }
    for (const note of layout.annotations || []) {
      if (note.xref === "paper" || typeof note.x !== "number") { continue; }
      note.x = moved(note.x);
    }
  }

  // ---- packed numbers -------------------------------------------------------------------------------------

  const KINDS = { f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };

  /** Return a figure's numbers as an array; Plotly packs long ones as base64. */
  function unpacked(values) {
    if (!values || values.bdata === undefined) { return values; }
    const bytes = Uint8Array.from(atob(values.bdata), (letter) => letter.charCodeAt(0));
    return new KINDS[values.dtype](bytes.buffer);
  }

  /** Return a figure of parallel coordinates with some of its lines alone; `places` of null keeps all. */
  function onlyLines(figure, places) {
    if (!places) { return figure; }
    const some = (values) => { const all = unpacked(values); return places.map((place) => all[place]); };
    const [trace, ...rest] = figure.data;
    const dimensions = trace.dimensions.map((one) => ({ ...one, values: some(one.values) }));
    const carried = trace.customdata ? { customdata: some(trace.customdata) } : {};  // whose line each one is
    return { ...figure, data: [{ ...trace, ...carried, dimensions, line: { ...trace.line, color: some(trace.line.color) } }, ...rest] };
  }

  // ---- pictures -------------------------------------------------------------------------------------------

  /** Save a picture of a graph that is complete by itself: budget, star, title, study and device are in it. */
  function savePicture(graph, name, heading, table, limits) {
    const { data, layout } = window.CondenseryMarks.withMarks(graph, table, limits), lines = heading || [];
    const more = lines.length ? LINE_PX * lines.length + 12 : 0, { width, height } = graph._fullLayout;
    const title = { text: lines.join("<br>"), font: { size: 12 }, x: 0, xanchor: "left", y: 1, yanchor: "top", xref: "paper", yref: "container", pad: { t: 14 } };
    if (lines.length) { Object.assign(layout, { title, margin: { ...layout.margin, t: ((layout.margin || {}).t || 0) + more } }); }
    const ground = colour("--surface"), size = { width: Math.round(width), height: Math.round(height + more) };
    Object.assign(layout, { ...size, paper_bgcolor: ground, plot_bgcolor: ground });
    return window.Plotly.downloadImage({ data, layout }, { format: "png", filename: name, ...size, scale: 2 });
  }

  /** Let every *Download* of a chart save a complete picture; `chartOf` returns {name, heading, table, limits} of a graph,
      null of one that isn't ours. */
  function savePictures(chartOf) {
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-title^='Download']"), graph = button && button.closest(".js-plotly-plot");
      const chart = graph && chartOf(graph);
      if (!chart) { return; }
      event.stopPropagation();
      event.preventDefault();
      savePicture(graph, chart.name, chart.heading, chart.table, chart.limits);
    }, true);
  }

  /** Draw WebGL as sharp as the screen; Plotly's default is twice as sharp, which is slow without a graphics card. */
  function asSharpAsTheScreen() {
    window.Plotly.setPlotConfig({ plotGlPixelRatio: Math.max(1, window.devicePixelRatio) });
  }

  window.CondenseryFigures = { themed, entriesOf, colour, setLog, onlyLines, savePictures, asSharpAsTheScreen };
})();
