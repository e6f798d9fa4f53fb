// Completions of the library's search: fields and values, offered for the word at the caret (ARIA combobox pattern).
// Without this script the browser completes the first word from the same datalist.

const input = document.getElementById("q");
const source = document.getElementById("words");
const MOST = 8;

if (input && source) {
  const words = [...source.options].map((option) => ({
    text: option.value,
    note: option.label,
    values: option.dataset.values ? option.dataset.values.split("|") : [],
  }));
  const list = document.createElement("ul");
  list.id = "completions";
  list.className = "completions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "What may stand here");
  list.hidden = true;
  input.removeAttribute("list");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");
  input.after(list);
  let offered = [];
  let chosen = -1;

  // Behind a comparison of a field with known values those are offered, else the fields and functions.
  function offers() {
    const before = input.value.slice(0, input.selectionStart);
    const value = before.match(/([\w.]+)\s*(?:=|!=|<>|\bin\s*\((?:[^()]*,)?)\s*('?)([\w ]*)$/i);
    const field = value && words.find((word) => word.text === value[1].toLowerCase() || word.text === value[1]);
    if (field?.values.length) {
      const typed = value[3].toLowerCase();
      const from = before.length - value[2].length - value[3].length;
      return field.values
        .filter((text) => text.toLowerCase().startsWith(typed))
        .map((text) => ({ from, text: /^(true|false)$/.test(text) ? text : `'${text.replaceAll("'", "''")}'`, note: field.text }));
    }
    const word = before.match(/(?:^|[\s(])([a-z_][\w.]*)$/i);
    if (!word || (before.match(/'/g) ?? []).length % 2) return [];
    const typed = word[1].toLowerCase();
    const fitting = words.filter(({ text }) => text.toLowerCase().includes(typed) && text !== word[1]);
    fitting.sort((a, b) => b.text.toLowerCase().startsWith(typed) - a.text.toLowerCase().startsWith(typed));
    return fitting.map(({ text, note }) => ({ from: before.length - word[1].length, text, note }));
  }

  function show() {
    offered = offers().slice(0, MOST);
    chosen = -1;
    list.replaceChildren(
      ...offered.map(({ text, note }, index) => {
        const option = document.createElement("li");
        option.id = `completion-${index}`;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        const code = document.createElement("code");
        code.textContent = text;
        const said = document.createElement("span");
        said.className = "muted";
        said.textContent = note;
        option.append(code, " ", said);
        return option;
      }),
    );
    open(offered.length > 0);
  }

  function open(isOpen) {
    list.hidden = !isOpen;
    input.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) input.removeAttribute("aria-activedescendant");
  }

  function choose(index) {
    chosen = (index + offered.length) % offered.length;
    [...list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === chosen)));
    input.setAttribute("aria-activedescendant", `completion-${chosen}`);
  }

  function take(index) {
    const { from, text } = offered[index];
    const behind = text.endsWith("(") || text.endsWith("('") ? "" : " ";
    input.setRangeText(text + behind, from, input.selectionStart, "end");
    open(false);
    input.focus();
    show();
  }

  input.addEventListener("input", show);
  input.addEventListener("blur", () => open(false));
  input.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      show();
    } else if (list.hidden) {
      if (event.key === "ArrowDown") show();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? chosen + 1 : chosen < 0 ? -1 : chosen - 1);
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      event.preventDefault();
      take(chosen);
    } else if (event.key === "Escape") {
      event.preventDefault();
      open(false);
    }
  });
  list.addEventListener("mousedown", (event) => {
    const option = event.target.closest("[role=option]");
    event.preventDefault(); // the field keeps the focus
    if (option) take([...list.children].indexOf(option));
  });
}
