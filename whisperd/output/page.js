// The player and the text follow each other. Without this script the page is readable text with the browser's own player.
const page = (() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const media = byId("media"), seek = byId("seek"), track = byId("track"), find = byId("find"), keys = byId("keys");
  let rows = all(".s");
  const length = Number(seek.max);
  const SPEEDS = all("option", byId("speed")).map((option) => Number(option.value));
  let sentences = all("main .q");
  let begins = sentences.map((each) => Number(each.dataset.s));
  let current = null, word = null, words = [], followsUntilScroll = true, hits = [], hit = -1;

  document.documentElement.classList.add("js");
  if (media.tagName === "VIDEO") document.body.classList.add("video");
  media.controls = media.tagName === "VIDEO";

  // Time

  const clock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds)), hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60, rest = String(whole % 60).padStart(2, "0");
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  };
  const lastBegun = (times, now) => {
    let low = 0, high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= now + 0.01) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };
  const show = (now) => {
    byId("clock").textContent = clock(now);
    seek.value = now;
    seek.setAttribute("aria-valuetext", clock(now));
    track.style.setProperty("--at", `${length ? Math.min(100, (100 * now) / length) : 0}%`);
    const sentence = sentences[lastBegun(begins, now)] || null;
    if (sentence !== current) {
      current?.classList.remove("at");
      current?.removeAttribute("aria-current");
      current?.closest(".s").classList.remove("now");
      sentence?.classList.add("at");
      sentence?.setAttribute("aria-current", "true");
      sentence?.closest(".s").classList.add("now");
      current = sentence;
      words = sentence ? all("[data-s]", sentence) : [];
      if (sentence && followsUntilScroll) bring(sentence);
    }
    const spoken = words[lastBegun(words.map((each) => Number(each.dataset.s)), now)] || null;
    if (spoken !== word) {
      word?.classList.remove("now");
      spoken?.classList.add("now");
      word = spoken;
    }
  };
  const tick = () => {
    show(media.currentTime);
    if (!media.paused) requestAnimationFrame(tick);
  };
  const go = (seconds, { play = false } = {}) => {
    const now = Math.min(Math.max(0, seconds), length || seconds);
    media.currentTime = now;
    show(now);
    if (play) media.play().catch(() => {}); // what is wrong is said by the event `error`
  };
  const toggle = () => (media.paused ? media.play().catch(() => {}) : media.pause());
  const setSpeed = (speed) => {
    media.playbackRate = speed;
    byId("speed").value = String(speed);
  };

  // Keeping the spoken sentence in sight, until the reader scrolls

  const bring = (sentence) => {
    const box = sentence.getBoundingClientRect(), top = byId("play").getBoundingClientRect().bottom;
    if (box.top > top + 16 && box.bottom < window.innerHeight * 0.8) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    sentence.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
  };
  const follow = (on) => {
    followsUntilScroll = on;
    byId("follow").setAttribute("aria-pressed", String(on));
    if (on && current) bring(current);
  };
  for (const kind of ["wheel", "touchmove"]) {
    addEventListener(kind, () => !media.paused && follow(false), { passive: true });
  }

  // Search: letters with and without accents are the same, and so are capitals

  const fold = (text) => {
    let folded = "";
    for (let index = 0; index < text.length; index++) {
      const plain = text[index].normalize("NFD")[0].toLowerCase();
      folded += plain.length === 1 ? plain : text[index]; // places in the text must stay what they are
    }
    return folded;
  };
  const textOf = (row) => row.querySelector(".x");
  const folded = new Map();
  const rangeOf = ({ row, from, to }) => {
    const range = document.createRange(), walker = document.createTreeWalker(textOf(row), NodeFilter.SHOW_TEXT);
    for (let at = 0, node; (node = walker.nextNode()); at += node.length) {
      if (from >= at && from < at + node.length) range.setStart(node, from - at);
      if (to > at && to <= at + node.length) range.setEnd(node, to - at);
    }
    return range;
  };
  const paint = (name, some) => {
    if (!window.Highlight) return; // rows are marked all the same
    if (some.length) CSS.highlights.set(name, new Highlight(...some.map(rangeOf)));
    else CSS.highlights.delete(name);
  };
  const search = () => {
    for (const each of hits) each.row.classList.remove("hit");
    const wanted = fold(find.value.trim());
    hits = [];
    hit = -1;
    for (const row of wanted ? rows : []) {
      if (!folded.has(row)) folded.set(row, fold(textOf(row).textContent));
      const text = folded.get(row);
      for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
        hits.push({ row, from: at, to: at + wanted.length });
        row.classList.add("hit");
      }
    }
    paint("found", hits.slice(0, 2000));
    paint("found-now", []);
    byId("found").textContent = wanted ? (hits.length ? String(hits.length) : "none") : "";
    if (hits.length) look(hits[0]);
  };
  const step = (by) => {
    if (!hits.length) return;
    hit = hit < 0 && by < 0 ? hits.length - 1 : (hit + by + hits.length) % hits.length;
    byId("found").textContent = `${hit + 1} of ${hits.length}`;
    paint("found-now", [hits[hit]]);
    look(hits[hit]);
  };
  const look = (found) => {
    follow(false);
    rangeOf(found).startContainer.parentElement.scrollIntoView({ block: "center" });
  };

  // Copy

  let silence = 0;
  const say = (text, milliseconds = 2500) => {
    byId("said").textContent = text;
    clearTimeout(silence);
    silence = setTimeout(() => (byId("said").textContent = ""), milliseconds);
  };
  const speakerOf = (row) => {
    let before = row.previousElementSibling;
    while (before && !before.matches(".who")) before = before.previousElementSibling;
    return before ? `${before.textContent}: ` : "";
  };
  const line = (row, said = textOf(row)) => `[${clock(Number((said.dataset.s ? said : row).dataset.s))}] ${speakerOf(row)}${said.textContent}`;
  const copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // where the browser allows no clipboard for files
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`${what} copied`);
  };
  const plain = () =>
    rows.map((row) => (row.previousElementSibling?.matches(".who") ? speakerOf(row) : "") + textOf(row).textContent).join("\n\n") + "\n";
  const copyOne = document.createElement("button");
  copyOne.id = "copy-one";
  copyOne.type = "button";
  copyOne.title = "Copy this paragraph with its time";
  copyOne.setAttribute("aria-label", copyOne.title);
  copyOne.append(byId("copy-icon").content.cloneNode(true));
  const offer = (event) => {
    const row = event.target.closest?.(".s");
    if (row && copyOne.parentElement !== row) row.append(copyOne);
  };

  // What the reader does

  byId("play").onclick = toggle;
  byId("back").onclick = () => go(media.currentTime - 5);
  byId("forth").onclick = () => go(media.currentTime + 5);
  byId("speed").onchange = (event) => setSpeed(Number(event.target.value));
  byId("follow").onclick = () => follow(!followsUntilScroll);
  byId("copy").onclick = () => copy(plain(), "Text");
  byId("copy-timed").onclick = () => copy(rows.map((row) => line(row)).join("\n\n") + "\n", "Text with times");
  byId("help").onclick = () => keys.showModal();
  byId("earlier").onclick = () => step(-1);
  byId("later").onclick = () => step(1);
  copyOne.onclick = () => copy(line(copyOne.closest(".s")), "Paragraph");
  seek.oninput = () => go(Number(seek.value));
  find.oninput = search;
  find.onkeydown = (event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") {
      find.value = "";
      search();
      find.blur();
    }
  };
  const transcript = byId("transcript");
  transcript.addEventListener("pointerover", offer);
  transcript.addEventListener("focusin", offer);
  transcript.addEventListener("click", (event) => {
    const row = event.target.closest(".s");
    if (!row || event.target.closest("button") || event.ctrlKey || event.metaKey || !getSelection().isCollapsed) return;
    event.preventDefault();
    const from = event.target.closest("[data-s]") || row;
    if (event.target.matches(".t")) history.replaceState(null, "", event.target.getAttribute("href"));
    go(Number(from.dataset.s), { play: true });
  });
  document.querySelector(".bar").addEventListener("click", (event) => {
    if (event.detail) event.target.closest("button")?.blur(); // the space bar plays, whatever was clicked before
  });

  const sentence = (by) => {
    const index = current ? sentences.indexOf(current) : -1;
    const next = sentences[Math.min(Math.max(0, index + by), sentences.length - 1)];
    if (!next) return;
    go(Number(next.dataset.s));
    bring(next);
  };
  const doubt = () => {
    const times = all("main .low").map((each) => Number(each.closest("[data-s]").dataset.s));
    const next = times.find((time) => time > media.currentTime + 0.05);
    if (next === undefined) say(times.length ? "No more unsure places" : "No unsure places");
    else go(next);
    if (current) bring(current);
  };
  const faster = (by) => setSpeed(SPEEDS[Math.min(Math.max(0, SPEEDS.indexOf(media.playbackRate) + by), SPEEDS.length - 1)]);
  const KEYS = {
    " ": toggle,
    ArrowLeft: () => go(media.currentTime - 5),
    ArrowRight: () => go(media.currentTime + 5),
    j: () => sentence(1),
    k: () => sentence(-1),
    u: doubt,
    f: () => follow(!followsUntilScroll),
    c: () => current && copy(line(current.closest(".s"), current), "Sentence"),
    "<": () => faster(-1),
    ">": () => faster(1),
    n: () => step(1),
    N: () => step(-1),
    "/": () => find.select(),
    "?": () => keys.showModal(),
  };
  addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.closest("#find, select, textarea")) return;
    if (key === " " && target.closest("button, a")) return;
    if (Object.hasOwn(KEYS, key)) {
      event.preventDefault();
      KEYS[key]();
    }
  });

  // What the recording does

  const trouble = () => (byId("trouble").hidden = false);
  const state = () => {
    byId("play").classList.toggle("playing", !media.paused);
    byId("play").setAttribute("aria-label", media.paused ? "Play" : "Pause");
    tick();
  };
  media.addEventListener("error", trouble);
  if (media.error) trouble(); // it was quicker than this script
  media.addEventListener("play", state);
  media.addEventListener("pause", state);
  media.addEventListener("seeked", () => show(media.currentTime));
  media.addEventListener("loadedmetadata", () => {
    const blind = media.tagName === "VIDEO" && !media.videoWidth; // sound alone in a container for films
    media.classList.toggle("blind", blind);
    if (blind) document.body.classList.remove("video");
  });

  const fromAddress = () => {
    const found = /^#t=(\d+(\.\d+)?)$/.exec(location.hash);
    if (found) go(Number(found[1]));
  };
  addEventListener("hashchange", fromAddress);
  for (const name of all("[data-language]")) {
    name.textContent = new Intl.DisplayNames(["en"], { type: "language" }).of(name.dataset.language);
  }
  const files = byId("files").dataset.formats.split(" ").filter(Boolean);
  if (files.length && /\.html$/.test(location.pathname)) {
    byId("files").append("Also as ");
    files.forEach((kind, index) => {
      const link = document.createElement("a");
      link.href = "./" + location.pathname.replace(/^.*\/|\.html$/g, "") + `.${kind}`;
      link.textContent = kind;
      byId("files").append(index ? ", " : "", link);
    });
  }
  show(0);
  fromAddress();

  // The text has been put in anew, with corrections
  const reload = () => {
    rows = all(".s");
    sentences = all("main .q");
    begins = sentences.map((each) => Number(each.dataset.s));
    current = word = null;
    words = [];
    folded.clear();
    search();
    show(media.currentTime);
  };
  return { byId, all, media, clock, go, say, plain, reload, KEYS };
})();

