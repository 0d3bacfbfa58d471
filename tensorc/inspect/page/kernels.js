"use strict";

/* Kernels: a list of them, and of one its loops, LLVM IR and assembly side by side, with lines of one origin linked. */

class KernelView {
  constructor(list, host, { choose, go }) {
    this.host = host;
    this.choose = choose;
    this.go = go;
    this.form = "optimised";
    this.listHost = list;
    list.onclick = event => {
      const row = event.target.closest("[data-kernel]");
      if (row) choose(+row.dataset.kernel);
    };
    this.info = element("div", { class: "kernel-head" });
    const form = element("div", { class: "choice", role: "group" }, ["optimised", "written"].map(name =>
      element("button", { "data-form": name, onclick: () => this.setForm(name), title: name === "written"
        ? "LLVM IR as the code generator writes it" : "LLVM IR after LLVM's passes" }, name)));
    const pane = (title, ...more) => {
      const body = element("div", { class: "code-pane", tabindex: "0" });
      return { body, whole: element("section", { class: "pane" }, element("h3", {}, title, ...more), body) };
    };
    const panes = { loops: pane("Loop IR"), llvm: pane("LLVM IR ", form), machine: pane("Assembly") };
    host.replaceChildren(this.info, element("div", { class: "panes" }, Object.values(panes).map(p => p.whole)));
    this.panes = Object.fromEntries(Object.entries(panes).map(([name, p]) => [name, new CodePane(p.body, name, this)]));
    this.linked = null;                                    // the origin that is pointed at, `part:line`
    this.pinned = null;
  }

  /* The list, for a program. */
  showList(program, order = "run") {
    this.program = program;
    this.order = order;
    const profile = program.measured?.profile;
    const sorted = program.kernels.map((kernel, i) => [kernel, i]);
    if (order === "time") sorted.sort(([a], [b]) => (b.times?.seconds ?? 0) - (a.times?.seconds ?? 0));
    this.sequence = sorted.map(([, i]) => i);
    const rows = sorted.map(([kernel, i]) => {
      const ops = [...new Set(kernel.nodes.map(n => program.nodes[n].op))].filter(op => op !== "constant").join(" ");
      return element("tr", { "data-kernel": i, tabindex: "-1" },
        element("td", { class: "name" }, kernel.name), element("td", { class: `kind kind-${kernel.kind}` }, kernel.kind),
        profile ? timeCell(kernel) : null, element("td", { class: "ops", title: ops }, ops));
    });
    const heads = [element("th", {}, "kernel"), element("th", {}, "kind"), profile ? this.timeHead(order) : null, element("th", {}, "operations")];
    this.listHost.classList.toggle("timed", Boolean(profile));
    this.listHost.replaceChildren(
      ...(profile ? [element("p", { class: "profile" }, ...aboutCall(profile))] : []),
      element("table", {}, element("thead", {}, element("tr", {}, heads.filter(Boolean))), element("tbody", {}, rows)));
    if (!rows.length) this.listHost.replaceChildren(element("p", { class: "hint" }, "This function needs no kernel."));
  }

  timeHead(order) {
    const other = order === "time" ? "run" : "time";
    return element("th", { class: "time" }, element("a", {
      title: other === "time" ? "The slowest first" : "In the order they run",
      onclick: () => { this.showList(this.program, other); this.markRow(); },
    }, order === "time" ? "time ▾" : "time"));
  }

  markRow() {
    for (const row of this.listHost.querySelectorAll("[data-kernel]")) row.classList.toggle("selected", +row.dataset.kernel === this.index);
    this.listHost.querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  }

  async show(index) {
    this.index = index;
    this.markRow();
    const kernel = this.program.kernels[index];
    this.host.classList.toggle("nothing", !kernel);
    if (!kernel) return;
    this.pinned = this.linked = null;
    this.renderHead(kernel);
    this.panes.loops.show(kernel.parts.flatMap((part, p) => part.loops.split("\n").map((text, i) => ({ text, from: `${p}:${i + 1}` }))));
    await this.showCode(kernel);
  }

  async showCode(kernel) {
    for (const button of this.host.querySelectorAll("[data-form]")) button.classList.toggle("on", button.dataset.form === this.form);
    const [llvm, machine] = await Promise.all([this.linesOf(kernel, this.form), this.linesOf(kernel, "machine")]);
    if (this.program.kernels[this.index] !== kernel) return;
    this.panes.llvm.show(llvm);
    this.panes.machine.show(machine);
    this.restyle();
  }

  setForm(form) {
    this.form = form;
    this.showCode(this.program.kernels[this.index]);
  }

  /* The lines of all functions of a kernel in one form: of its own, then of those that they call. */
  async linesOf(kernel, form) {
    const names = new Map(kernel.parts.flatMap((part, p) => part.functions[form].map(name => [name, p])));
    const lines = [];
    for (const [name, p] of names) {
      const code = (await this.program.code(name))[form];
      if (!code) continue;
      const own = code.from.some(line => line);
      if (lines.length) lines.push({ text: "", from: null });
      if (!own) lines.push({ text: `${form === "machine" ? "#" : ";"} ${name} is called, and shared with other kernels`, from: null });
      code.text.split("\n").forEach((text, i) => lines.push({ text, from: code.from[i] ? `${p}:${code.from[i]}` : null }));
    }
    return lines;
  }

  renderHead(kernel) {
    const { program } = this;
    const last = program.stages.at(-1);
    const first = kernel.parts[0]?.functions.machine[0];
    const shared = first && first.replace(/_pack$/, "") !== kernel.parts[0].name ? first : null;
    const lines = [...new Map(kernel.nodes.flatMap(n => program.linesOf(n)).map(at => [`${at.file}:${at.line}`, at])).values()];
    const statements = kernel.nodes.map(n => {
      const block = last.blockOf(n);
      return block && element("li", { onclick: () => this.go({ view: "graphs", stage: last.index, block: block.index, node: n }) },
        element("code", { html: statementHtml(block, n) }));
    });
    this.info.replaceChildren(
      element("h2", {}, element("b", {}, kernel.name), ` ${kernel.kind}`,
        shared ? element("span", { class: "quiet" }, `  runs the code of ${shared}, which does the same`) : ""),
      ...(kernel.times ? [element("p", { class: "times" }, ...aboutTimes(kernel.times))] : []),
      element("div", { class: "kernel-from" },
        element("details", { open: kernel.nodes.length <= 6 }, element("summary", {}, `from ${plural(kernel.nodes.length, "node")}`),
          element("ol", { class: "statements" }, statements)),
        lines.length ? element("details", { open: lines.length <= 6 }, element("summary", {}, `asked for in ${plural(lines.length, "line")} of yours`),
          element("ol", { class: "source" }, lines.map(at => element("li", {},
            element("span", { class: "quiet" }, `${at.file}:${at.line} `), element("code", {}, at.text))))) : ""));
  }

  /* Lines of this origin stand out while it is pointed at. */
  link(from) {
    if (from === this.linked) return;
    this.linked = from;
    this.restyle();
  }

  /* A click keeps the origin linked, and shows where it went in the other panes. */
  pin(from, pane) {
    this.pinned = this.pinned === from ? null : from;
    this.restyle();
    if (this.pinned) for (const other of Object.values(this.panes)) if (other !== pane) other.reveal(this.pinned);
  }

  restyle() {
    for (const pane of Object.values(this.panes)) pane.restyle();
  }
}

/* How long a kernel took, and its share of all kernels as a bar. */
function timeCell({ times }) {
  if (!times) return element("td", { class: "time" });
  const title = `${round(100 * times.share)} % of the time of all kernels, ${round(100 * times.limit, 2)} % of the limit of ${times.bound}`;
  return element("td", { class: "time", title }, duration(times.seconds), element("i", { style: `width:${100 * times.share}%` }));
}

function aboutCall(profile) {
  const { limits, sizes } = profile;
  const told = Object.entries(sizes).map(([name, size]) => `${name} = ${size}`);
  return [`A call takes ${duration(profile.seconds)} (${[...told, plural(profile.threads, "thread"), `median of ${profile.runs} runs`].join(", ")}). `,
    element("span", { class: "quiet" }, `This machine can do ${round(limits.memory / 1e9)} GB/s from memory, ${round(limits.cache / 1e9)} GB/s `
      + `from caches, ${round(limits.flops[0] / 1e9)} GFLOP/s.`)];
}

function aboutTimes(times) {
  const rate = times.flops ? `, ${round(times.flops / times.seconds / 1e9)} GFLOP/s` : "";
  return [element("b", {}, duration(times.seconds)), ` in ${plural(times.calls, "run")}, ${round(100 * times.share)} % of all kernels; `
    + `${round(times.bytes / times.seconds / 1e9)} GB/s${rate}: `,
  element("span", { class: "limit", title: `of the machine's limit, here that of ${times.bound}` },
    element("i", { style: `width:${Math.min(100, 100 * times.limit)}%` })),
  ` ${round(100 * times.limit, 2)} % of what ${times.bound} allows`];
}

class CodePane {
  constructor(host, language, view) {
    this.host = host;
    this.language = language;
    this.view = view;
    this.lines = [];
    this.list = new Rows(host, { html: i => this.html(i), classes: i => this.classes(i) });
    this.ruler = element("canvas", { class: "ruler" });
    host.parentElement.append(this.ruler);
    host.onpointermove = event => view.link(this.at(event));
    host.onpointerleave = () => view.link(null);
    host.onclick = event => {
      const from = this.at(event);
      if (from && !getSelection().toString()) view.pin(from, this);
    };
  }

  at(event) {
    const row = this.list.rowOf(event);
    return row === null ? null : this.lines[row]?.from ?? null;
  }

  show(lines) {
    this.lines = lines;
    this.host.scrollTop = 0;
    this.list.show(lines.length, Math.max(...lines.map(line => line.text.length), 0));
  }

  html(i) {
    const { text, from } = this.lines[i];
    const hue = from ? ` style="--hue:${hueOf(from)}"` : "";
    return `<span class="origin"${hue}></span><span class="code">${coloured(text, this.language)}</span>`;
  }

  classes(i) {
    const { from } = this.lines[i];
    if (!from) return "";
    return `${from === this.view.linked ? "linked" : ""} ${from === this.view.pinned ? "pinned" : ""}`;
  }

  restyle() {
    this.list.restyle();
    this.paintRuler();
  }

  /* Beside the scroll bar: where the linked lines are. */
  paintRuler() {
    const pen = resized(this.ruler);
    const from = this.view.linked ?? this.view.pinned;
    if (!from) return;
    const each = this.ruler.clientHeight / Math.max(1, this.lines.length);
    pen.fillStyle = colour("accent");
    this.lines.forEach((line, i) => {
      if (line.from === from) pen.fillRect(0, i * each, this.ruler.clientWidth, Math.max(2, each));
    });
  }

  reveal(from) {
    const at = this.lines.findIndex(line => line.from === from);
    if (at >= 0) this.list.reveal(at);
  }
}

/* Neighbouring lines get hues that are far apart. */
const hueOf = from => {
  const [part, line] = from.split(":").map(Number);
  return Math.round((line * 137.5 + part * 60) % 360);
};

const TOKENS = {
  loops: /(?<comment>#.*$)|(?<word>\b(?:kernel|matmul|conv|sizes|grid|for|acc|out|inout|scratch|where|sum|forward|input_gradient|weight_gradient)\b)|(?<type>\b(?:f16|f32|f64|i8|i16|i32|i64|u8|u16|u32|u64|bool)\b)|(?<number>-?\b\d[\d.e+-]*|\binf\b|\bnan\b)|(?<call>\b[a-z_0-9]+(?=\())/g,
  llvm: /(?<comment>;.*$)|(?<word>\b(?:define|internal|call|ret|br|load|store|phi|select|fadd|fmul|fsub|fdiv|icmp|fcmp|add|sub|mul|getelementptr|shufflevector|insertelement|extractelement|alloca|bitcast|zext|sext|trunc|switch|label)\b)|(?<type>\b(?:float|double|half|i\d+|ptr|void)\b)|(?<name>[%@][\w.$]+)|(?<number>\b0x[0-9A-Fa-f]+|-?\b\d+(?:\.[\de+-]+)?)/g,
  machine: /(?<comment>#.*$|;.*$)|(?<word>^\s+[a-z][\w.]*)|(?<call>^[\w.$]+:)|(?<name>%\w+)|(?<number>\$?-?\b(?:0x)?[0-9a-f]+\b(?=[,()\s]|$))/g,
};

/* A line of code with its words marked. */
function coloured(line, language) {
  const text = language === "machine" ? line.replace(/^\t([^\t]*)\t?/, (_, word) => `  ${word.padEnd(13)} `) : line;
  let out = "", end = 0;
  for (const match of text.matchAll(TOKENS[language])) {
    const [kind] = Object.entries(match.groups).find(([, found]) => found !== undefined);
    out += `${escaped(text.slice(end, match.index))}<i class="${kind}">${escaped(match[0])}</i>`;
    end = match.index + match[0].length;
  }
  return out + escaped(text.slice(end));
}
