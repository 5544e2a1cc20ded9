"use strict";
(() => {
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message));
  const picture = document.getElementById("picture");
  const detail = document.getElementById("detail");
  const query = document.getElementById("query");
  const count = document.getElementById("count");
  const bar = document.getElementById("search");
  const machine = picture.querySelector(".machine");
  const links = [...picture.querySelectorAll(".link")].map((element) => ({
    element,
    column: Number(element.dataset.column),
    start: BigInt(element.dataset.start),
    end: BigInt(element.dataset.end),
    guest: BigInt(element.dataset.guest),
  }));
  const regions = [...picture.querySelectorAll(".region")].map((element) => ({
    element,
    column: Number(element.dataset.column),
    start: BigInt(element.dataset.start),
    end: BigInt(element.dataset.end),
    text: element.querySelector("title").textContent,
  }));
  // The machine's come first, as they are read.
  regions.sort((one, other) => one.column - other.column);
  const byElement = new Map(regions.map((region) => [region.element, region]));
  let current = regions[0];

  const joins = (link, region) => {
    if (region.column === 0) return link.start < region.end && region.start < link.end;
    const end = link.guest + (link.end - link.start);
    return link.column === region.column && link.guest < region.end && region.start < end;
  };
  const show = (region) => {
    detail.textContent = region.text;
    for (const link of links) link.element.classList.toggle("lit", joins(link, region));
  };
  // One region at a time can be reached by Tab; the arrow keys go on from there.
  const choose = (region, focus) => {
    if (current) current.element.setAttribute("tabindex", "-1");
    current = region;
    region.element.setAttribute("tabindex", "0");
    show(region);
    if (focus) region.element.focus({ preventScroll: true });
    reveal(region);
  };
  const reveal = (region) => {
    const box = region.element.querySelector(".body").getBoundingClientRect();
    const frame = picture.getBoundingClientRect();
    const fixed = region.column > 0 && sticky() ? machine.getBoundingClientRect().width : 0;
    if (box.left < frame.left + fixed) picture.scrollLeft -= frame.left + fixed - box.left + 8;
    if (box.right > frame.right) picture.scrollLeft += box.right - frame.right + 8;
    const top = bar.getBoundingClientRect().bottom + 8;
    const bottom = innerHeight - document.getElementById("details").offsetHeight - 8;
    if (box.top < top || box.top > bottom - 24) scrollBy(0, box.top - (top + bottom) / 3);
  };

  // The machine's column stays in sight where there is room for it beside a domain's.
  const sticky = () => picture.clientWidth > 640;
  const follow = () => {
    const left = sticky() ? picture.scrollLeft : 0;
    machine.setAttribute("transform", `translate(${left} 0)`);
  };
  picture.addEventListener("scroll", follow, { passive: true });
  addEventListener("resize", follow);

  picture.addEventListener("pointerover", (event) => {
    const region = byElement.get(event.target.closest(".region"));
    if (region) show(region);
  });
  picture.addEventListener("click", (event) => {
    const region = byElement.get(event.target.closest(".region"));
    if (region) choose(region, true);
  });
  picture.addEventListener("focusin", (event) => {
    const region = byElement.get(event.target.closest(".region"));
    if (region) show(region);
  });
  const beside = (region, step) => {
    const columns = regions.map((other) => other.column);
    const last = Math.max(...columns);
    for (let column = region.column + step; column >= 0 && column <= last; column += step) {
      const there = regions.filter((other) => other.column === column);
      if (there.length === 0) continue;
      return there.find((other) => other.end > region.start) ?? there[there.length - 1];
    }
    return undefined;
  };
  picture.addEventListener("keydown", (event) => {
    const region = byElement.get(event.target.closest(".region"));
    if (!region) return;
    const own = regions.filter((other) => other.column === region.column);
    const at = own.indexOf(region);
    const next = {
      ArrowUp: () => own[at - 1],
      ArrowDown: () => own[at + 1],
      ArrowLeft: () => beside(region, -1),
      ArrowRight: () => beside(region, 1),
      Home: () => own[0],
      End: () => own[own.length - 1],
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    choose(next, true);
  });

  const SHIFT = { KiB: 10n, MiB: 20n, GiB: 30n, TiB: 40n };
  // An address as the command takes it: hexadecimal or decimal, with underscores between digits and a unit behind them.
  const address = (text) => {
    const parts = /^(0x(?=[0-9a-fA-F])|(?=[0-9]))([0-9a-fA-F_]*[0-9a-fA-F])\s*([KMGT]iB)?$/.exec(text.trim());
    if (!parts) return undefined;
    const [, base, digits, unit] = parts;
    if (base === "" && !/^[0-9_]+$/.test(digits)) return undefined;
    const value = BigInt(base + digits.replaceAll("_", "")) << (SHIFT[unit] ?? 0n);
    return value < 1n << 64n ? value : undefined;
  };
  const matches = (text) => {
    if (text.trim() === "") return [];
    const value = address(text);
    if (value !== undefined) {
      return regions.filter((region) => region.start <= value && value < region.end);
    }
    const word = text.trim().toLowerCase();
    return regions.filter((region) => region.text.toLowerCase().includes(word));
  };
  let found = [];
  let place = -1;
  const tell = () => {
    if (query.value.trim() === "") count.textContent = "";
    else if (found.length === 0) count.textContent = "nothing found";
    else count.textContent = `${place + 1} of ${found.length}`;
  };
  const search = () => {
    for (const region of found) region.element.classList.remove("found");
    found = matches(query.value);
    for (const region of found) region.element.classList.add("found");
    place = found.length > 0 ? 0 : -1;
    if (place === 0) choose(found[0], false);
    tell();
  };
  query.addEventListener("input", search);
  bar.addEventListener("submit", (event) => {
    event.preventDefault();
    if (found.length === 0) return;
    place = (place + 1) % found.length;
    choose(found[place], false);
    tell();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === query) return;
    event.preventDefault();
    query.focus();
  });

  // The page looks at itself: #selftest writes what it found into its end.
  const overlapping = (texts) => {
    const boxes = texts.map((text) => ({ text, box: text.getBoundingClientRect() }));
    boxes.sort((one, other) => one.box.top - other.box.top);
    const clashes = [];
    boxes.forEach(({ text, box }, index) => {
      for (const other of boxes.slice(index + 1)) {
        if (other.box.top >= box.bottom - 1) break;
        if (other.box.left < box.right - 1 && box.left < other.box.right - 1) {
          clashes.push(`${text.textContent} / ${other.text.textContent}`);
        }
      }
    });
    return clashes;
  };
  const outside = (region) => {
    const body = region.element.querySelector(".body").getBoundingClientRect();
    return [...region.element.querySelectorAll("text")].some((text) => {
      const box = text.getBoundingClientRect();
      return box.left < body.left - 1 || box.right > body.right + 1 || box.bottom > body.bottom + 3;
    });
  };
  const selftest = () => {
    const checks = [];
    const check = (name, good, more) => checks.push({ name, good: Boolean(good), more: more ?? "" });
    const clashes = overlapping([...picture.querySelectorAll("text")]);
    check("no text lies on another", clashes.length === 0, clashes.slice(0, 5).join("; "));
    const wide = regions.filter(outside);
    check("every label lies in its region", wide.length === 0, wide.slice(0, 5).map((one) => one.text.split("\n")[0]).join("; "));
    check("every region has details", regions.every((region) => region.text.includes("0x")));
    const low = regions.filter((region) => region.element.querySelector(".body").getBoundingClientRect().height < 14);
    check("every region is high enough to be hit", low.length === 0, `${low.length} lower`);
    for (const region of [regions[0], regions[regions.length - 1]].filter(Boolean)) {
      query.value = `0x${region.start.toString(16)}`;
      search();
      const lit = region.element.classList.contains("found");
      check(`search finds ${query.value}`, lit, count.textContent);
      const box = current.element.querySelector(".body").getBoundingClientRect();
      check("what is found is in sight", box.top >= 0 && box.top < innerHeight, `${box.top} of ${innerHeight}`);
    }
    query.value = "no such name in any plan";
    search();
    check("what isn't there isn't found", count.textContent === "nothing found", count.textContent);
    query.value = "";
    search();
    if (regions.length > 1) {
      choose(regions[0], true);
      regions[0].element.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
      check("arrow keys move", document.activeElement === regions[1].element);
    }
    const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
    check("nothing is fetched", asked.length === 0, asked.join(" "));
    const wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    check("the page is no wider than its window", wider <= 0, `${wider} pixels`);
    check("no script failed", errors.length === 0, errors.join("; "));
    const list = document.createElement("pre");
    list.id = "selftest-result";
    list.textContent = checks.map(({ name, good, more }) => `${good ? "ok" : "FAILED"}: ${name}${good || !more ? "" : `: ${more}`}`).join("\n");
    document.body.append(list);
    document.documentElement.dataset.selftest = checks.every(({ good }) => good) ? "passed" : "failed";
  };

  if (current) current.element.setAttribute("tabindex", "0");
  follow();
  const decoded = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      // Somebody wrote it by hand: "100%".
      return text;
    }
  };
  const asked = decoded(location.hash.slice(1));
  if (asked === "selftest") {
    selftest();
  } else if (asked !== "" && !document.getElementById(asked)) {
    query.value = asked;
    search();
  }
})();
