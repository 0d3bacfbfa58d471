"use strict";

/* The graph as text, before and after a pass side by side. */

const SIGNS = { made: "+", gone: "−", rebuilt: "~", placed: "@", moved: "↕", kept: "" };
const QUIET = new Set(["kept", "moved", "rebuilt", null]);       // what is hidden if only changes are wanted
const CONTEXT = 2;          // unchanged lines that stay beside a change
const FOLD = 5;             // fewer unchanged lines than these are not worth hiding

/* Lines { before, after } of nodes, null where there is none on that side.  What stands for one another is paired as far
   as the order allows: by the longest increasing sequence of places. */
function aligned(block) {
  const old = block.old;
  if (!old) return block.nodes.map(n => ({ before: null, after: n }));
  const placeOf = new Map(old.nodes.map((n, i) => [n, i]));
  const partner = block.nodes.map(n => {
    const source = block.stage.came.get(n)?.[1] ?? n;
    if (source !== n && block.stage.went.get(source)?.[0] !== n) return undefined;
    return placeOf.get(source);
  });
  const paired = increasing(partner);
  const rows = [];
  let i = 0;
  block.nodes.forEach((n, j) => {
    if (!paired.has(j)) {
      rows.push({ before: null, after: n });
      return;
    }
    const made = rows.length;
    let start = made;
    while (start > 0 && rows[start - 1].before === null) start--;
    const lost = [];
    while (i < partner[j]) lost.push({ before: old.nodes[i++], after: null });
    rows.splice(start, 0, ...lost);                        // what is gone stands above what took its place
    rows.push({ before: old.nodes[i++], after: n });
  });
  while (i < old.nodes.length) rows.push({ before: old.nodes[i++], after: null });
  return rows;
}

/* The places j of a longest sequence of increasing numbers; undefined ones are left out. */
function increasing(numbers) {
  const ends = [];
  const previous = new Map();
  numbers.forEach((number, j) => {
    if (number === undefined) return;
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[ends[middle]] < number) low = middle + 1;
      else high = middle;
    }
    previous.set(j, ends[low - 1]);
    ends[low] = j;
  });
  const found = new Set();
  for (let j = ends.at(-1); j !== undefined; j = previous.get(j)) found.add(j);
  return found;
}

/* What a row says of its sides: [before, after], each made, gone, rebuilt, placed or kept. */
function changesOf(block, { before, after }) {
  const how = after === null ? null : block.how(after);
  if (after !== null && before !== null) return how === "made" ? ["gone", "made"] : [how, how];
  if (after !== null) return [null, how === "kept" && block.old ? "moved" : how];
  const fate = block.fate(before);
  return [fate === "kept" ? "moved" : fate, null];
}

class Listing {
  constructor(host, { select, follow }) {
    this.host = host;
    this.select = select;
    this.list = new Rows(host, { html: i => this.html(this.rows[i]), classes: i => this.classes(this.rows[i]) });
    host.onclick = event => {
      const row = this.list.rowOf(event);
      if (row === null) return;
      const name = event.target.closest("[data-n]");
      if (this.rows[row].fold) this.unfold(row);
      else if (name) follow(+name.dataset.n);
      else this.pick(row, event.target.closest(".side")?.classList.contains("left"));
    };
  }

  /* sides: "both", "before" or "after"; matches: the nodes that a search has found. */
  show(block, { sides, only, selected, matches }) {
    this.block = block;
    this.sides = block.old ? sides : "after";
    this.selected = selected;
    this.matches = matches;
    const source = this.sides === "before" ? block.old : block;
    const body = this.sides === "both" ? aligned(block)
      : source.nodes.map(n => (this.sides === "before" ? { before: n, after: null } : { before: null, after: n }));
    for (const row of body) row.changes = this.sides === "before" ? [block.fate(row.before), null] : changesOf(block, row);
    const rows = only && block.old ? folded(body) : body;
    this.rows = [{ line: "head" }, ...rows, { line: "tail" }];
    this.host.classList.toggle("one-sided", this.sides !== "both");
    this.list.show(this.rows.length);
    if (selected !== null) this.reveal(selected);
  }

  get changes() {
    return this.rows.flatMap((row, i) => (row.changes && row.changes.some(c => !QUIET.has(c)) ? [i] : []));
  }

  mark(selected, matches) {
    this.selected = selected;
    this.matches = matches;
    this.list.restyle();
  }

  reveal(node) {
    let at = this.rows.findIndex(row => row.after === node || row.before === node);
    if (at < 0) {
      const fold = this.rows.findIndex(row => row.fold?.some(inner => inner.after === node || inner.before === node));
      if (fold < 0) return;
      this.unfold(fold);
      at = this.rows.findIndex(row => row.after === node || row.before === node);
    }
    this.list.reveal(at);
  }

  unfold(at) {
    this.rows.splice(at, 1, ...this.rows[at].fold);
    this.list.show(this.rows.length);
  }

  pick(row, left) {
    const { before, after } = this.rows[row];
    const node = left ? before ?? after : after ?? before;
    if (node !== undefined && node !== null) this.select(node);
  }

  /* The nearest row with a node in a direction from the selected one, among the changes only if asked. */
  next(step, changes) {
    const wanted = changes ? this.changes : this.rows.flatMap((row, i) => (row.line || row.fold ? [] : [i]));
    const now = this.rows.findIndex(row => this.selected !== null && (row.after === this.selected || row.before === this.selected));
    const ahead = step > 0 ? wanted.find(i => i > now) ?? wanted[0] : wanted.findLast(i => i < now) ?? wanted.at(-1);
    if (ahead === undefined) return;
    this.pick(ahead, false);
  }

  classes(row) {
    const nodes = [row.before, row.after];
    const marks = [];
    if (this.selected !== null && nodes.includes(this.selected)) marks.push("selected");
    if (this.matches && nodes.some(n => this.matches.has(n))) marks.push("match");
    return marks.join(" ");
  }

  html(row) {
    const { block } = this;
    if (row.fold) return `<span class="fold">⋯ ${plural(row.fold.length, "line")} as before${row.fold.some(r => r.changes.includes("rebuilt")) ? " but for operands" : ""}</span>`;
    const both = this.sides === "both";
    if (row.line) {
      const text = b => `<span class="side"><span class="sign"></span><span class="code quiet">${escaped(b[row.line]())}</span></span>`;
      return both ? text(block.old) + text(block) : text(this.sides === "before" ? block.old : block);
    }
    const [was, is] = row.changes;
    const left = side(block.old, row.before, was, "left");
    const right = side(block, row.after, is, "right");
    return both ? left + right : this.sides === "before" ? left : right;
  }
}

function side(block, node, change, where) {
  if (node === null || node === undefined) return `<span class="side ${where} empty"></span>`;
  const [line, ...more] = new Set(block.program.linesOf(node).map(at => `${at.file}:${at.line}`));
  const place = block.places.get(node);
  const note = [place && `@ ${place}`, block.stage.notes[node], line && `${line}${more.length ? ` +${more.length}` : ""}`].filter(Boolean).join("  ");
  return `<span class="side ${where} ${change}"><span class="sign">${SIGNS[change]}</span>`
    + `<span class="code">  ${statementHtml(block, node)}</span><span class="note">${escaped(note)}</span></span>`;
}

/* A node's line with what can be followed: its operands. */
function statementHtml(block, n) {
  const { op, args, attrs, type, way } = block.nodeOf(n);
  const operand = a => (block.nodeOf(a).role === "number" ? `<i class="number">${escaped(block.name(a))}</i>`
    : `<a data-n="${a}">${escaped(block.name(a))}</a>`);
  const told = attrs ? ` <i class="attrs">${escaped(block.application(n).slice(block.application(n).indexOf(") {") + 2))}</i>` : "";
  return `<b>${escaped(block.name(n))}</b>: <i class="type">${escaped(type)}</i> = `
    + `<i class="op way-${way}">${escaped(op)}</i>(${(args ?? []).map(operand).join(", ")})${told}`;
}

/* With long runs of unchanged rows as one row each. */
function folded(rows) {
  const out = [];
  let run = [];
  const flush = last => {
    const head = out.length ? CONTEXT : 0;
    const tail = last ? 0 : CONTEXT;
    if (run.length < head + tail + FOLD) out.push(...run);
    else {
      const end = run.length - tail;
      out.push(...run.slice(0, head), { fold: run.slice(head, end) }, ...run.slice(end));
    }
    run = [];
  };
  for (const row of rows) {
    if (row.changes.every(c => QUIET.has(c))) run.push(row);
    else {
      flush(false);
      out.push(row);
    }
  }
  flush(true);
  return out;
}
