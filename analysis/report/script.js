"use strict";
// What the page can do beyond its text: filter and sort the runs, enlarge a figure. All else works without this.
(() => {
  const form = document.getElementById("filters");
  const table = document.getElementById("run-table");
  const body = table.tBodies[0];
  const shown = document.getElementById("shown");
  const heads = [...table.tHead.rows[0].cells];
  const columns = heads.map((head) => head.textContent.trim());
  const count = (number) => number.toLocaleString("en");
  const valueOf = (cell) => (cell.querySelector(".word") || cell).textContent.trim();
  const rows = [...body.rows].map((element) => {
    const values = [...element.cells].map(valueOf);
    return { element, values, text: values.join(" ").toLowerCase() };
  });
  let sorted = null; // {column, descending}

  function wanted() {
    return new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  }

  function apply() {
    const chosen = wanted();
    const words = (chosen.get("text") || "").toLowerCase().split(/\s+/).filter(Boolean);
    chosen.delete("text");
    const tests = [...chosen].map(([axis, value]) => [columns.indexOf(axis), value]);
    let left = 0;
    for (const row of rows) {
      const fits = tests.every(([column, value]) => row.values[column] === value) && words.every((word) => row.text.includes(word));
      row.element.hidden = !fits;
      left += fits;
    }
    shown.textContent = left === rows.length ? `${count(left)} runs` : `${count(left)} of ${count(rows.length)} runs shown`;
  }

  function sort(column, descending) {
    const numeric = heads[column].dataset.kind === "number";
    const key = (row) => (numeric ? parseFloat(row.values[column]) : row.values[column]);
    const empty = (value) => value === "" || Number.isNaN(value);
    const order = new Map(rows.map((row, position) => [row, position]));
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (empty(a) || empty(b)) return empty(a) - empty(b) || order.get(one) - order.get(other);
      const difference = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
      return (descending ? -difference : difference) || order.get(one) - order.get(other);
    };
    body.append(...[...rows].sort(compare).map((row) => row.element));
    heads.forEach((head, position) => {
      if (position === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    sorted = { column, descending };
  }

  function unsort() {
    body.append(...rows.map((row) => row.element));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    sorted = null;
  }

  function clear() {
    for (const field of form.elements) if (field.name) field.value = "";
    if (sorted) unsort();
    apply();
  }

  // The view is in the address, "#runs?state=failed&sort=-epoch", so that it can be sent to someone.
  function remember() {
    const view = wanted();
    if (sorted) view.set("sort", (sorted.descending ? "-" : "") + columns[sorted.column]);
    const query = view.toString();
    history.replaceState(history.state, "", query ? `#runs?${query}` : "#runs");
  }

  function recall() {
    const hash = location.hash;
    if (hash === "#runs") {
      if (wanted().size || sorted) remember();
    } else if (hash.startsWith("#runs?")) {
      const view = new URLSearchParams(hash.slice("#runs?".length));
      for (const field of form.elements) if (field.name) field.value = view.get(field.name) || "";
      const by = view.get("sort") || "";
      const column = columns.indexOf(by.replace(/^-/, ""));
      if (column >= 0) sort(column, by.startsWith("-"));
      else unsort();
      apply();
      document.getElementById("runs").scrollIntoView();
    } else if (hash.startsWith("#row-")) {
      const row = document.getElementById(decodeURIComponent(hash.slice(1)));
      if (row && row.hidden) {
        clear();
        row.scrollIntoView({ block: "center" });
      }
    }
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = columns[column];
    button.addEventListener("click", () => {
      sort(column, sorted !== null && sorted.column === column && !sorted.descending);
      remember();
    });
    head.replaceChildren(button);
  });
  form.hidden = false;
  form.addEventListener("input", () => { apply(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", () => { clear(); remember(); });
  addEventListener("hashchange", recall);
  clear(); // a browser may have kept the fields on reload
  recall();
  addEventListener("pageshow", apply); // or fill them in later, when one goes back to this page

  const dialog = document.getElementById("zoom");
  const sheet = dialog.querySelector(".sheet");
  const picture = document.getElementById("zoomed");
  let opener = null;
  let width = 0;

  const fitting = () => Math.min(sheet.clientWidth, (sheet.clientHeight * picture.naturalWidth) / picture.naturalHeight);
  function resize(to) {
    const middle = [(sheet.scrollLeft + sheet.clientWidth / 2) / (width || 1), (sheet.scrollTop + sheet.clientHeight / 2) / (width || 1)];
    width = Math.max(100, Math.min(to, 12 * fitting()));
    picture.style.width = `${width}px`;
    sheet.scrollLeft = middle[0] * width - sheet.clientWidth / 2;
    sheet.scrollTop = middle[1] * width - sheet.clientHeight / 2;
  }
  const actions = {
    in: () => resize(width * 1.4),
    out: () => resize(width / 1.4),
    fit: () => resize(fitting()),
    close: () => dialog.close(),
  };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "fit" };

  for (const figure of document.querySelectorAll("figure")) {
    const image = figure.querySelector("img");
    const button = figure.querySelector(".enlarge");
    const open = async () => {
      opener = button;
      document.getElementById("zoom-title").textContent = figure.querySelector("figcaption b").textContent;
      picture.src = image.src;
      picture.alt = image.alt;
      dialog.showModal();
      sheet.focus();
      await picture.decode().catch(() => {});
      width = 0;
      actions.fit();
    };
    button.hidden = false;
    image.classList.add("zoomable");
    button.addEventListener("click", open);
    image.addEventListener("click", open);
  }
  for (const button of dialog.querySelectorAll("[data-do]")) button.addEventListener("click", () => actions[button.dataset.do]());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    actions[keys[event.key]]();
  });
  dialog.addEventListener("close", () => { if (opener) opener.focus(); });
})();
