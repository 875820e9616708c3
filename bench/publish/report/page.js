// Sorting and filtering of tables, and links into what is folded. The page is whole without it.
"use strict";
const number = (cell) => {
  const given = cell.dataset.number ?? cell.textContent.trim().match(/^[<>≈]?\s*([-+−]?\d[\d.,]*)/)?.[1];
  return given === undefined ? NaN : parseFloat(String(given).replace("−", "-").replaceAll(",", ""));
};
const order = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y;
  return a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
};
const empty = (cell) => /^(-|–|not run.*)?$/.test(cell.textContent.trim()); // last, whichever way

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows];
      rows.sort((one, other) => {
        const [a, b] = [one.cells[column], other.cells[column]];
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return down ? order(b, a) : order(a, b);
      });
      body.append(...rows);
    });
  });
}

function filters(form) {
  const rows = [...form.parentElement.querySelector("table").tBodies[0].rows];
  const boxes = [...form.querySelectorAll("input")];
  const apply = () => {
    const wanted = {};
    for (const box of boxes) {
      wanted[box.name] ??= new Set();
      if (box.checked) wanted[box.name].add(box.value);
    }
    let shown = 0;
    for (const row of rows) {
      const cells = [...row.querySelectorAll("[data-axis]")];
      row.hidden = !cells.every((cell) => {
        const chosen = wanted[cell.dataset.axis]; // nothing chosen: no filter
        return chosen.size === 0 || chosen.has(cell.firstChild.textContent.trim());
      });
      shown += !row.hidden;
    }
    form.querySelector("output").textContent = `(${shown} of ${rows.length} shown)`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector(".all").addEventListener("click", () => {
    boxes.forEach((box) => { box.checked = false; });
    apply();
  });
  form.hidden = false;
  form.firstElementChild.open = innerWidth > 700; // a phone shows the rows first
  apply();
}

function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target || null; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
}

for (const table of document.querySelectorAll("table")) {
  if (table.tHead && table.tBodies[0]?.rows.length > 1) sortable(table);
}
document.querySelectorAll("form.filters").forEach(filters);
addEventListener("hashchange", unfold);
unfold();
