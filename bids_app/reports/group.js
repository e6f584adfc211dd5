// The table of all results: shows a page at a time; sorts, filters and rates. The data are in the
// page as JSON (results_table.py). Text of a dataset is only ever added as text.
"use strict";
{
  const PAGE = 100;
  const MISSING = "n/a";
  const KEY = "brainstem ratings of " + location.pathname;
  const { columns, meanings, rows } = JSON.parse(document.getElementById("data").textContent);
  const [FLAGS, PARTICIPANT, RATING] = [0, 1, 2];
  const [SOURCE, SESSION, MODEL, VERSION, REPORTED, WHY, PLACES, PEERS] = [
    0, 1, 2, 3, 4, 5, 6, 7,
  ].map((i) => columns.length + i);
  const table = document.querySelector("table.results");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties, ...content) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...content);
    return made;
  };
  const own = (text) => make("bdi", {}, text);
  const identity = (row) => [row[SOURCE], row[MODEL], row[VERSION]].join("\t");
  const flags = (row) => (row[FLAGS] === MISSING ? [] : row[FLAGS].split(","));
  const failed = (row) => flags(row).includes("failed"); // no result, so nothing to rate
  const words = rows.map((row) => row.slice(0, PLACES).join("\t").toLowerCase());

  // --- ratings: those of the table, then those kept in this browser
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {} // no storage: ratings last until the page is closed
  for (const row of rows) {
    row[RATING] = failed(row) ? MISSING : (kept[identity(row)] ?? row[RATING]);
  }
  const rate = (row, rating) => {
    row[RATING] = rating;
    kept[identity(row)] = rating;
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {}
  };

  // --- what is shown, in which order
  let shown = rows.map((_, i) => i);
  let first = 0;
  let sorting = null; // [column, ascending]
  const texts = new Intl.Collator("en", { numeric: true });
  const value = (row, column) => (column === FLAGS ? String(flags(row).length) : row[column]);
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? texts.compare(a, b) : x - y;
  };
  const select = () => {
    const wanted = byId("find").value.trim().toLowerCase();
    const which = byId("show").value;
    const fits = (row) => {
      if (which === "all") return true;
      if (which === "flagged") return row[FLAGS] !== MISSING;
      if (which === "unflagged") return row[FLAGS] === MISSING;
      if (which === "unrated") return row[RATING] === MISSING && !failed(row);
      if (which.startsWith("flag:")) return flags(row).includes(which.slice(5));
      return row[RATING] === which;
    };
    shown = [];
    for (let i = 0; i < rows.length; i++) {
      if ((!wanted || words[i].includes(wanted)) && fits(rows[i])) shown.push(i);
    }
    if (sorting) {
      const [column, up] = sorting;
      const keyed = shown.map((i) => [value(rows[i], column), i]);
      // Missing values stay at the end in both directions.
      keyed.sort(
        ([a], [b]) => (a === MISSING) - (b === MISSING) || (up ? compare(a, b) : compare(b, a)),
      );
      shown = keyed.map(([, i]) => i);
    }
    first = 0;
    draw();
  };

  // --- drawing
  const badge = (flag) =>
    make("span", { className: "badge", title: meanings[flag] ?? "" }, own(flag));
  const link = (row) => {
    const name = own(row[PARTICIPANT]);
    if (!row[REPORTED]) return name;
    const place = [row[SOURCE], row[MODEL], row[VERSION]].join("-");
    const anchor = place.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
    return make("a", { href: `${encodeURIComponent(row[PARTICIPANT])}.html#${anchor}` }, name);
  };
  const rater = (row) => {
    const cell = make("td", { className: "rating" });
    if (failed(row)) {
      cell.append(make("span", { className: "quiet" }, MISSING));
      return cell;
    }
    for (const [rating, text] of [["pass", "Pass"], ["fail", "Fail"]]) {
      const button = make("button", { type: "button", className: rating }, text);
      button.setAttribute("aria-label", `${text}: ${row[SOURCE]}, ${row[MODEL]}`);
      button.setAttribute("aria-pressed", String(row[RATING] === rating));
      button.addEventListener("click", () => {
        rate(row, row[RATING] === rating ? MISSING : rating);
        for (const other of cell.children) {
          other.setAttribute("aria-pressed", String(other.className === row[RATING]));
        }
        count();
      });
      cell.append(button);
    }
    return cell;
  };
  const line = (row) => {
    const drawn = make("tr", { className: row[FLAGS] === MISSING ? "" : "flagged" });
    const places = row[PEERS] ? row[PLACES].values() : [].values();
    columns.forEach(({ kind }, column) => {
      if (kind === "flags") {
        const badges = flags(row).map(badge);
        const none = make("span", { className: "quiet" }, "none");
        const why = row[WHY] ? [make("small", {}, row[WHY])] : [];
        drawn.append(make("td", {}, ...(badges.length ? badges : [none]), ...why));
      } else if (kind === "participant") {
        drawn.append(make("th", { scope: "row" }, link(row)));
      } else if (kind === "rating") {
        drawn.append(rater(row));
      } else if (kind === "volume") {
        const place = places.next().value;
        const among = place ? [make("small", {}, `${many(place)} of ${many(row[PEERS])}`)] : [];
        drawn.append(make("td", { className: "number" }, row[column], ...among));
      } else if (kind === "number") {
        drawn.append(make("td", { className: "number" }, row[column]));
      } else {
        drawn.append(make("td", {}, own(row[column])));
      }
    });
    return drawn;
  };
  const results = rows.filter((row) => !failed(row)).length;
  const many = (n) => n.toLocaleString("en");
  const count = () => {
    const rated = { pass: 0, fail: 0 };
    for (const row of rows) if (row[RATING] in rated) rated[row[RATING]] += 1;
    const without = shown.filter((i) => failed(rows[i])).length;
    byId("count").textContent =
      `${many(shown.length - without)} of ${many(results)} results` +
      `${without ? `, ${many(without)} failed` : ""}; ` +
      `rated ${many(rated.pass)} pass, ${many(rated.fail)} fail.`;
  };
  const places = make("span", {});
  const [back, on] = ["Previous page", "Next page"].map((text, i) => {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      first += i ? PAGE : -PAGE;
      draw();
      table.parentElement.scrollTop = 0;
    });
    return button;
  });
  const draw = () => {
    const last = Math.min(first + PAGE, shown.length);
    body.replaceChildren(...shown.slice(first, last).map((i) => line(rows[i])));
    places.textContent = shown.length
      ? `${many(first + 1)} to ${many(last)} of ${many(shown.length)}`
      : "no matching results";
    back.disabled = first === 0;
    on.disabled = last >= shown.length;
    count();
  };

  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sorting = [column, up];
      select();
    });
  });
  let typing = 0;
  byId("find").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(select, 150);
  });
  byId("show").addEventListener("change", select);

  // --- ratings as a table (TSV)
  const HEAD = ["participant_id", "session_id", "source", "model", "model_version", "rating"];
  byId("export").addEventListener("click", () => {
    const lines = rows
      .filter((row) => row[RATING] !== MISSING)
      .map((row) => [PARTICIPANT, SESSION, SOURCE, MODEL, VERSION, RATING].map((i) => row[i]));
    const text = [HEAD, ...lines].map((cells) => cells.join("\t")).join("\n") + "\n";
    const address = URL.createObjectURL(new Blob([text], { type: "text/tab-separated-values" }));
    make("a", { href: address, download: "group_ratings.tsv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  byId("import").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const [head, ...lines] = (await file.text()).replace(/^\ufeff/, "").split(/\r?\n/);
    const places = ["source", "model", "model_version", "rating"].map((name) =>
      head.split("\t").indexOf(name),
    );
    if (places.includes(-1)) {
      byId("count").textContent = 
        "This file has no tab-separated columns source, model, model_version, rating.";
      return;
    }
    const found = new Map(rows.map((row) => [identity(row), row]));
    let taken = 0;
    for (const text of lines.filter(Boolean)) {
      const cells = text.split("\t");
      const [source, model, version, rating] = places.map((i) => cells[i]);
      const row = found.get([source, model, version].join("\t"));
      if (row && !failed(row) && ["pass", "fail", MISSING].includes(rating)) {
        rate(row, rating);
        taken += 1;
      }
    }
    select();
    byId("count").textContent += ` Imported ${many(taken)} of ${many(lines.filter(Boolean).length)}.`;
    event.target.value = "";
  });

  byId("pages").append(back, places, on);
  byId("pages").hidden = false;
  byId("controls").hidden = false;
  draw();
}
