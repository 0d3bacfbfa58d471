"use strict";

/* What is known of the selected node: its type, the user's lines, its neighbours, the kernel it became, its history. */

function renderDetails(host, block, node, { go, showKernel, rule, find }) {
  if (node === null) {
    host.replaceChildren(...aboutPass(block.stage, { rule, find }));
    return;
  }
  const { program } = block;
  const here = block.has(node) ? block : block.old?.has(node) ? block.old : block;
  const about = here.nodeOf(node);
  const link = (n, b = here) => element("a", { onclick: () => go({ node: n, stage: b.stage.index, block: b.index }) }, b.name(n));
  const list = nodes => nodes.flatMap((n, i) => [i ? ", " : "", here.nodeOf(n).role === "number" ? here.name(n) : link(n)]);

  const facts = [];
  const fact = (name, ...value) => facts.push(element("dt", {}, name), element("dd", {}, ...value));
  fact("type", element("code", { class: "type" }, about.type));
  if (about.role) fact("role", about.role);
  if (about.args?.length) fact("operands", ...list(about.args));
  const users = here.users(node);
  if (users.length) fact("used by", ...list(users.slice(0, 12)), users.length > 12 ? ` and ${users.length - 12} more` : "");
  const results = here.outputs.includes(node) ? ["an output"] : [];
  for (const [variable, value] of here.updates) if (value === node) results.push(`the new ${here.name(variable)}`);
  if (results.length) fact("is", results.join(", "));
  const place = here.places.get(node);
  if (place) fact("kept in", element("code", {}, place));
  if (here.stage.notes[node]) fact("note", here.stage.notes[node]);

  const parts = [
    element("h2", { class: `way-${about.way}` }, element("b", {}, here.name(node)), " ", about.op === "parameter" ? "" : about.op),
    element("dl", {}, facts),
    ...userLines(program, node),
    ...kernelLinks(program, here, node, showKernel),
    ...historyOf(program, node, here, go),
  ];
  if (about.attrs) parts.splice(2, 0, element("pre", { class: "attrs" }, here.application(node)));
  host.replaceChildren(...parts);
  host.scrollTop = 0;
}

/* With no node selected: what the pass is, and what its rewrites did. */
function aboutPass(stage, { rule, find }) {
  const { program } = stage;
  const fired = Object.entries(stage.fired);
  const seconds = program.measured?.seconds?.[stage.index];
  return [
    element("h2", {}, stage.index ? stage.name : program.name),
    element("p", {}, stage.doc.replace(/\.$/, ""), "."),
    stage.index && seconds ? element("p", { class: "quiet" }, `It took ${duration(seconds)}.`) : null,
    fired.length ? element("h3", {}, "Rewrites") : null,
    element("dl", { class: "rewrites" }, fired.flatMap(([name, count]) => [
      element("dt", { onclick: () => rule(name), title: "The next node that it made" }, name, element("span", { class: "quiet" }, count > 1 ? `  ×${count}` : "")),
      element("dd", {}, program.rules[name] ?? "")])),
    ...yourCode(stage, find),
    element("p", { class: "hint" }, "Select a node to see the line of yours that asked for it, the rewrites it went through "
      + "and the kernel it became."),
  ].filter(Boolean);
}

/* The user's lines in the order of their files, with how many nodes stand for each. */
function yourCode({ program, blocks }, find) {
  const counts = new Map();
  for (const block of blocks) {
    for (const n of block.nodes) {
      for (const at of new Map(program.linesOf(n).map(line => [`${line.file}:${line.line}`, line])).values()) {
        const key = `${at.file}:${at.line}`;
        counts.set(key, { at, count: (counts.get(key)?.count ?? 0) + 1 });
      }
    }
  }
  const lines = [...counts.values()].sort((a, b) => (a.at.file < b.at.file ? -1 : a.at.file > b.at.file ? 1 : a.at.line - b.at.line));
  if (!lines.length) return [];
  return [element("h3", {}, "Your code"), element("ol", { class: "source all" }, lines.map(({ at, count }) =>
    element("li", { title: "Search for the nodes of this line", onclick: () => find(`${at.file}:${at.line}`) },
      element("span", { class: "quiet" }, `${at.file}:${at.line}  ${plural(count, "node")}`), element("code", {}, at.text || "…"))))];
}

function userLines(program, node) {
  const lines = program.linesOf(node);
  if (!lines.length) return [];
  return [element("h3", {}, "Your code"), element("ol", { class: "source" }, lines.map(at =>
    element("li", {}, element("span", { class: "quiet" }, `${at.file}:${at.line}`, at.call ? `  ${at.call}` : ""),
      element("code", {}, at.text || "…"))))];
}

function kernelLinks(program, here, node, showKernel) {
  const numbers = here.kernels(node);
  if (!numbers.length) {
    const { node: last } = program.history(node, here.stage.index).at(-1);
    return last !== null && here.nodeOf(last).way === "view" && program.kernels.length
      ? [element("p", { class: "hint" }, "It takes no work: its memory is its operand's.")] : [];
  }
  return [element("h3", {}, "Kernel"), element("p", { class: "kernel-links" }, numbers.map(i => {
    const { name, kind, nodes, times } = program.kernels[i];
    return element("a", { class: "chip", onclick: () => showKernel(i) }, element("b", {}, name), ` ${kind}, ${plural(nodes.length, "node")}${times ? `, ${duration(times.seconds)}` : ""}`);
  }))];
}

/* Where the node stood at each stage at which something happened to it, and by which rewrite. */
function historyOf(program, node, here, go) {
  const path = program.history(node, here.stage.index);
  const steps = path.filter((step, i) => i === 0 || step.how !== "kept" || step.stage === here.stage);
  const rows = steps.map(({ stage, node: n, how, rules: all }) => {
    const rules = [...new Set(all)];
    const block = n === null ? null : stage.blockOf(n);
    const first = stage.index === 0;
    const did = rules.length ? rules.map(rule => element("span", { class: "rule", title: program.rules[rule] ?? "" }, rule)) : [];
    return element("li", { class: `${how} ${stage === here.stage && n === node ? "now" : ""}` },
      element("span", { class: "quiet" }, first ? "as built" : stage.name), " ",
      element("span", { class: "how" }, first ? "" : how === "made" || how === "gone" ? `${how} by ` : how), ...did,
      block ? element("code", {
        class: "follow", onclick: () => go({ stage: stage.index, block: block.index, node: n }),
      }, block.statement(n)) : null,
      ...rules.filter(rule => program.rules[rule]).map(rule => element("span", { class: "formula" }, program.rules[rule])));
  });
  return rows.length ? [element("h3", {}, "Through the passes"), element("ol", { class: "history" }, rows)] : [];
}
