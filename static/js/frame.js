// What every page does: theme, search key, times in the viewer's zone, the dialog, and what htmx swaps must not lose.

const root = document.documentElement;

// --- Theme
const toggle = document.querySelector("[data-theme-toggle]");

function showTheme() {
  const dark = root.dataset.theme === "dark";
  toggle.setAttribute("aria-pressed", String(dark));
  toggle.setAttribute("aria-label", "Dark theme");
}

if (toggle) {
  showTheme();
  toggle.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("esper-theme", root.dataset.theme);
    } catch {
      // the theme then lasts for this page
    }
    showTheme();
    document.dispatchEvent(new CustomEvent("esper:theme"));
  });
}

// --- Search: "/" focuses it, unless the viewer is typing
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.getElementById("search");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
});

// --- Times: relative to now, with the full local time on hover
const UNITS = [
  [60, "second"],
  [3600, "minute"],
  [86400, "hour"],
  [2592000, "day"],
  [31536000, "month"],
  [Infinity, "year"],
];
const DIVISOR = { second: 1, minute: 60, hour: 3600, day: 86400, month: 2592000, year: 31536000 };
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function ago(moment) {
  const seconds = (moment - Date.now()) / 1000;
  if (Math.abs(seconds) < 5) return "just now";
  const [, unit] = UNITS.find(([limit]) => Math.abs(seconds) < limit);
  return relative.format(Math.round(seconds / DIVISOR[unit]), unit);
}

function showTimes(scope) {
  for (const element of scope.querySelectorAll("time[data-when]")) {
    const moment = new Date(element.dateTime);
    element.textContent = ago(moment);
    element.title = absolute.format(moment);
  }
  for (const element of scope.querySelectorAll("time[data-moment]")) {
    element.textContent = absolute.format(new Date(element.dateTime));
  }
}

showTimes(document);
setInterval(() => showTimes(document), 15000);

// --- Copy buttons
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const label = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    label.textContent = "copied";
  } catch {
    label.textContent = "select it by hand";
  }
  setTimeout(() => (label.textContent = "copy"), 1500);
});

// --- The dialog: whatever htmx puts into it is shown; links that fill it work as pages without it
const dialog = document.getElementById("dialog");

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]") && dialog?.open) {
    event.preventDefault();
    dialog.close();
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id === "dialog-body" && !dialog.open) dialog.showModal();
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (dialog?.open && event.detail.successful && event.target.matches("form[data-closes]")) dialog.close();
});

// --- Swaps keep what was unfolded and where the focus was
let unfolded = new Set();
let known = null;
let focused = "";

document.addEventListener("htmx:beforeSwap", () => {
  unfolded = new Set([...document.querySelectorAll("details[open][id]")].map((details) => details.id));
  known = new Set([...document.querySelectorAll(".decisions > li")].map((row) => row.id));
  focused = document.activeElement?.id ?? "";
});

document.addEventListener("htmx:afterSettle", () => {
  for (const id of unfolded) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  for (const row of document.querySelectorAll(".decisions > li")) row.classList.toggle("arrives", known !== null && !known.has(row.id));
  if (focused && document.activeElement === document.body) document.getElementById(focused)?.focus({ preventScroll: true });
  showTimes(document);
});

// --- A link into folded evidence unfolds it
function unfoldTarget() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const details = target.matches("details") ? target : target.querySelector("details");
  if (details) details.open = true;
}

addEventListener("hashchange", unfoldTarget);
unfoldTarget();
