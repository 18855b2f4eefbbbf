"use strict";
const $ = (id) => document.getElementById(id);
const make = (tag, attributes, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

// ---- tables sort by a click on a heading, and filter where they are long
const numberOf = (text) => {
  const match = text.replace(/,/g, "").match(/-?\d+(\.\d+)?(e[+-]?\d+)?/i);
  return match ? Number(match[0]) : NaN;
};
function sortBy(table, column, isAscending) {
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const isNumber = table.tHead.rows[0].cells[column].classList.contains("number");
  const rows = Array.from(body.rows);
  rows.sort((a, b) => {
    if (!isNumber) return (isAscending ? 1 : -1) * text(a).localeCompare(text(b), undefined, { numeric: true });
    const [x, y] = [numberOf(text(a)), numberOf(text(b))];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return (isAscending ? 1 : -1) * (x - y);
  });
  body.append(...rows);
}
for (const table of document.querySelectorAll("figure.table table")) {
  if (table.tBodies[0].rows.length < 4) continue;
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = make("button", { type: "button", className: "sort", title: "Sort" });
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const isAscending = cell.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      sortBy(table, column, isAscending);
    });
  });
  if (table.tBodies[0].rows.length < 18) continue;
  const filter = make("input", { type: "search", className: "filter", placeholder: "Filter rows" });
  filter.setAttribute("aria-label", "Filter rows of this table");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.closest(".scroll").before(filter);
}

// ---- a link into a closed part opens it; paper shows everything
const address = () => {
  try { return decodeURIComponent(location.hash.slice(1)); } catch (error) { return ""; /* no address of this page */ }
};
const reveal = () => {
  const target = address() && $(address());
  for (let at = target && target.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
};
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
