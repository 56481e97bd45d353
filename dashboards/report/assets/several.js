/* A report of several studies in the reader's browser: unpack what the page carries and show it in the place of the text. */
(function () {
  "use strict";

  const { canUnpack, unpacked, parsed, run } = window.CondenseryPacked, C = window.Condensery;

  let loading = null;
  const plotly = () => (loading ??= unpacked("plotly").then((code) => { run(code); C.asSharpAsTheScreen(); }));

  function remember(view, limit) {
    const word = limit === undefined ? null : limit ?? "none";
    try { C.remember({ view, limit: word }); } catch (error) { /* a browser may refuse it to a file */ }
  }

  async function start() {
    if (!canUnpack()) { return; }  // what is there as text says the same
    const { views, config } = await parsed("several"), words = C.shown();
    let view = words.view in views ? words.view : Object.keys(views)[0];
    const limit = words.limit === "none" ? null : Number(words.limit) > 0 ? Number(words.limit) : undefined;
    const compared = new window.CondenseryStudies.StudiesCompared(document.getElementById("compared-body"), {
      view: (token) => { view = token; remember(view); compared.show(views[view]); },
      limit: (ms) => remember(view, ms),
      href: () => null, plotly,
    }, config);
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      window.matchMedia(query).addEventListener("change", () => compared.draw());
    }
    await compared.show(views[view], limit);
    performance.mark("condensery-ready");
  }

  start();
})();
