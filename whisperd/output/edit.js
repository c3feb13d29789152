// Corrections: what the reader changes is kept in the browser, and saved as a file for the inbox or as a transcript. Text is
// only ever put in as text, never as markup.
(() => {
  "use strict";
  const { byId, all, media, clock, go, say, plain, reload, KEYS } = page;
  const main = byId("transcript"), list = byId("cues"), tools = byId("tools"), person = byId("person");
  const KEY = `whisperd-corrections-${main.dataset.key}`, FILE_BYTES = 512 * 1024, TEXT_MAX = 10000, UNDO_MAX = 500;
  const SEPARATE = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff9f]/; // scripts without spaces
  const clean = (text) => (text.toWellFormed?.() ?? text).replace(/[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+/g, " ").trim();
  const between = (a, b) => (SEPARATE.test(a.slice(-1)) && SEPARATE.test(b.charAt(0)) ? "" : " ");
  const glued = (a, b) => (a && b ? a + between(a, b) + b : a + b);

  // The cues: a cue is a segment of the recorded transcript, or several, or a part of one

  const pristine = [...main.childNodes];
  const originals = (() => {
    const found = new Map();
    let index = -1, who = null;
    for (const row of main.children) {
      if (row.matches(".who")) who = row.textContent;
      if (!row.matches(".s")) continue;
      const said = row.querySelector(".x"), texts = document.createTreeWalker(said, NodeFilter.SHOW_TEXT);
      let gap = null;
      for (let node; (node = texts.nextNode()); ) {
        const piece = node.parentElement.closest("[data-s]:not(.q)");
        if (!piece || !said.contains(piece)) {
          gap = node.data;
          continue;
        }
        if (piece.dataset.g !== undefined) index = Number(piece.dataset.g);
        const start = Number(piece.dataset.s);
        let cue = found.get(index);
        if (!cue) {
          cue = { first: index, last: index, start, end: start, text: "", who, lang: said.lang, pieces: [] };
          found.set(index, cue);
        }
        if (piece.dataset.e !== undefined) cue.end = Number(piece.dataset.e);
        if (cue.text) cue.text += gap ?? between(cue.text, node.data);
        cue.pieces.push({ at: cue.text.length, start, node: piece });
        cue.text += node.data;
        gap = "";
      }
    }
    for (const cue of found.values()) Object.freeze(cue);
    return found;
  })();
  const speakers = [...new Set([...originals.values()].map((cue) => cue.who).filter((who) => who !== null))];

  // What is changed now, and what was before

  let state = { cues: [...originals.values()].sort((a, b) => a.first - b.first), names: {} };
  let past = [], future = [], typing = null, isKept = true;
  const nameOf = (who) => (who === null ? null : Object.hasOwn(state.names, who) ? state.names[who] : who);
  const isOriginal = (cue) => originals.get(cue.first) === cue;

  // Groups of cues that take the place of the same segments, and differ from them
  const groups = () => {
    const all = [];
    for (const cue of state.cues) {
      const last = all[all.length - 1];
      if (last && cue.first <= last.last) {
        last.last = Math.max(last.last, cue.last);
        last.cues.push(cue);
      } else {
        all.push({ first: cue.first, last: cue.last, cues: [cue] });
      }
    }
    const covered = new Set(all.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, by) => first + by)));
    const gone = [...originals.keys()].filter((index) => !covered.has(index)).map((index) => ({ first: index, last: index, cues: [] }));
    return [...all.filter(({ cues }) => cues.length > 1 || !isOriginal(cues[0])), ...gone].sort((a, b) => a.first - b.first);
  };
  const renamed = () => Object.fromEntries(speakers.filter((who) => nameOf(who) !== who).map((who) => [who, nameOf(who)]));

  const keep = (changed) => {
    const slim = changed.map(({ first, last, cues }) => ({
      first, last, cues: cues.map((cue) => ({ first: cue.first, last: cue.last, start: cue.start, end: cue.end, text: cue.text, who: cue.who })),
    }));
    try {
      if (slim.length || Object.keys(state.names).length) localStorage.setItem(KEY, JSON.stringify({ groups: slim, names: state.names }));
      else localStorage.removeItem(KEY);
      isKept = true;
    } catch {
      if (isKept) say("This browser keeps nothing: save your corrections before you leave");
      isKept = false;
    }
  };
  const restore = () => {
    const isWhole = (value) => Number.isInteger(value) && value >= 0;
    const isName = (value) => typeof value === "string" && value.length <= 100 && clean(value) === value;
    const isCue = (cue) =>
      isWhole(cue.first) && isWhole(cue.last) && cue.first <= cue.last && Number.isFinite(cue.start) && Number.isFinite(cue.end) &&
      typeof cue.text === "string" && cue.text.length <= TEXT_MAX && (cue.who === null || isName(cue.who));
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      if (!kept) return;
      const names = Object.fromEntries(Object.entries(kept.names).filter((each) => each.every(isName)));
      let cues = state.cues;
      for (const { first, last, cues: own } of kept.groups) {
        if (!isWhole(first) || !isWhole(last) || !own.every(isCue)) return;
        const at = cues.findIndex((cue) => cue.first >= first && cue.last <= last);
        if (at < 0) return;
        const rest = cues.filter((cue) => cue.first < first || cue.last > last);
        rest.splice(at, 0, ...own.map((cue) => ({ ...cue, lang: originals.get(cue.first)?.lang ?? "", pieces: [] })));
        cues = rest;
      }
      state = { cues, names };
    } catch {
      // nothing is kept, or it is damaged
    }
  };

  const commit = (next, { isTyping = false } = {}) => {
    if (!isTyping) typing = null;
    if (!isTyping || future.length || typing === null) {
      past.push(state);
      if (past.length > UNDO_MAX) past.shift();
    }
    future = [];
    state = { ...state, ...next };
    tell();
  };
  const travel = (from, to) => {
    if (!from.length) return say("Nothing more");
    typing = null;
    to.push(state);
    state = from.pop();
    tell();
    const at = Number(document.activeElement.closest?.(".cue")?.dataset.i ?? 0);
    draw();
    focus(Math.min(at, state.cues.length - 1));
  };
  const undo = () => travel(past, future);
  const redo = () => travel(future, past);
  const tell = () => {
    const changed = groups(), count = changed.length + Object.keys(renamed()).length;
    byId("undo").disabled = !past.length;
    byId("redo").disabled = !future.length;
    byId("changes").textContent = count ? `${count} change${count > 1 ? "s" : ""}` : "";
    keep(changed);
    return count;
  };

  // The cues as fields

  const rowOf = new WeakMap();
  const grow = (area) => {
    if (CSS.supports("field-sizing", "content")) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  };
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && grow(entry.target)));
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const newRow = () => {
    const area = make("textarea", { rows: 1, dir: "auto", maxLength: TEXT_MAX, spellcheck: true });
    seen.observe(area);
    return make("div", { className: "cue" }, make("a", { className: "t" }), make("button", { className: "by", type: "button" }), area);
  };
  const fill = (row, cue, index) => {
    const [time, by, area] = row.children, name = nameOf(cue.who);
    row.dataset.i = index;
    time.textContent = clock(cue.start);
    time.href = `#t=${cue.start}`;
    by.textContent = name ?? "Speaker?";
    by.className = `by${cue.who === null ? " soft" : ` w${Math.max(0, speakers.indexOf(cue.who)) % 6}`}`;
    by.setAttribute("aria-label", `Speaker: ${name ?? "not known"}`);
    area.lang = cue.lang || main.lang;
    area.setAttribute("aria-label", `${clock(cue.start)} ${name ?? ""}`);
    if (area.value !== cue.text) {
      area.value = cue.text;
      grow(area);
    }
  };
  const draw = () => {
    tools.hidden = true;
    document.body.append(tools);
    const rows = state.cues.map((cue, index) => {
      const row = rowOf.get(cue) ?? newRow();
      rowOf.set(cue, row);
      fill(row, cue, index);
      return row;
    });
    list.replaceChildren(...rows);
  };
  const focus = (index, caret = null) => {
    const area = list.children[index]?.querySelector("textarea");
    if (!area) return;
    area.focus();
    if (caret !== null) area.setSelectionRange(caret, caret);
  };
  const replace = (index, count, ...cues) => [...state.cues.slice(0, index), ...cues, ...state.cues.slice(index + count)];
  const written = (cue, changes) => ({ ...cue, pieces: [], ...changes });

  const split = (index, caret) => {
    const cue = state.cues[index], before = clean(cue.text.slice(0, caret)), after = clean(cue.text.slice(caret));
    if (!before || !after) return say("Put the cursor between two words");
    const lead = cue.text.slice(caret).search(/\S/);
    const piece = cue.pieces.find((each) => each.at >= caret + lead);
    const time = piece ? piece.start : cue.start + ((cue.end - cue.start) * caret) / cue.text.length;
    commit({ cues: replace(index, 1, written(cue, { text: before, end: time }), written(cue, { text: after, start: time })) });
    draw();
    focus(index + 1, 0);
  };
  const join = (index) => {
    const cue = state.cues[index], next = state.cues[index + 1];
    if (!cue || !next) return say("There is nothing to join with");
    const text = glued(clean(cue.text), clean(next.text));
    if (text.length > TEXT_MAX) return say("That would be too long");
    const joined = { first: Math.min(cue.first, next.first), last: Math.max(cue.last, next.last) };
    commit({ cues: replace(index, 2, written(cue, { ...joined, text, end: Math.max(cue.end, next.end) })) });
    draw();
    focus(index, text.length - clean(next.text).length);
  };
  const remove = (index) => {
    commit({ cues: replace(index, 1) });
    draw();
    focus(Math.min(index, state.cues.length - 1));
  };
  const ask = (index) => {
    const cue = state.cues[index], name = nameOf(cue.who);
    byId("people").replaceChildren(...new Set(state.cues.map((each) => nameOf(each.who)).filter(Boolean)).keys().map((value) => make("option", { value })));
    byId("name").value = name ?? "";
    byId("everywhere").hidden = name === null;
    person.returnValue = "";
    person.onclose = () => {
      const wanted = clean(byId("name").value).slice(0, 100);
      if (person.returnValue && wanted && wanted !== name) {
        if (person.returnValue === "everywhere") {
          const same = [...new Set(state.cues.map((each) => each.who))].filter((who) => who !== null && nameOf(who) === name);
          commit({ names: { ...state.names, ...Object.fromEntries(same.map((who) => [who, wanted])) } });
        } else {
          const known = [...speakers, ...state.cues.map((each) => each.who)].find((who) => who !== null && nameOf(who) === wanted);
          const who = known ?? (speakers.includes(wanted) ? `${wanted} ` : wanted); // a new person with the old name of another
          commit({ cues: replace(index, 1, written(cue, { who })), names: known ? state.names : { ...state.names, [who]: wanted } });
        }
        draw();
      }
      list.children[index]?.querySelector(".by").focus();
    };
    person.showModal();
    byId("name").select();
  };

  const indexOf = (element) => Number(element.closest(".cue").dataset.i);
  list.addEventListener("focusin", (event) => {
    const row = event.target.closest(".cue");
    if (!row || tools.parentElement === row) return;
    row.append(tools);
    tools.hidden = false;
  });
  list.addEventListener("input", ({ target, data, inputType }) => {
    const index = indexOf(target), old = state.cues[index];
    if (typing !== index || /\s/.test(data ?? "") || inputType === "insertFromPaste") typing = null;
    const cue = written(old, { text: target.value.replace(/[\r\n]+/g, " ") });
    rowOf.set(cue, target.closest(".cue"));
    commit({ cues: replace(index, 1, cue) }, { isTyping: true });
    typing = index;
    grow(target);
  });
  list.addEventListener("focusout", () => (typing = null));
  list.addEventListener("click", (event) => {
    const { target } = event, row = target.closest(".cue");
    if (!row) return;
    const index = indexOf(row), area = row.querySelector("textarea");
    if (target.matches(".t")) {
      event.preventDefault();
      go(state.cues[index].start);
    } else if (target.matches(".by")) ask(index);
    else if (target.dataset.do === "play") go(state.cues[index].start, { play: true });
    else if (target.dataset.do === "split") split(index, area.selectionStart);
    else if (target.dataset.do === "join") join(index);
    else if (target.dataset.do === "remove") remove(index);
  });
  list.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.isComposing || event.altKey || !target.matches("textarea")) return;
    const index = indexOf(target), at = target.selectionStart, isCaret = at === target.selectionEnd, end = target.value.length;
    const isControl = event.ctrlKey || event.metaKey;
    let act = null;
    if (key === "Enter" && isControl) act = () => go(state.cues[index].start, { play: true });
    else if (isControl) return;
    else if (key === "Enter") act = () => (target.value.slice(at).trim() ? split(index, at) : focus(index + 1, 0));
    else if (key === "Backspace" && isCaret && at === 0 && index > 0) act = () => join(index - 1);
    else if (key === "Delete" && isCaret && at === end && index + 1 < state.cues.length) act = () => join(index);
    else if (key === "ArrowUp" && isCaret && at === 0) act = () => focus(index - 1, 0);
    else if (key === "ArrowDown" && isCaret && at === end) act = () => focus(index + 1, 0);
    if (!act) return;
    event.preventDefault();
    act();
  });

  // Reading with the corrections: paragraphs as the page has them, of one speaker and not too long

  const piecesOf = (cue) => {
    if (!isOriginal(cue)) return [make("span", { textContent: clean(cue.text) })];
    return cue.pieces.flatMap(({ at, node }, number) => {
      const until = cue.pieces[number - 1];
      const gap = until ? cue.text.slice(until.at + until.node.textContent.length, at) : "";
      return [gap, node.cloneNode(true)];
    });
  };
  const read = () => {
    if (!groups().length && !Object.keys(renamed()).length) {
      main.replaceChildren(...pristine);
      byId("kept").textContent = "";
      return reload();
    }
    const gaps = pristine.filter((node) => node.matches?.(".gap"));
    const startOf = (gap) => Number(gap.querySelector("a").hash.slice(3));
    const made = [];
    let row = null, before = null, shown = null;
    for (const cue of state.cues) {
      if (!clean(cue.text)) continue;
      const name = nameOf(cue.who), pause = before ? cue.start - before.end : 0;
      const isNew = !before || nameOf(before.who) !== name || before.lang !== cue.lang || pause >= 2 || (row.textContent.length > 900 && /[.!?…。！？]\W*$/.test(before.text));
      if (isNew) {
        while (gaps.length && startOf(gaps[0]) < cue.start) made.push(gaps.shift());
        if (name !== null && name !== shown) made.push(make("h2", { className: `who w${Math.max(0, speakers.indexOf(cue.who)) % 6}`, dir: "auto", textContent: name }));
        shown = name;
        row = make("span", { className: "x", lang: cue.lang, dir: "auto" });
        if (!cue.lang) row.removeAttribute("lang");
        const paragraph = make("p", { className: "s" }, make("a", { className: "t", href: `#t=${cue.start}`, textContent: clock(cue.start) }), " ", row);
        paragraph.dataset.s = cue.start;
        made.push(paragraph, "\n");
      } else row.append(between(clean(before.text), clean(cue.text)));
      const sentence = make("span", { className: "q" }, ...piecesOf(cue));
      sentence.dataset.s = cue.start;
      for (const piece of all("span", sentence)) piece.dataset.s ??= cue.start;
      row.append(sentence);
      before = cue;
    }
    main.replaceChildren(...made, ...gaps);
    byId("kept").textContent = "You read the text with your corrections, which only this browser has: save them for everybody.";
    reload();
  };

  // Files

  const recording = (() => {
    try {
      return decodeURIComponent((media.getAttribute("src") || "").split("/").pop());
    } catch {
      return ""; // its name is not UTF-8: that of the file must do
    }
  })();
  const folder = () => {
    const found = /^(\.\.\/)+done\/(.*\/)?[^/]*$/.exec(media.getAttribute("src") || "");
    try {
      return `inbox/${decodeURIComponent(found?.[2] ?? "")}`;
    } catch {
      return "the folder of the recording in inbox/";
    }
  };
  const title = document.title;
  const download = (name, text, type) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const correction = () => {
    const segments = [], news = new Set(), known = new Set(speakers.map(nameOf));
    for (const { first, last, cues } of groups()) {
      const id = first === last ? `${first}` : `${first}-${last}`;
      const old = [...originals.values()].filter((cue) => cue.first >= first && cue.first <= last).sort((a, b) => a.first - b.first);
      const spoken = cues.filter((cue) => clean(cue.text));
      if (!spoken.length) segments.push({ id, text: "" });
      for (const cue of spoken) {
        const entry = { id }, text = clean(cue.text);
        if (spoken.length > 1 || text !== clean(old.map((each) => each.text).reduce(glued, ""))) entry.text = text;
        if (cue.who !== null && cue.who !== old[0]?.who) {
          entry.speaker = nameOf(cue.who);
          if (!known.has(entry.speaker)) news.add(entry.speaker);
        }
        segments.push(entry);
      }
    }
    const content = { correction: true, transcript: main.dataset.transcript };
    if (recording) content.recording = recording;
    if (Object.keys(renamed()).length) content.speakers = renamed();
    if (news.size) content.new_speakers = [...news];
    const entries = segments.map((each) => ` ${JSON.stringify(each)}`).join(",\n");
    const head = JSON.stringify(content, null, 1).slice(0, -2);
    return segments.length ? `${head},\n "segments": [\n${entries}\n ]\n}\n` : `${head}\n}\n`;
  };
  const save = () => {
    if (!main.dataset.transcript) return say("There is no json of this recording to be corrected: save the text as it is");
    if (!tell()) return say("Nothing is changed");
    const text = correction(), name = `${recording || title}.correction.yaml`;
    if (new Blob([text]).size > FILE_BYTES) return say("These are too many corrections for one file");
    download(name, text, "application/yaml");
    say(`Put ${name} into ${folder()}`, 15000);
  };

  const stamp = (seconds, mark) => {
    const whole = Math.round(seconds * 1000), two = (number) => String(number).padStart(2, "0");
    return `${two(Math.floor(whole / 3600000))}:${two(Math.floor(whole / 60000) % 60)}:${two(Math.floor(whole / 1000) % 60)}${mark}${String(whole % 1000).padStart(3, "0")}`;
  };
  // Lines of at most 42 characters, two in a subtitle
  const lines = (text) => {
    const width = SEPARATE.test(text) ? 16 : 42, found = [];
    for (const piece of text.match(SEPARATE.test(text) ? /\s*./gu : /\s*\S+/g) ?? []) {
      if (found.length && (found[found.length - 1] + piece).length <= width) found[found.length - 1] += piece;
      else found.push(piece.trimStart());
    }
    return found;
  };
  const subtitles = function* () {
    for (const cue of state.cues) {
      const own = lines(clean(cue.text)), whole = own.join("").length;
      let start = cue.start;
      for (let at = 0; at < own.length; at += 2) {
        const text = own.slice(at, at + 2), end = start + ((cue.end - cue.start) * text.join("").length) / whole;
        yield { start, end: Math.max(end, start + 0.001), text: text.join("\n"), name: nameOf(cue.who) };
        start = end;
      }
    }
  };
  const FORMATS = {
    txt: () => plain(),
    srt: () => {
      let last = null;
      return [...subtitles()].map(({ start, end, text, name }, number) => {
        const label = name !== null && name !== last ? `${name}: ` : "";
        last = name;
        return `${number + 1}\n${stamp(start, ",")} --> ${stamp(end, ",")}\n${label}${text.replaceAll("-->", "->")}\n`;
      }).join("\n");
    },
    vtt: () => {
      const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
      return `WEBVTT\n\n${[...subtitles()].map(({ start, end, text, name }) => `${stamp(start, ".")} --> ${stamp(end, ".")}\n${name === null ? "" : `<v ${escaped(name)}>`}${escaped(text)}\n`).join("\n")}`;
    },
    md: () => {
      const escaped = (text) => text.replace(/[\\`*_{}[\]<>#~|&$!]/g, "\\$&");
      const parts = all(".s", main).map((row) => {
        let by = row;
        while (by && !by.matches(".who")) by = by.previousElementSibling;
        return `**${row.querySelector(".t").textContent}${by ? ` ${escaped(by.textContent)}:` : ""}** ${escaped(row.querySelector(".x").textContent)}\n`;
      });
      return [`# ${escaped(title)}\n`, ...parts].join("\n");
    },
  };
  const saveAs = (kind) => {
    read();
    const stem = (recording || title).replace(/\.[^./]{1,32}$/, "");
    download(`${stem}.${kind}`, FORMATS[kind](), "text/plain");
    say(`${stem}.${kind} saved`);
  };

  // What the reader does

  const isOpen = () => !list.hidden;
  const open = (on) => {
    if (on === isOpen()) return;
    list.hidden = !on;
    main.hidden = on;
    byId("edit").hidden = !on;
    document.body.classList.toggle("correcting", on);
    byId("correct").setAttribute("aria-pressed", String(on));
    const covered = byId("player").offsetHeight; // on a phone only the rows of controls stay, see the style sheet
    document.documentElement.style.scrollPaddingTop = on && covered ? `${covered + 12}px` : "";
    if (on) {
      byId("kept").textContent = "";
      draw();
      tell();
      const now = state.cues.findLastIndex((cue) => cue.start <= media.currentTime + 0.01);
      focus(Math.max(0, now), 0);
      list.children[Math.max(0, now)]?.scrollIntoView({ block: "center" });
    } else {
      read();
      byId("correct").focus();
    }
  };
  byId("correct").onclick = () => open(!isOpen());
  byId("undo").onclick = undo;
  byId("redo").onclick = redo;
  byId("save").onclick = save;
  for (const button of all("[data-as]")) button.onclick = () => saveAs(button.dataset.as);
  KEYS.e = () => open(!isOpen());
  addEventListener("keydown", (event) => {
    if (!isOpen() || event.isComposing || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase(), isControl = (event.ctrlKey || event.metaKey) && !event.altKey;
    let act = null;
    if (key === "escape") act = () => open(false);
    else if (isControl && (key === "y" || (key === "z" && event.shiftKey))) act = redo;
    else if (isControl && key === "z") act = undo;
    else if (isControl && key === "s") act = save;
    if (!act) return;
    event.preventDefault();
    act();
  });
  media.addEventListener("timeupdate", () => {
    if (!isOpen()) return;
    const now = state.cues.findLastIndex((cue) => cue.start <= media.currentTime + 0.01);
    list.querySelector(".now")?.classList.remove("now");
    list.children[now]?.classList.add("now");
  });
  addEventListener("beforeunload", (event) => !isKept && event.preventDefault());

  if (!originals.size) byId("correct").hidden = true;
  restore();
  if (groups().length || Object.keys(renamed()).length) read();
})();
