/* What a report carries, unpacked by the reader's browser. */
(function () {
  "use strict";

  const canUnpack = () => typeof DecompressionStream !== "undefined";

  async function unpacked(name) {
    const text = document.getElementById(`packed-${name}`).textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const parsed = async (name) => JSON.parse(await unpacked(name));

  function run(code) {  // the page's policy holds its hash
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  }

  window.CondenseryPacked = { canUnpack, unpacked, parsed, run };
})();
