"use strict";

/* Places for the nodes of a graph, in layers: operands above their users, long chains straight, few crossings.

   Layers by the longest path; within a layer the order of barycentres, after Sugiyama, Tagawa & Toda, 1981; then the
   places that are nearest to the neighbours' in the sense of least squares, by pooling adjacent violators. */

const GAP = { x: 22, y: 34, part: 60 };
const FAR = 5;         // edges across more layers than this are drawn only for a node that is pointed at
const SWEEPS = 8;

/* boxes: [{ key, width, height }]; edges: [[from, to]] by key.
   Returns { at: key → { x, y, width, height }, lines: [{ from, to, points }], width, height }. */
function layout(boxes, edges) {
  const index = new Map(boxes.map((box, i) => [box.key, i]));
  const links = edges.map(([a, b]) => [index.get(a), index.get(b)]).filter(([a, b]) => a !== undefined && b !== undefined && a !== b);
  const parts = components(boxes.length, links).map(members => arranged(members, boxes, links));
  return shelved(parts, boxes);
}

/* The weakly connected parts, each with its own edges; in the order of their first members. */
function components(count, links) {
  const root = Int32Array.from({ length: count }, (_, i) => i);
  const find = i => {
    while (root[i] !== i) i = root[i] = root[root[i]];
    return i;
  };
  for (const [a, b] of links) root[Math.max(find(a), find(b))] = Math.min(find(a), find(b));
  const parts = new Map();
  for (let i = 0; i < count; i++) {
    const r = find(i);
    if (!parts.has(r)) parts.set(r, { nodes: [], links: [] });
    parts.get(r).nodes.push(i);
  }
  for (const link of links) parts.get(find(link[0])).links.push(link);
  return [...parts.values()];
}

function arranged({ nodes, links }, boxes) {
  const rank = ranks(nodes, links);
  const vertices = new Map(nodes.map(i => [i, { box: boxes[i], rank: rank.get(i), up: [], down: [], width: boxes[i].width }]));
  const chains = [];
  for (const [a, b] of links) {
    const span = rank.get(b) - rank.get(a);
    if (span < 1 || span > FAR) {
      chains.push({ from: a, to: b, via: null });
      continue;
    }
    const chain = [vertices.get(a)];
    for (let r = rank.get(a) + 1; r < rank.get(b); r++) chain.push({ rank: r, up: [], down: [], width: 8 });
    chain.push(vertices.get(b));
    for (let i = 1; i < chain.length; i++) {
      chain[i - 1].down.push(chain[i]);
      chain[i].up.push(chain[i - 1]);
    }
    chains.push({ from: a, to: b, via: chain.slice(1, -1) });
  }

  const layers = layered(nodes.map(i => vertices.get(i)), chains.flatMap(chain => chain.via ?? []));
  for (let sweep = 0; sweep < SWEEPS; sweep++) order(layers, sweep % 2 === 0);
  place(layers);
  return { nodes, vertices, chains, layers };
}

/* The longest path from the nodes without operands; edges that close a cycle do not count.  Those without operands
   themselves come down to right above their first user. */
function ranks(nodes, links) {
  const below = new Map(nodes.map(i => [i, []]));
  for (const [a, b] of links) below.get(a).push(b);
  const finished = [];
  const state = new Map();
  for (const start of nodes) {
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, 1);
    while (stack.length) {
      const top = stack.at(-1);
      const next = below.get(top[0])[top[1]++];
      if (next === undefined) {
        state.set(top[0], 2);
        finished.push(top[0]);
        stack.pop();
      } else if (!state.has(next)) {
        state.set(next, 1);
        stack.push([next, 0]);
      }
    }
  }
  const rank = new Map(nodes.map(i => [i, 0]));
  const place = new Map(finished.map((i, k) => [i, -k]));
  const entered = new Set();
  for (const i of finished.reverse()) {
    for (const b of below.get(i)) {
      if (place.get(b) > place.get(i)) {
        rank.set(b, Math.max(rank.get(b), rank.get(i) + 1));
        entered.add(b);
      }
    }
  }
  for (const i of nodes) {
    const users = below.get(i).filter(b => place.get(b) > place.get(i)).map(b => rank.get(b));
    if (!entered.has(i) && users.length) rank.set(i, Math.min(...users) - 1);
  }
  return rank;
}

function layered(real, dummies) {
  const layers = [];
  for (const vertex of [...real, ...dummies]) (layers[vertex.rank] ??= []).push(vertex);
  const dense = layers.filter(layer => layer);
  dense.forEach(layer => layer.forEach((vertex, i) => { vertex.order = i; }));
  return dense;
}

/* One sweep down or up: each layer in the order of its neighbours' mean. */
function order(layers, down) {
  for (const layer of down ? layers : [...layers].reverse()) {
    for (const vertex of layer) {
      const near = down ? vertex.up : vertex.down;
      vertex.pull = near.length ? near.reduce((total, v) => total + v.order, 0) / near.length : vertex.order;
    }
    layer.sort((a, b) => a.pull - b.pull || a.order - b.order);
    layer.forEach((vertex, i) => { vertex.order = i; });
  }
}

/* x for all: each layer as near to its neighbours as its order allows.  Where not all get their wish, those do from
   which the longest paths go on: what branches off stands aside, and the trunk stays straight. */
function place(layers) {
  for (const layer of layers) for (const v of layer) v.depth = Math.max(0, ...v.up.map(u => u.depth + 1));
  for (const layer of [...layers].reverse()) for (const v of layer) v.height = Math.max(0, ...v.down.map(d => d.height + 1));
  for (const layer of layers) {
    let x = -layer.reduce((total, vertex) => total + vertex.width + GAP.x, 0) / 2;
    for (const vertex of layer) {
      vertex.x = x + vertex.width / 2;
      x += vertex.width + GAP.x;
    }
  }
  for (let sweep = 0; sweep <= SWEEPS; sweep++) {
    const down = sweep % 2 === 0;
    for (const layer of down ? layers : [...layers].reverse()) {
      settle(layer, vertex => (vertex.box ? 1 + (down ? vertex.height : vertex.depth) : 2), vertex => {
        const near = sweep >= SWEEPS - 3 && sweep < SWEEPS ? [...vertex.up, ...vertex.down] : down ? vertex.up : vertex.down;
        return near.length ? near.reduce((total, v) => total + v.x, 0) / near.length : vertex.x;
      });
    }
  }
}

/* Least squares under the order of a layer: pools of neighbours that would overlap share their mean. */
function settle(layer, weigh, wish) {
  const pools = [];
  let shift = 0;
  layer.forEach((vertex, i) => {
    if (i) shift += (layer[i - 1].width + vertex.width) / 2 + GAP.x;
    vertex.shift = shift;
    const weight = weigh(vertex);
    let pool = { total: weight * (wish(vertex) - shift), weight, members: [vertex] };
    while (pools.length && pools.at(-1).total / pools.at(-1).weight > pool.total / pool.weight) {
      const last = pools.pop();
      pool = { total: last.total + pool.total, weight: last.weight + pool.weight, members: last.members.concat(pool.members) };
    }
    pools.push(pool);
  });
  for (const { total, weight, members } of pools) {
    for (const vertex of members) vertex.x = total / weight + vertex.shift;
  }
}

/* The parts side by side, in rows that are about as wide as the widest of them, or as the whole is high. */
function shelved(parts, boxes) {
  const at = new Map();
  const lines = [];
  const measured = parts.map(part => {
    const all = part.layers.flat();
    const left = Math.min(...all.map(v => v.x - v.width / 2));
    const right = Math.max(...all.map(v => v.x + v.width / 2));
    const heights = part.layers.map(layer => Math.max(20, ...layer.map(v => v.box?.height ?? 0)));
    return { part, left, width: right - left, heights, height: heights.reduce((a, b) => a + b + GAP.y, 0) };
  });
  const area = measured.reduce((total, m) => total + (m.width + GAP.part) * (m.height + GAP.part), 0);
  const limit = Math.max(...measured.map(m => m.width), Math.sqrt(area) * 1.4);

  let x = 0, y = 0, shelf = 0, width = 0;
  for (const { part, left, width: own, heights, height } of measured) {
    if (x > 0 && x + own > limit) {
      x = 0;
      y += shelf + GAP.part;
      shelf = 0;
    }
    let top = y;
    const tops = heights.map(h => [top, top += h + GAP.y][0]);
    part.layers.forEach((layer, r) => layer.forEach(vertex => {
      vertex.px = vertex.x - left + x;
      vertex.py = tops[r] + heights[r] / 2;
      if (vertex.box) at.set(vertex.box.key, { x: vertex.px, y: vertex.py, width: vertex.box.width, height: vertex.box.height });
    }));
    for (const { from, to, via } of part.chains) {
      lines.push({ from: boxes[from].key, to: boxes[to].key, points: via?.map(v => [v.px, v.py]) ?? null });
    }
    x += own + GAP.part;
    width = Math.max(width, x);
    shelf = Math.max(shelf, height);
  }
  return { at, lines, width: Math.max(1, width - GAP.part), height: Math.max(1, y + shelf - GAP.y) };
}
