"use strict";

/* The graph as a drawing on a canvas: what is in sight is drawn, of a graph of any size. */

const FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace";
const LETTER = 7.25;        // width of a character at 12 px
const TITLE = 34;           // characters of a box's first line
const SMALL = 0.4;          // below this scale boxes have no text
const BOX = 40;             // height of a box

/* The boxes and edges of a block.  sides: "both" draws what is gone and what is new in one; a rebuilt node is one box.
   only: changes and what they touch.  byKernel: the nodes of a kernel are one box. */
function scene(block, { sides, only, byKernel }) {
  const old = sides === "after" ? undefined : block.old;
  const nodes = new Map();                                 // node → [block it is named in, change]
  if (old) {
    for (const n of old.nodes) {
      const fate = block.fate(n);
      if (sides === "before" || fate === "gone") nodes.set(n, [old, fate]);
    }
  }
  if (sides !== "before") for (const n of block.nodes) nodes.set(n, [block, block.how(n)]);

  const kernelOf = n => (byKernel && nodes.get(n)?.[0].kernelName(n)) || null;
  const isView = n => byKernel && block.nodeOf(n).way === "view" && !kernelOf(n);
  const standsFor = n => {
    let found = nodes.has(n) ? n : block.stage.went.get(n)?.[0] ?? n;
    while (isView(found)) [found] = block.nodeOf(found).args;
    return found;
  };
  const shown = only && block.old ? changed(nodes, standsFor) : new Set(nodes.keys());
  const sources = fewUsers(shown, nodes);

  const boxes = new Map();
  const edges = new Map();
  const keyOf = n => (kernelOf(n) ? `kernel ${kernelOf(n)}` : n);
  for (const n of shown) {
    if (isView(n)) continue;
    const [from, change] = nodes.get(n);
    const key = keyOf(n);
    if (!boxes.has(key)) boxes.set(key, box(from, n, change, kernelOf(n)));
    else boxes.get(key).nodes.push(n);
    for (const a of from.nodeOf(n).args ?? []) {
      const operand = standsFor(a);
      const { role } = from.nodeOf(operand);
      if (role ? !sources.has(operand) : !shown.has(operand)) continue;
      if (role && !boxes.has(operand)) boxes.set(operand, box(from, operand, "kept", null));
      const ends = [keyOf(operand), key];
      if (ends[0] !== ends[1]) edges.set(ends.join(" → "), ends);
    }
  }
  const became = [];                                       // [what is gone, what stands in its place]
  for (const n of sides === "both" && !byKernel ? shown : []) {
    const target = nodes.get(n)[1] === "gone" ? block.stage.went.get(n)?.[0] : null;
    if (target && boxes.has(target)) became.push([n, target]);
  }
  for (const made of boxes.values()) measure(made);
  return { boxes: [...boxes.values()], edges: [...edges.values()], became };
}

/* The inputs that are boxes of their own; where there are many, or many use one, they are names in their users' boxes. */
function fewUsers(shown, nodes) {
  const users = new Map();
  for (const n of shown.size > 80 ? [] : shown) {
    const [block] = nodes.get(n);
    for (const a of block.nodeOf(n).args ?? []) {
      if (block.nodeOf(a).role && block.nodeOf(a).role !== "number") users.set(a, (users.get(a) ?? 0) + 1);
    }
  }
  return new Set([...users].filter(([, count]) => count <= 4).map(([n]) => n));
}

function changed(nodes, standsFor) {
  const shown = new Set();
  for (const [n, [block, change]] of nodes) {
    if (QUIET.has(change)) continue;
    shown.add(n);
    if (change === "placed") continue;
    for (const a of block.nodeOf(n).args ?? []) if (nodes.has(standsFor(a))) shown.add(standsFor(a));
  }
  return shown;
}

function box(block, n, change, kernel) {
  const { op, type, role, way } = block.nodeOf(n);
  if (role) return { key: n, nodes: [n], title: block.name(n), subtitle: `${type}`, change: "kept", way: "source", role };
  const title = block.application(n).replace(/\) \{.*$/, ")");
  const rule = change === "made" && !kernel ? block.stage.came.get(n)?.slice(2).at(-1) : undefined;
  return { key: kernel ? `kernel ${kernel}` : n, nodes: [n], rule, title, subtitle: `${block.name(n)}  ${type}`, change, way, op, kernel, block };
}

function measure(made) {
  if (made.kernel) {
    const names = made.nodes.map(n => made.block.nodeOf(n).op);
    const { times } = made.block.program.kernels.find(k => k.name === made.kernel) ?? {};
    made.title = `${made.kernel}  ${plural(names.length, "node")}${times ? `  ${duration(times.seconds)}` : ""}`;
    made.subtitle = [...new Set(names)].join(" ");
    made.way = ["kernel", "loop", "reduce", "index", "scalar"].find(way => made.nodes.some(n => made.block.nodeOf(n).way === way)) ?? "view";
  }
  const cut = text => (text.length > TITLE ? `${text.slice(0, TITLE - 1)}…` : text);
  made.title = cut(made.title);
  made.subtitle = cut(made.subtitle);
  made.width = Math.max(made.title.length * LETTER, made.subtitle.length * LETTER * 0.92) + 26;
  made.height = BOX;
}

class Drawing {
  constructor(host, { select, open }) {
    this.host = host;
    this.select = select;
    this.open = open;
    this.canvas = element("canvas", { class: "drawing" });
    this.map = element("canvas", { class: "map", title: "The whole graph; click to go there" });
    this.view = { x: 0, y: 0, scale: 1 };
    const zoom = factor => () => this.zoom(factor, this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
    host.replaceChildren(this.canvas, this.map, element("div", { class: "zoom" },
      element("button", { title: "Nearer (+)", onclick: zoom(1.25) }, "+"),
      element("button", { title: "Further (−)", onclick: zoom(0.8) }, "−"),
      element("button", { title: "All of it (f)", onclick: () => this.fit() }, "all")));
    host.classList.remove("scroll");
    new ResizeObserver(() => this.draw()).observe(host);
    this.listen();
  }

  /* Shows a scene; `keep` leaves the place and scale as they are. */
  show(drawn, { selected, matches, keep }) {
    Object.assign(this, layout(drawn.boxes, drawn.edges));
    this.became = drawn.became;
    this.boxes = new Map(drawn.boxes.map(b => [b.key, b]));
    this.boxOf = new Map(drawn.boxes.flatMap(b => b.nodes.map(n => [n, b.key])));
    this.near = new Map();
    for (const line of this.lines) {
      for (const key of [line.from, line.to]) {
        if (!this.near.has(key)) this.near.set(key, []);
        this.near.get(key).push(line);
      }
    }
    this.rows = [...this.at.entries()].sort((a, b) => a[1].y - b[1].y || a[1].x - b[1].x).map(([key]) => key);
    this.selected = selected;
    this.matches = matches;
    this.mini = null;
    if (!keep) this.start();
    this.draw();
  }

  get changes() {
    return this.rows.filter(key => !QUIET.has(this.boxes.get(key).change));
  }

  mark(selected, matches) {
    this.selected = selected;
    this.matches = matches;
    this.draw();
  }

  next(step, changes) {
    const wanted = changes ? this.changes : this.rows;
    const now = wanted.indexOf(this.boxOf.get(this.selected));
    const key = wanted.at((now + step) % wanted.length);
    if (key !== undefined) this.select(this.boxes.get(key).nodes[0]);
  }

  /* -- where the view is */

  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const scale = Math.min(1.25, (w - 40) / this.width, (h - 40) / this.height);
    this.view = { scale, x: this.width / 2 - w / 2 / scale, y: this.height / 2 - h / 2 / scale };
    this.draw();
  }

  /* All of it where that can be read; else the first change at a readable size. */
  start() {
    this.fit();
    if (this.view.scale >= 0.6 || !this.rows.length) return;
    this.view.scale = 0.85;
    this.centre(this.changes[0] ?? this.rows[0]);
    const within = (at, whole, seen) => (whole < seen ? (whole - seen) / 2 : Math.max(-30, Math.min(at, whole - seen + 30)));
    this.view.x = within(this.view.x, this.width, this.canvas.clientWidth / this.view.scale);
    this.view.y = within(this.view.y, this.height, this.canvas.clientHeight / this.view.scale);
  }

  centre(key) {
    const place = this.at.get(key);
    const { clientWidth: w, clientHeight: h } = this.canvas;
    this.view.x = place.x - w / 2 / this.view.scale;
    this.view.y = place.y - h / 2 / this.view.scale;
    this.draw();
  }

  reveal(node) {
    const place = this.at.get(this.boxOf.get(node));
    if (!place) return;
    const { x, y, scale } = this.view;
    const inside = (place.x - x) * scale > 40 && (place.y - y) * scale > 40
      && (place.x - x) * scale < this.canvas.clientWidth - 40 && (place.y - y) * scale < this.canvas.clientHeight - 40;
    if (inside && scale > SMALL) return;
    this.view.scale = Math.max(scale, 0.7);
    this.centre(this.boxOf.get(node));
  }

  zoom(factor, px, py) {
    const scale = Math.min(3, Math.max(0.02, this.view.scale * factor));
    this.view.x += px / this.view.scale - px / scale;
    this.view.y += py / this.view.scale - py / scale;
    this.view.scale = scale;
    this.draw();
  }

  listen() {
    const { canvas, map } = this;
    canvas.onwheel = event => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY / 200), event.offsetX, event.offsetY);
      else {
        this.view.x += (event.shiftKey ? event.deltaY : event.deltaX) / this.view.scale;
        this.view.y += (event.shiftKey ? 0 : event.deltaY) / this.view.scale;
        this.draw();
      }
    };
    let drag = null;
    canvas.onpointerdown = event => {
      drag = { x: event.offsetX, y: event.offsetY, moved: 0 };
      canvas.setPointerCapture(event.pointerId);
    };
    canvas.onpointermove = event => {
      if (!drag) {
        this.point(this.hit(event.offsetX, event.offsetY));
        return;
      }
      const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
      drag = { x: event.offsetX, y: event.offsetY, moved: drag.moved + Math.abs(dx) + Math.abs(dy) };
      this.view.x -= dx / this.view.scale;
      this.view.y -= dy / this.view.scale;
      this.draw();
    };
    canvas.onpointerup = event => {
      const key = this.hit(event.offsetX, event.offsetY);
      if (drag && drag.moved < 4) this.select(key === null ? null : this.boxes.get(key).nodes.at(-1));
      drag = null;
    };
    canvas.onpointerleave = () => this.point(null);
    canvas.ondblclick = event => {
      const key = this.hit(event.offsetX, event.offsetY);
      if (key === null) this.zoom(1.6, event.offsetX, event.offsetY);
      else this.open(this.boxes.get(key).nodes.at(-1));
    };
    const go = event => {
      if (event.buttons !== 1 && event.type !== "click") return;
      this.view.x = event.offsetX / map.clientWidth * this.width - canvas.clientWidth / 2 / this.view.scale;
      this.view.y = event.offsetY / map.clientHeight * this.height - canvas.clientHeight / 2 / this.view.scale;
      this.draw();
    };
    map.onclick = go;
    map.onpointermove = go;
  }

  point(key) {
    if (key === this.pointed) return;
    this.pointed = key;
    this.canvas.style.cursor = key === null ? "grab" : "pointer";
    this.draw();
  }

  hit(px, py) {
    const x = this.view.x + px / this.view.scale;
    const y = this.view.y + py / this.view.scale;
    for (const [key, p] of this.at) {
      if (Math.abs(x - p.x) <= p.width / 2 && Math.abs(y - p.y) <= p.height / 2) return key;
    }
    return null;
  }

  /* -- drawing */

  draw() {
    if (!this.at || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.canvas.isConnected) this.paint();
    });
  }

  paint() {
    const pen = resized(this.canvas);
    const { x, y, scale } = this.view;
    const w = this.canvas.clientWidth / scale, h = this.canvas.clientHeight / scale;
    pen.scale(scale, scale);
    pen.translate(-x, -y);
    const near = new Set(this.near.get(this.boxOf.get(this.selected)));
    for (const line of this.near.get(this.pointed) ?? []) near.add(line);

    pen.lineWidth = Math.max(1.1, 0.6 / scale);
    pen.strokeStyle = colour("edge");
    for (const line of this.lines) {
      if (line.points && !near.has(line) && this.crosses(line, y, h)) this.curve(pen, line);
    }
    pen.strokeStyle = colour("made");
    pen.setLineDash([2, 4]);
    for (const [from, to] of this.became) this.leap(pen, from, to);
    pen.setLineDash([]);
    pen.lineWidth = Math.max(2, 1.2 / scale);
    pen.strokeStyle = colour("accent");
    for (const line of near) this.curve(pen, line);
    for (const [key, p] of this.at) {
      if (p.x + p.width / 2 > x && p.x - p.width / 2 < x + w && p.y + p.height / 2 > y && p.y - p.height / 2 < y + h) {
        this.paintBox(pen, this.boxes.get(key), p, scale);
      }
    }
    this.paintMap(w, h);
  }

  crosses(line, y, h) {
    return this.at.get(line.to).y > y && this.at.get(line.from).y < y + h;
  }

  curve(pen, { from, to, points }) {
    const a = this.at.get(from), b = this.at.get(to);
    const stops = [[a.x, a.y + a.height / 2], ...points ?? [], [b.x, b.y - b.height / 2]];
    pen.beginPath();
    pen.moveTo(...stops[0]);
    for (let i = 1; i < stops.length; i++) {
      const [px, py] = stops[i - 1], [qx, qy] = stops[i];
      const bend = Math.max(12, (qy - py) * 0.45);
      pen.bezierCurveTo(px, py + bend, qx, qy - bend, qx, qy);
    }
    pen.stroke();
  }

  /* From what is gone to what stands in its place: from side to side. */
  leap(pen, from, to) {
    const a = this.at.get(from), b = this.at.get(to);
    const way = Math.sign(b.x - a.x) || 1;
    const [ax, bx] = [a.x + way * a.width / 2, b.x - way * b.width / 2];
    const bend = Math.max(20, Math.abs(bx - ax) / 2);
    pen.beginPath();
    pen.moveTo(ax, a.y);
    pen.bezierCurveTo(ax + way * bend, a.y, bx - way * bend, b.y, bx, b.y);
    pen.stroke();
  }

  paintBox(pen, made, p, scale) {
    const left = p.x - p.width / 2, top = p.y - p.height / 2;
    const chosen = made.key === this.boxOf.get(this.selected);
    const found = this.matches && made.nodes.some(n => this.matches.has(n));
    pen.beginPath();
    pen.roundRect(left, top, p.width, p.height, made.role ? p.height / 2 : 6);
    pen.fillStyle = colour(made.role ? "source-box" : made.change === "made" || made.change === "gone" ? `${made.change}-box` : "panel");
    pen.fill();
    pen.lineWidth = chosen ? 3 : made.change === "kept" ? 1 : 1.6;
    pen.strokeStyle = colour(chosen ? "accent" : found ? "match" : made.change === "kept" ? "edge" : made.change);
    if (found && !chosen) pen.lineWidth = 3;
    pen.setLineDash(made.change === "gone" ? [5, 4] : []);
    pen.stroke();
    pen.setLineDash([]);
    if (!made.role) {
      pen.beginPath();
      pen.roundRect(left, top, scale < SMALL && made.change === "kept" ? p.width : 5, p.height, [6, 0, 0, 6]);
      pen.fillStyle = colour(`way-${made.way}`);
      pen.fill();
    }
    if (scale < SMALL) return;
    pen.fillStyle = colour(made.change === "gone" ? "gone" : "ink");
    pen.font = `600 12px ${FONT}`;
    pen.textBaseline = "middle";
    pen.fillText(made.title, left + 14, top + 13);
    pen.fillStyle = colour("quiet");
    pen.font = `11px ${FONT}`;
    pen.fillText(made.subtitle, left + 14, top + 28);
    if (made.rule) {
      pen.fillStyle = colour(made.change);
      pen.font = `10px ${FONT}`;
      pen.fillText(made.rule, left + 2, top - 8);
    }
  }

  paintMap(w, h) {
    const { map } = this;
    const all = this.view.x <= 0 && this.view.y <= 0 && this.view.x + w >= this.width && this.view.y + h >= this.height;
    map.hidden = all;
    if (all) return;
    const tall = Math.min(this.canvas.clientHeight * 0.6, 420);
    const scale = Math.min(170 / this.width, tall / this.height);
    map.style.width = `${Math.max(56, this.width * scale)}px`;
    map.style.height = `${Math.max(40, this.height * scale)}px`;
    const pen = resized(map);
    const sx = map.clientWidth / this.width, sy = map.clientHeight / this.height;
    for (const wanted of ["kept", "changed"]) {
      for (const [key, p] of this.at) {
        const { change } = this.boxes.get(key);
        if ((change === "kept") !== (wanted === "kept")) continue;
        pen.fillStyle = colour(change === "kept" ? "edge" : change);
        pen.fillRect((p.x - p.width / 2) * sx, (p.y - p.height / 2) * sy, Math.max(2, p.width * sx), Math.max(1.2, p.height * sy));
      }
    }
    pen.strokeStyle = colour("accent");
    pen.lineWidth = 1.5;
    pen.strokeRect(this.view.x * sx, this.view.y * sy, w * sx, h * sy);
  }
}

/* A canvas's pen, the canvas being as large as it is shown. */
function resized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

/* A colour of the style sheet. */
const colours = new Map();
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || "#888");
  return colours.get(name);
}
