"use strict";

/* The page as a whole: what is shown, which stands in the address too, and the keys. */

const state = {
  function: 0, view: "graphs", stage: null, block: null, shape: "text", sides: null, only: null, byKernel: null,
  node: null, kernel: null,
};
let program, listing, drawing, kernelView;
let matches = null;                                        // the nodes that the search has found

const PARAMETERS = { function: "f", view: "v", stage: "s", block: "b", shape: "as", sides: "sides", only: "only", byKernel: "grouped", node: "n", kernel: "k" };
const NARROW = 760;                                        // a window too narrow for two sides
const LARGE = 60;                                          // nodes above which a graph starts folded

/* -- state and address */

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, short] of Object.entries(PARAMETERS)) {
    const value = given.get(short);
    if (value === null) continue;
    state[name] = /^\d+$/.test(value) ? +value : value === "true" ? true : value === "false" ? false : value;
  }
  state.function = Math.max(0, Math.min(state.function, packed.functions.length - 1)) || 0;
}

function writeAddress() {
  const told = Object.entries(PARAMETERS).filter(([name]) => state[name] !== null).map(([name, short]) => `${short}=${state[name]}`);
  history.replaceState(null, "", `#${told.join("&")}`);
}

const stage = () => program.stages[state.stage];
const block = () => stage().blocks[state.block];

/* Changes what is shown.  A node that has another number at the new stage is followed there. */
async function go(change) {
  const wanted = change.function ?? state.function;
  const next = !program || wanted !== state.function ? await Program.number(wanted) : program;
  const before = { ...state };
  if (program && next !== program) {
    Object.assign(state, { stage: null, block: null, node: null, kernel: null, only: null, byKernel: null });
  }
  Object.assign(state, change);
  program = next;
  const last = program.stages.length - 1;
  state.kernel ??= slowest();
  state.stage = Math.max(0, Math.min(state.stage ?? firstChanged(), last));
  if (state.stage !== before.stage && before.stage !== null && change.node === undefined && state.node !== null) {
    state.node = program.history(state.node, before.stage).find(step => step.stage === stage())?.node ?? null;
  }
  if (change.block === undefined && state.stage !== before.stage) state.block = null;
  const home = state.node === null ? undefined : stage().blockOf(state.node);
  state.block = Math.min(state.block ?? home?.index ?? stage().main, stage().main);
  writeAddress();
  render(before, change);
}

/* The kernel that took longest, or the first where none was timed. */
function slowest() {
  const seconds = program.kernels.map(kernel => kernel.times?.seconds ?? 0);
  return Math.max(0, seconds.indexOf(Math.max(...seconds)));
}

function firstChanged() {
  return program.stages.find(s => s.index > 0 && s.changed)?.index ?? program.stages.length - 1;
}

const sides = () => (state.stage === 0 ? "after" : state.sides ?? (innerWidth < NARROW ? "after" : "both"));
function onlyChanges() {
  const { made, placed, gone } = block().counts;
  return made + placed + gone > 0 && (state.only ?? (block().nodes.length > LARGE && made + gone > 0));
}
const grouped = () => state.byKernel ?? block().nodes.length > LARGE;

/* -- what is to be seen */

function render(before, change) {
  document.body.dataset.view = state.view;
  byId("graphs").hidden = state.view !== "graphs";
  byId("kernels").hidden = state.view !== "kernels";
  if (program !== render.program) {
    render.program = program;
    byId("function").value = state.function;
    byId("where").textContent = program.where ?? "";
    byId("failure").hidden = program.failure === null;
    byId("failure").textContent = program.failure ?? "";
    kernelView.showList(program, program.measured?.profile ? "time" : "run");
    kernelView.index = undefined;
    before = {};
  }
  renderTimeline();
  if (state.view === "kernels") {
    if (kernelView.index !== state.kernel) kernelView.show(state.kernel);
    return;
  }
  const same = ["view", "stage", "block", "shape", "sides", "only", "byKernel"].every(name => before[name] === state[name]);
  renderBar();
  if (!same) {
    renderRules();
    renderGraph(before.stage === state.stage && before.shape === state.shape);
  } else if (change.node !== undefined) {
    shown().mark(state.node, matches);
    if (state.node !== null) shown().reveal(state.node);
  }
  renderDetails(byId("details"), block(), state.node, { go, showKernel: kernel => go({ view: "kernels", kernel }), rule: nextOfRule, find });
}

function renderTimeline() {
  const most = Math.max(1, ...program.stages.map(s => s.counts.made + s.counts.rebuilt + s.counts.gone + s.counts.placed));
  const cards = program.stages.map(s => {
    const { made, rebuilt, placed, gone } = s.counts;
    const bar = s.index === 0 ? [] : [["made", made], ["rebuilt", rebuilt], ["placed", placed], ["gone", gone]].map(([name, count]) =>
      element("i", { class: name, style: `width:${count && Math.max(3, 100 * count / most)}%`, title: `${plural(count, "node")} ${name}` }));
    const seconds = program.measured?.seconds?.[s.index];
    return element("button", {
      class: `card ${s.changed || s.index === 0 ? "" : "unchanged"} ${state.view === "graphs" && s.index === state.stage ? "on" : ""}`,
      title: `${s.doc}${seconds ? `\n${duration(seconds)}` : ""}`,
      onclick: () => go({ view: "graphs", stage: s.index }),
    }, element("b", {}, s.name), element("span", { class: "quiet" }, s.index === 0 ? plural(s.size, "node")
      : [made && `+${made}`, gone && `−${gone}`, placed && `@${placed}`].filter(Boolean).join(" ") || (rebuilt ? `~${rebuilt}` : "as before")),
    element("span", { class: "amounts" }, bar));
  });
  cards.push(element("button", {
    class: `card code ${state.view === "kernels" ? "on" : ""}`, onclick: () => go({ view: "kernels" }),
    title: "Loop IR, LLVM IR and assembly (k)",
  }, element("b", {}, "code"), element("span", { class: "quiet" }, plural(program.kernels.length, "kernel"),
    program.measured?.profile ? `, ${duration(program.measured.profile.seconds)}` : "")));
  byId("timeline").replaceChildren(...cards);
  byId("timeline").querySelector(".on")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function renderBar() {
  const pick = (name, values, now) => values.map(([value, label, title]) =>
    element("button", { class: value === now ? "on" : "", title, onclick: () => go({ [name]: value }) }, label));
  const first = state.stage === 0;
  byId("mode").replaceChildren(
    ...pick("shape", [["text", "text", "As text (t)"], ["drawing", "drawing", "As a drawing (t)"]], state.shape),
    ...(first ? [] : [element("span", { class: "gap" }),
      ...pick("sides", [["before", "before"], ["both", "both"], ["after", "after"]], sides())]));
  const blocks = stage().blocks;
  byId("block-chooser").hidden = blocks.length < 2;
  byId("block").replaceChildren(...blocks.map(b => element("option", { value: b.index, selected: b.index === state.block }, b.label)).reverse());
  byId("only-changes").checked = onlyChanges();
  byId("only-changes").parentElement.hidden = first || Object.values(block().counts).every(count => !count);
  byId("by-kernel-label").hidden = state.shape !== "drawing" || !block().places.size;
  byId("by-kernel").checked = grouped();
  byId("legend").replaceChildren(...(first ? [] : ["made", "gone", "rebuilt", "placed"].map(how => element("span", { class: how, title: {
    made: "made by a rewrite or by the pass", gone: "needed no more", rebuilt: "the same operation on changed operands",
    placed: "the same node in another kernel, or elsewhere in memory",
  }[how] }, `${SIGNS[how]} ${how}`))));
}

/* The rewrites that took place: pointing at one shows its formula, a click goes from one of its nodes to the next. */
function renderRules() {
  const fired = Object.entries(stage().fired);
  byId("rules").replaceChildren(element("span", { class: "quiet" }, stage().doc), ...fired.map(([rule, count]) =>
    element("button", { class: "rule", title: program.rules[rule] ?? "", onclick: () => nextOfRule(rule) }, rule,
      count > 1 ? element("span", { class: "quiet" }, ` ×${count}`) : "")));
}

function nextOfRule(rule) {
  const nodes = stage().blocks.flatMap(b => b.nodes).filter(n => stage().came.get(n)?.slice(2).includes(rule));
  const lost = [...stage().went].filter(([, [, ...rules]]) => rules.includes(rule)).map(([n]) => n);
  const all = nodes.length ? nodes : lost;
  if (!all.length) return;
  const node = all[(all.indexOf(state.node) + 1) % all.length];
  const home = stage().blocks.find(b => b.has(node) || b.old?.has(node));
  go({ node, block: home?.index ?? state.block });
}

function openKernel(node) {
  const [kernel] = block().kernels(node);
  if (kernel !== undefined) go({ view: "kernels", kernel });
}

const shown = () => (state.shape === "text" ? listing : drawing);

function renderGraph(keep) {
  const host = byId("view");
  const options = { sides: sides(), only: onlyChanges(), byKernel: grouped(), selected: state.node, matches, keep };
  host.className = state.shape;
  if (state.shape === "text") {
    listing = new Listing(host, {
      select: node => go({ node }),
      follow: node => go({ node }),
    });
    listing.show(block(), options);
  } else {
    drawing = new Drawing(host, { select: node => go({ node }), open: openKernel });
    if (render.view && keep) drawing.view = render.view;
    drawing.show(scene(block(), options), options);
    render.view = drawing.view;
    if (state.node !== null) drawing.reveal(state.node);
  }
  const { length } = shown().changes;
  byId("change-count").textContent = plural(length, "change");
  byId("change-count").parentElement.hidden = !length || state.stage === 0;
}

/* -- search */

function search(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = byId("found");
  matches = null;
  found.hidden = !words.length;
  if (words.length) {
    const results = [...foundKernels(words), ...foundRules(words), ...foundNodes(words)];
    const nodes = results.filter(r => r.node !== undefined);
    matches = new Set(nodes.map(r => r.node));
    found.replaceChildren(...results.slice(0, 60).map((r, i) => element("li", { class: i ? "" : "on", onmousedown: event => event.preventDefault(),
      onclick: () => choose(r) }, element("b", {}, r.name), " ", element("span", { class: "quiet" }, r.about))),
    element("li", { class: "count" }, results.length ? `${plural(results.length, "result")}${results.length > 60 ? ", the first 60 shown" : ""}` : "nothing found"));
    search.results = results;
  }
  if (state.view === "graphs") shown().mark(state.node, matches);
}

/* Searches for something, as if it had been typed. */
function find(query) {
  byId("query").value = query;
  byId("query").focus();
}

const has = (words, text) => words.every(word => text.includes(word));

function foundNodes(words) {
  const texts = (stage().texts ??= stage().blocks.flatMap(b => [...b.params, ...b.nodes].map(n => {
    const lines = program.linesOf(n).map(at => `${at.file}:${at.line} ${at.text}`).join(" ");
    const line = b.nodeOf(n).role ? `${b.name(n)}: ${b.nodeOf(n).role} ${b.nodeOf(n).type}` : b.statement(n);
    const rules = stage().came.get(n)?.slice(2).join(" ") ?? "";
    return { node: n, block: b, line, text: `${line} ${lines} ${rules} ${b.places.get(n) ?? ""}`.toLowerCase() };
  })));
  return texts.filter(t => has(words, t.text)).map(t => ({ name: t.line, about: program.linesOf(t.node).map(at => `${at.file}:${at.line}`)[0] ?? "", node: t.node, block: t.block.index }));
}

function foundKernels(words) {
  return program.kernels.flatMap((kernel, i) => (has(words, `${kernel.name} ${kernel.kind} kernel`)
    ? [{ name: kernel.name, about: `kernel, ${kernel.kind}`, kernel: i }] : []));
}

function foundRules(words) {
  return program.stages.flatMap(s => Object.entries(s.fired).flatMap(([rule, count]) => (has(words, `${rule} ${program.rules[rule] ?? ""} rewrite`.toLowerCase())
    ? [{ name: rule, about: `rewrite in ${s.name}, ${count}×  ${program.rules[rule] ?? ""}`, rule, stage: s.index }] : [])));
}

async function choose(result) {
  byId("found").hidden = true;
  byId("query").blur();
  if (result.kernel !== undefined) await go({ view: "kernels", kernel: result.kernel });
  else if (result.rule) {
    await go({ view: "graphs", stage: result.stage });
    nextOfRule(result.rule);
  } else await go({ view: "graphs", node: result.node, block: result.block });
}

function moveInResults(step) {
  const items = [...byId("found").querySelectorAll("li:not(.count)")];
  const now = items.findIndex(item => item.classList.contains("on"));
  items[now]?.classList.remove("on");
  const next = items[(now + step + items.length) % items.length];
  next?.classList.add("on");
  next?.scrollIntoView({ block: "nearest" });
}

/* -- keys */

const KEYS = [
  ["← →", "the pass before, the pass after"], ["n p", "the next change, the previous one"], ["↓ ↑", "the next node or kernel, the previous one"],
  ["t", "text or drawing"], ["b", "before, both or after"], ["c", "only changes, or all"], ["k", "kernels, or back to the graph"],
  ["Enter", "the kernel of the selected node"], ["/", "search: words of a node's line, of your code, of rewrites, kernels"], ["Esc", "nothing selected"],
  ["f + −", "of a drawing: all of it, nearer, further; the wheel moves, with Ctrl it zooms"], ["d", "light or dark"], ["?", "this"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === byId("query");
  if (typing) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") moveInResults(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter") {
      const items = [...byId("found").querySelectorAll("li:not(.count)")];
      const result = search.results?.[items.findIndex(item => item.classList.contains("on"))];
      if (result) choose(result);
    } else if (event.key === "Escape") {
      event.target.value = "";
      search("");
      event.target.blur();
    } else return;
    event.preventDefault();
    return;
  }
  if (/^(select|input)$/i.test(event.target.tagName) || byId("help").open && event.key !== "?") return;
  const kernels = state.view === "kernels";
  const move = (step, changes) => {
    if (!kernels) shown().next(step, changes);
    else {
      const { sequence } = kernelView;
      go({ kernel: sequence[Math.max(0, Math.min(sequence.length - 1, sequence.indexOf(state.kernel) + step))] ?? 0 });
    }
  };
  const cycle = (values, now) => values[(values.indexOf(now) + 1) % values.length];
  const last = program.stages.length - 1;
  const actions = {
    ArrowLeft: () => go(kernels ? { view: "graphs", stage: last } : { stage: state.stage - 1 }),
    ArrowRight: () => go(kernels ? {} : state.stage === last ? { view: "kernels" } : { stage: state.stage + 1 }),
    ArrowDown: () => move(1, false), ArrowUp: () => move(-1, false), n: () => move(1, true), p: () => move(-1, true),
    t: () => go({ view: "graphs", shape: cycle(["text", "drawing"], state.shape) }),
    b: () => go({ sides: cycle(["before", "both", "after"], sides()) }),
    c: () => go({ only: !onlyChanges() }),
    k: () => go({ view: kernels ? "graphs" : "kernels" }),
    Enter: () => { if (!kernels && state.node !== null) openKernel(state.node); },
    "/": () => byId("query").focus(),
    Escape: () => go({ node: null }),
    f: () => drawing?.fit(), "+": () => drawing?.zoom(1.25, innerWidth / 3, innerHeight / 3), "-": () => drawing?.zoom(0.8, innerWidth / 3, innerHeight / 3),
    d: switchTheme,
    "?": () => (byId("help").open ? byId("help").close() : byId("help").showModal()),
  };
  if (!(event.key in actions) || event.key === "Enter" && event.target.tagName === "BUTTON") return;
  event.preventDefault();
  actions[event.key]();
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  colours.clear();
  drawing?.draw();
}

/* -- start */

async function start() {
  readAddress();
  byId("file").textContent = packed.title;
  byId("function").replaceChildren(...packed.functions.map((f, i) => element("option", { value: i }, f.name)));
  byId("chooser").hidden = packed.functions.length < 2;
  byId("function").onchange = event => go({ function: +event.target.value });
  byId("block").onchange = event => go({ block: +event.target.value, node: null });
  byId("only-changes").onchange = event => go({ only: event.target.checked });
  byId("by-kernel").onchange = event => go({ byKernel: event.target.checked });
  byId("next-change").onclick = () => shown().next(1, true);
  byId("previous-change").onclick = () => shown().next(-1, true);
  byId("theme").onclick = switchTheme;
  byId("query").oninput = event => search(event.target.value);
  byId("query").onblur = () => { byId("found").hidden = true; };
  byId("query").onfocus = event => search(event.target.value);
  byId("help").replaceChildren(element("h2", {}, "Keys"), element("dl", {}, KEYS.flatMap(([key, what]) =>
    [element("dt", {}, key.split(" ").map(k => element("kbd", {}, k))), element("dd", {}, what)])),
  element("p", { class: "quiet" }, `Made by tensorc ${packed.version}.  This page asks no network for anything.`));
  byId("help").onclick = () => byId("help").close();
  byId("help-button").onclick = () => byId("help").showModal();
  matchMedia("(prefers-color-scheme: dark)").onchange = () => { colours.clear(); drawing?.draw(); };
  addEventListener("keydown", onKey);
  kernelView = new KernelView(byId("kernel-list"), byId("kernel"), { choose: kernel => go({ kernel }), go });
  await go({});
  document.body.dataset.ready = "true";
}

start();
