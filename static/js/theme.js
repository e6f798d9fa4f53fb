// Sets the theme before the first paint: what the viewer chose, else what their system prefers.
(() => {
  const chosen = (() => {
    try {
      return localStorage.getItem("esper-theme");
    } catch {
      return null; // storage may be forbidden; then the system decides
    }
  })();
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
