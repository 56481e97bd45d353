/* What page and report do in the reader's browser, gathered from the files beside this one; and the address.

   Nothing here asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  // ---- what is shown, in the address ----------------------------------------------------------------------

  /** Return what the address has after "?", as a plain object. */
  const shown = () => Object.fromEntries(new URLSearchParams(window.location.search));

  /** Put values into the address, so that it can be shared; null, undefined or "" removes one. With "pushState" that is
      an entry of its own in the browser's history, which *Back* undoes. */
  function remember(values, entry = "replaceState") {
    const words = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") { words.delete(name); } else { words.set(name, value); }
    }
    const text = words.toString();
    window.history[entry](window.history.state, "", text ? `?${text}` : window.location.pathname);
  }

  window.Condensery = { ...window.CondenseryAnswer, ...window.CondenseryMarks, ...window.CondenseryFigures, shown, remember };
})();
