"use strict";

/* What the page shows: functions with their stages, nodes, kernels and code, as tensorc/inspect/page writes them. */

const packed = JSON.parse(document.getElementById("data").textContent);

async function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/* A function: `nodes` are told apart by their numbers, which are the same in all stages. */
class Program {
  static known = new Map();

  static async number(index) {
    if (!Program.known.has(index)) {
      const entry = packed.functions[index];
      Program.known.set(index, new Program(await unpack(entry.graphs), entry.codes));
    }
    return Program.known.get(index);
  }

  constructor(data, codes) {
    Object.assign(this, data);
    this.codes = codes;
    this.unpacked = new Map();
    this.stages = data.stages.map((stage, i) => new Stage(this, stage, i));
    const profile = data.measured?.profile;
    if (profile) for (const kernel of this.kernels) kernel.times = timesOf(kernel, profile.kernels);
    this.kernelsOf = new Map();
    this.kernels.forEach((kernel, i) => {
      for (const node of kernel.nodes) {
        if (!this.kernelsOf.has(node)) this.kernelsOf.set(node, []);
        this.kernelsOf.get(node).push(i);
      }
    });
  }

  /* The code of a function, by form: `written`, `optimised` or `machine`. */
  async code(name) {
    if (!this.unpacked.has(name)) this.unpacked.set(name, unpack(this.codes[name]));
    return this.unpacked.get(name);
  }

  linesOf(node) {
    return (this.nodes[node].lines ?? []).map(i => this.lines[i]);
  }

  /* Where a node of a stage comes from, and what becomes of it: [stage, node, rules, how], oldest first. */
  history(node, stage) {
    const path = [[stage, node]];
    for (let i = stage, n = node; i > 0; i--) {
      const [, source] = this.stages[i].came.get(n) ?? ["kept", n];
      if (source === null) break;
      path.unshift([i - 1, n = source]);
    }
    for (let i = stage + 1, n = node; i < this.stages.length; i++) {
      const [target] = this.stages[i].went.get(n) ?? [n];
      if (target === null) {
        path.push([i, null, this.stages[i].went.get(n).slice(1)]);
        break;
      }
      path.push([i, n = target]);
    }
    return path.map(([i, n, rules]) => {
      const [how, , ...by] = this.stages[i].came.get(n) ?? ["kept", n];
      return { stage: this.stages[i], node: n, how: n === null ? "gone" : how, rules: rules ?? by };
    });
  }
}

/* What the parts of a kernel took together; undefined for one that did not run. */
function timesOf(kernel, rows) {
  const parts = kernel.parts.map(part => rows[part.name]).filter(Boolean);
  if (!parts.length) return undefined;
  const total = name => parts.reduce((sum, part) => sum + part[name], 0);
  const seconds = total("seconds");
  const flops = parts.some(part => part.flops === null) ? null : total("flops");
  return {
    seconds, flops, share: total("share"), bytes: total("bytes"), calls: Math.max(...parts.map(part => part.calls)),
    limit: parts.reduce((sum, part) => sum + part.limit * part.seconds, 0) / (seconds || 1),
    bound: parts.reduce((a, b) => (b.seconds > a.seconds ? b : a)).bound,
  };
}

/* The graph after one pass. */
class Stage {
  constructor(program, data, index) {
    Object.assign(this, data);
    this.program = program;
    this.index = index;
    this.came = new Map(Object.entries(data.came).map(([n, v]) => [+n, v]));
    this.went = new Map(Object.entries(data.went).map(([n, v]) => [+n, v]));
    this.titles = new Map(data.blocks.map(block => [block.graph, block.title]));
    this.blocks = data.blocks.map((block, i) => new Block(this, block, i));
  }

  get before() { return this.program.stages[this.index - 1]; }

  get main() { return this.blocks.length - 1; }

  /* How many nodes were made, rebuilt on other operands, moved to a kernel, and lost. */
  get counts() {
    return this.counted ??= this.blocks.map(block => block.counts).reduce((a, b) => (
      { made: a.made + b.made, rebuilt: a.rebuilt + b.rebuilt, placed: a.placed + b.placed, gone: a.gone + b.gone }));
  }

  get changed() {
    const { made, rebuilt, placed, gone } = this.counts;
    return made + rebuilt + placed + gone > 0;
  }

  get size() { return this.blocks.reduce((total, block) => total + block.nodes.length, 0); }

  blockOf(node) {
    return this.blocks.find(block => block.has(node));
  }
}

/* One of the graphs of a stage: the body of a loop, a branch, or, with no title, the function itself. */
class Block {
  constructor(stage, data, index) {
    Object.assign(this, data);
    this.stage = stage;
    this.index = index;
    this.places = new Map(Object.entries(data.places).map(([n, v]) => [+n, v]));
    this.names = new Map(data.params.map(n => [n, this.nodeOf(n).name]));
    data.nodes.forEach((n, i) => this.names.set(n, `%${i}`));
    this.here = new Set([...data.nodes, ...data.params]);
  }

  get program() { return this.stage.program; }

  nodeOf(n) { return this.stage.program.nodes[n]; }

  has(n) { return this.here.has(n); }

  /* The block of the stage before that this one comes from. */
  get old() { return this.before === null ? undefined : this.stage.before?.blocks[this.before]; }

  get label() { return this.title || this.program.name; }

  name(n) {
    return this.names.get(n) ?? this.nodeOf(n).name ?? "?";
  }

  /* `add(%2, b) {axis=1}` */
  application(n) {
    const { op, args, attrs } = this.nodeOf(n);
    const told = attrs?.replace(/@<(\d+)>/g, (_, graph) => `@${this.stage.titles.get(+graph) ?? "body"}`);
    return `${op}(${(args ?? []).map(a => this.name(a)).join(", ")})${told ? ` ${told}` : ""}`;
  }

  statement(n) {
    return `${this.name(n)}: ${this.nodeOf(n).type} = ${this.application(n)}`;
  }

  head() {
    const told = n => {
      const { name, role, type } = this.nodeOf(n);
      return `${name}: ${role === "input" ? "" : `${role} `}${type}`;
    };
    const inputs = this.params.filter(n => this.nodeOf(n).role === "input").map(told);
    const others = this.params.filter(n => this.nodeOf(n).role !== "input").map(told);
    return `${this.title ? "body" : "graph"} ${this.label}(${inputs.join(", ")}${others.length ? `; ${others.join(", ")}` : ""})`;
  }

  tail() {
    const updates = this.updates.map(([v, n]) => `${this.name(v)} := ${this.name(n)}`).join(", ");
    return `return ${this.outputs.map(n => this.name(n)).join(", ")}${updates ? ` ; ${updates}` : ""}`;
  }

  /* How a node came about: `kept`, `placed` in a kernel or elsewhere in memory, `rebuilt`, `made`. */
  how(n) {
    const came = this.stage.came.get(n);
    if (came) return came[0];
    return this.old && this.places.get(n) !== this.old.places.get(n) ? "placed" : "kept";
  }

  /* What became of a node of the block before: `kept`, `rebuilt`, `gone`. */
  fate(n) {
    const went = this.stage.went.get(n);
    if (!went || this.has(n)) return "kept";
    return went[0] !== null && this.stage.came.get(went[0])?.[0] === "rebuilt" ? "rebuilt" : "gone";
  }

  get counts() {
    if (!this.counted) {
      this.counted = { made: 0, rebuilt: 0, placed: 0, gone: this.old?.nodes.filter(n => this.fate(n) === "gone").length ?? 0 };
      for (const n of this.nodes) if (this.how(n) in this.counted) this.counted[this.how(n)]++;
    }
    return this.counted;
  }

  /* The first kernel that computes a node, by the plan's own name for it. */
  kernelName(n) {
    return this.places.get(n)?.match(/^k\d+/)?.[0];
  }

  /* The numbers of the kernels of a node, which for the nodes of a loop are those that its body became. */
  kernels(n) {
    const { node } = this.program.history(n, this.stage.index).at(-1);
    const own = this.program.kernelsOf.get(node);
    if (own) return own;
    const name = this.program.stages.at(-1).blockOf(node)?.kernelName(node);
    if (!name || this.title) return [];
    return this.program.kernels.flatMap((kernel, i) => kernel.name.startsWith(`${name}_`) ? [i] : []);
  }

  users(n) {
    if (!this.usersOf) {
      this.usersOf = new Map();
      for (const user of this.nodes) {
        for (const a of this.nodeOf(user).args ?? []) {
          if (!this.usersOf.has(a)) this.usersOf.set(a, new Set());
          this.usersOf.get(a).add(user);
        }
      }
    }
    return [...this.usersOf.get(n) ?? []];
  }
}
