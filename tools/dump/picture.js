// A picture of the graph: ops in groups by the path of their ONNX node ("/layers.0/mlp/Mul" is Mul
// in mlp in layers.0). A group is one box until it is opened; then its members are laid out inside
// it, in rows by their longest way from the top. A group shows at most MOST boxes: longer ones are
// cut into runs of neighbours, so that a graph without paths can be looked at too.

const MOST = 60, WIDEST = 12, GAP = 18, PAD = 12, HEAD = 24, LEAF = 24, CLOSED = 40;

class Box {
  // `part` null: a group; `port`: an input or output of the graph.
  constructor(name, parent, order, part, port) {
    Object.assign(this, { name, parent, order, part, port, children: part ? null : [], open: false });
    this.first = this.last = name; // of a run: the names at its ends
    this.count = part && !port ? 1 : 0;
    this.marks = { new: 0, changed: 0, gone: 0 };
  }
  get depth() { return this.parent ? this.parent.depth + 1 : 0; }
}

// ---- the tree --------------------------------------------------------------------------------

function childGroup(group, name, order) {
  group.groups = group.groups || new Map();
  if (!group.groups.has(name)) {
    const child = new Box(name, group, order, null);
    group.groups.set(name, child);
    group.children.push(child);
  }
  return group.groups.get(name);
}

function groupOfPath(root, node, order) {
  let group = root;
  for (const name of node.split('/').filter(Boolean).slice(0, -1)) group = childGroup(group, name, order);
  return group;
}

function adopt(group, children) {
  group.children = children;
  for (const c of children) c.parent = group;
}

// Runs of neighbours, and runs of runs, until there are few enough.
function cut(group) {
  for (const c of group.children) if (c.children) cut(c);
  while (group.children.length > MOST) {
    const all = group.children, each = Math.ceil(all.length / Math.ceil(all.length / (MOST / 2)));
    const runs = [];
    for (let i = 0; i < all.length; i += each) {
      const some = all.slice(i, i + each);
      if (some.length === 1) {
        runs.push(some[0]);
        continue;
      }
      const first = some[0].first, last = some[some.length - 1].last;
      const run = new Box(first + ' .. ' + last, group, some[0].order, null);
      Object.assign(run, { first, last });
      adopt(run, some);
      runs.push(run);
    }
    adopt(group, runs);
  }
}

// A group that holds nothing but a group is one with it.
function merge(group) {
  for (const c of group.children) if (c.children) merge(c);
  if (group.parent && group.children.length === 1 && group.children[0].children) {
    group.name += '/' + group.children[0].name;
    adopt(group, group.children[0].children);
  }
}

function countAll(node) {
  if (!node.children) return;
  for (const c of node.children) {
    countAll(c);
    node.count += c.count;
    for (const mark of Object.keys(node.marks)) node.marks[mark] += c.marks[mark];
  }
}

// {root, leaves, edges: [leaf, leaf]} of a stage, with marks of what changed since `from`.
function buildTree(from, to) {
  const root = new Box('', null, 0, null), leaves = new Map(), edges = [];
  root.open = true;
  const makers = new Map(), waiting = new Map(), marks = new Map();
  for (const pair of mergeStages(from, to)) if (pair[1]) marks.set(pair[1].entity, markOf(pair));
  const leaf = (name, group, order, part, key, port) => {
    const node = new Box(name, group, order, part, port);
    group.children.push(node);
    leaves.set(key, node);
    return node;
  };
  for (const part of to.parts) {
    if (part.kind === 'g') for (const name of part.parsed.names) waiting.set(name, part);
    if (part.kind !== 'o') continue;
    const x = part.parsed, order = part.index;
    const known = x.takes.map(name => makers.get(name)).find(Boolean);
    const group = x.at.length ? groupOfPath(root, x.at[0], order) : known ? known.parent : root;
    if (x.op === 'return') {
      for (const name of new Set(x.takes)) {
        const maker = makers.get(name);
        if (maker) edges.push([maker, leaf('out ' + name, maker.parent, order, part, 'out ' + name, true)]);
      }
      continue;
    }
    const short = x.at.length ? x.at[0].split('/').pop() : x.names[0] || '';
    const node = leaf(x.op + (short ? '  ' + short : ''), group, order, part, part.entity);
    const mark = marks.get(part.entity);
    if (mark in node.marks) node.marks[mark] = 1;
    for (const name of new Set(x.takes)) {
      if (waiting.has(name)) { // an input stands beside the first that takes it
        makers.set(name, leaf('in ' + name, group, order - 0.5, waiting.get(name), 'in ' + name, true));
        waiting.delete(name);
      }
      if (makers.has(name)) edges.push([makers.get(name), node]);
    }
    for (const name of x.names) makers.set(name, node);
  }
  for (const [a, b] of mergeStages(from, to)) {
    if (b || a.kind !== 'o') continue;
    let group = root;
    for (const name of (a.parsed.at[0] || '').split('/').filter(Boolean).slice(0, -1))
      group = (group.groups && group.groups.get(name)) || group;
    group.marks.gone++;
  }
  merge(root);
  cut(root);
  countAll(root);
  return { root, leaves, edges };
}

// ---- layout ----------------------------------------------------------------------------------

// For each open group the edges between its members: group -> Map(member -> Set(member)).
function liftEdges(tree) {
  const lifted = new Map();
  for (const [u, v] of tree.edges) {
    let a = u, b = v, da = a.depth, db = b.depth;
    for (; da > db; da--) a = a.parent;
    for (; db > da; db--) b = b.parent;
    while (a.parent !== b.parent) {
      a = a.parent;
      b = b.parent;
    }
    if (a === b) continue;
    if (!lifted.has(a.parent)) lifted.set(a.parent, new Map());
    const out = lifted.get(a.parent);
    if (!out.has(a)) out.set(a, new Set());
    out.get(a).add(b);
  }
  return lifted;
}

// Rows of the members: each below all it depends on. Groups may depend on each other both ways;
// then the order of execution counts.
function rankMembers(members, after) {
  const before = new Map(members.map(m => [m, []]));
  const sorted = [...members].sort((p, q) => p.order - q.order);
  const position = new Map(sorted.map((m, i) => [m, i]));
  for (const [m, next] of after)
    for (const n of next) if (position.get(m) < position.get(n)) before.get(n).push(m);
  for (const m of sorted) m.rank = Math.max(-1, ...before.get(m).map(b => b.rank)) + 1;
  for (const m of sorted) { // what depends on nothing stands close to who needs it
    const next = [...(after.get(m) || [])].filter(n => position.get(m) < position.get(n));
    if (!before.get(m).length && next.length) m.rank = Math.max(0, Math.min(...next.map(n => n.rank)) - 1);
  }
  const rows = [];
  for (const m of sorted) (rows[m.rank] = rows[m.rank] || []).push(m);
  // One that is too long for a screen becomes several.
  const short = rows.flatMap(row => Array.from({ length: Math.ceil(row.length / WIDEST) },
    (_, i) => row.slice(i * WIDEST, (i + 1) * WIDEST)));
  return { rows: short, before };
}

const centre = m => m.x + m.w / 2;

// Members of a row stand below the middle of what they depend on, as far as there is room.
function placeRow(row, before) {
  const wish = new Map(row.map((m, i) => {
    const above = before.get(m).filter(b => b.rank < m.rank);
    return [m, above.length ? above.reduce((s, b) => s + centre(b), 0) / above.length : i];
  }));
  row.sort((p, q) => wish.get(p) - wish.get(q) || p.order - q.order);
  let edge = -Infinity, off = 0;
  for (const m of row) {
    m.x = Math.max(wish.get(m) - m.w / 2, edge + GAP);
    edge = m.x + m.w;
    off += centre(m) - wish.get(m);
  }
  for (const m of row) m.x -= off / row.length;
}

function layOut(node, lifted) {
  if (!node.children) {
    node.w = 7.3 * node.name.length + 18;
    node.h = LEAF;
    return;
  }
  if (!node.open) {
    const small = countText(node);
    node.w = Math.max(7.3 * (node.name.length + 2), 6.8 * small.length, 90) + 24;
    node.h = CLOSED;
    return;
  }
  for (const c of node.children) layOut(c, lifted);
  const { rows, before } = rankMembers(node.children, lifted.get(node) || new Map());
  let y = HEAD + PAD, low = Infinity, high = -Infinity;
  for (const row of rows) {
    placeRow(row, before);
    for (const m of row) {
      m.y = y;
      low = Math.min(low, m.x);
      high = Math.max(high, m.x + m.w);
    }
    y += Math.max(...row.map(m => m.h)) + 26;
  }
  const least = 7.6 * node.name.length + 40;
  node.w = Math.max(high - low, least) + 2 * PAD;
  node.h = y - 26 + PAD;
  const shift = PAD - low + (node.w - 2 * PAD - (high - low)) / 2;
  for (const c of node.children) c.x += shift;
}

function settle(node, x, y) {
  node.ax = x;
  node.ay = y;
  if (node.children && node.open) for (const c of node.children) settle(c, x + c.x, y + c.y);
}

// ---- drawing ---------------------------------------------------------------------------------

function svg(name, attributes, text) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

class Picture {
  // `onPick(part)` when an op is clicked.
  constructor(element, onPick) {
    this.element = element;
    this.onPick = onPick;
    this.scale = 1;
    this.opened = new Set(); // by path of names, so that it holds in every stage
    this.selected = 0;
  }

  // Made when it is drawn.
  show(from, to) {
    this.stages = [from, to];
    this.made = null;
    this.drawn = false;
  }

  get tree() {
    if (!this.made) this.made = buildTree(...this.stages);
    return this.made;
  }

  pathOf(node) { return node.parent ? this.pathOf(node.parent) + '/' + node.name : ''; }

  toggle(node) {
    const path = this.pathOf(node);
    if (!this.opened.delete(path)) this.opened.add(path);
    this.draw();
  }

  collapse() {
    this.opened.clear();
    this.draw();
  }

  // Opens all closed boxes in sight, unless that makes too many.
  expand() {
    const closed = [];
    let n = 0;
    const walk = node => {
      n++;
      if (node.children && !node.open) closed.push(node);
      if (node.children && node.open) node.children.forEach(walk);
    };
    walk(this.tree.root);
    for (const c of closed) n += c.children.length;
    if (n > 2500) return false;
    for (const c of closed) this.opened.add(this.pathOf(c));
    this.draw();
    return true;
  }

  zoom(factor) {
    this.scale = factor ? Math.min(4, Math.max(0.05, this.scale * factor))
      : Math.min(1, this.element.clientWidth / (this.size[0] + 20));
    this.resize();
  }

  resize() {
    if (!this.svg) return;
    this.svg.setAttribute('width', this.size[0] * this.scale);
    this.svg.setAttribute('height', this.size[1] * this.scale);
  }

  reveal(entity) {
    this.selected = entity;
    const leaf = this.tree.leaves.get(entity);
    if (leaf) for (let g = leaf.parent; g.parent; g = g.parent) this.opened.add(this.pathOf(g));
    this.draw();
    const box = this.element.querySelector('.picked');
    if (box) box.scrollIntoView({ block: 'center', inline: 'center' });
  }

  restore(node) {
    node.open = !node.parent || this.opened.has(this.pathOf(node));
    for (const c of node.children) if (c.children) this.restore(c);
  }

  draw() {
    const { root } = this.tree;
    this.restore(root);
    layOut(root, liftEdges(this.tree));
    settle(root, 0, 0);
    this.size = [root.w, root.h];
    this.svg = svg('svg', { viewBox: '0 0 ' + root.w + ' ' + root.h });
    // Edges run behind the boxes, and before the frames of open groups.
    const frames = svg('g', {}), edges = svg('g', { class: 'edges' }), boxes = svg('g', {});
    this.svg.append(frames, edges, boxes);
    this.drawNode(root, frames, boxes);
    this.drawEdges(edges);
    this.resize();
    this.element.replaceChildren(this.svg);
    this.drawn = true;
  }

  drawNode(node, frames, boxes) {
    const total = node.marks.new + node.marks.changed + node.marks.gone;
    const mark = !total ? '' : node.marks.new === node.count ? 'new' : 'changed';
    const kind = node.children ? (node.open ? 'open' : 'closed') : node.port ? 'port' : 'leaf';
    const picked = node.part && node.part.entity === this.selected && kind === 'leaf';
    const g = svg('g', { class: 'box ' + kind + ' ' + mark + (picked ? ' picked' : ''),
      transform: 'translate(' + node.ax + ',' + node.ay + ')' });
    if (node.parent) {
      g.append(svg('rect', { width: node.w, height: node.h, rx: 5 }));
      g.append(svg('text', { x: kind === 'leaf' || kind === 'port' ? 9 : 12, y: 16 },
        (kind === 'open' ? '- ' : kind === 'closed' ? '+ ' : '') + node.name));
      if (kind === 'closed')
        g.append(svg('text', { x: 12, y: 32, class: 'small' }, countText(node)));
      if (node.part && kind === 'leaf') g.append(svg('title', {}, node.part.text.trim()));
      g.addEventListener('click', event => {
        event.stopPropagation();
        if (node.children) this.toggle(node);
        else if (kind === 'leaf') this.onPick(node.part);
      });
    }
    (kind === 'open' ? frames : boxes).append(g);
    if (kind === 'open') for (const c of node.children) this.drawNode(c, frames, boxes);
  }

  drawEdges(into) {
    const seen = new Map();
    const inSight = node => {
      let best = node;
      for (let g = node; g.parent; g = g.parent) if (!g.parent.open) best = g.parent;
      return best;
    };
    for (const [u, v] of this.tree.edges) {
      const a = inSight(u), b = inSight(v), key = a.ax + ',' + a.ay + ',' + b.ax + ',' + b.ay;
      if (a === b) continue;
      const near = [u, v].some(n => n.part && n.part.entity === this.selected);
      seen.set(key, [a, b, near || (seen.has(key) && seen.get(key)[2])]);
    }
    for (const [a, b, near] of seen.values()) {
      const x1 = a.ax + a.w / 2, y1 = a.ay + a.h, x2 = b.ax + b.w / 2, y2 = b.ay;
      const bend = Math.max(12, Math.min(60, Math.abs(y2 - y1) / 2));
      const d = 'M' + x1 + ' ' + y1 + 'C' + x1 + ' ' + (y1 + bend) + ' ' + x2 + ' ' + (y2 - bend) + ' ' + x2 + ' ' + y2;
      into.append(svg('path', { d, class: near ? 'near' : '' }));
    }
  }
}

function countText(node) {
  return node.count + (node.count === 1 ? ' op' : ' ops') + markText(node.marks);
}

function markText(m) {
  return (m.new ? ' +' + m.new : '') + (m.gone ? ' -' + m.gone : '') + (m.changed ? ' ~' + m.changed : '');
}
