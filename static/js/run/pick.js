// Ticks in the list of runs: they go to the comparison in the order in which they were made.

const form = document.getElementById("pick");
const button = form?.querySelector("button[type=submit]");
const picked = new Set([...(form?.querySelectorAll("input[name=run]:checked") ?? [])].map((box) => box.value));
const [FEWEST, MOST] = [2, 8];

function show() {
  button.disabled = picked.size < FEWEST;
  document.getElementById("picked").textContent = picked.size ? ` ${picked.size}` : "";
  for (const box of form.querySelectorAll("input[name=run]")) box.disabled = !box.checked && picked.size >= MOST;
}

form?.addEventListener("change", (event) => {
  const { checked, value } = event.target;
  picked[checked ? "add" : "delete"](value);
  show();
});

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`${form.action}?${new URLSearchParams([...picked].map((run) => ["run", run]))}`);
});

if (form) show();
