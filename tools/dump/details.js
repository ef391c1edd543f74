// What is known of the part that was clicked: types, operands, users, where it came from, what it
// became, and the numbers of constants.

function element(tag, class_, ...content) {
  const e = document.createElement(tag);
  if (class_) e.className = class_;
  e.append(...content);
  return e;
}

function link(text, onClick, title) {
  const a = element('button', 'link', text);
  a.type = 'button';
  if (title) a.title = title;
  a.addEventListener('click', onClick);
  return a;
}

function fact(table, name, ...content) {
  if (content.length) table.append(element('tr', '', element('th', '', name), element('td', '', ...content)));
}

function lines(items) { return items.map(i => element('div', '', i)); }

// At most `most` of a list, and how many more there are.
function some(items, most, make) {
  const out = lines(items.slice(0, most).map(make));
  if (items.length > most) out.push(element('div', 'faint', 'and ' + (items.length - most) + ' more'));
  return out;
}

function histogram(stats) {
  const w = 300, h = 90, n = stats.bins.length, most = Math.max(...stats.bins);
  const s = svg('svg', { viewBox: '0 0 ' + w + ' ' + (h + 16), class: 'histogram', role: 'img' });
  const width = (stats.max - stats.min) / n;
  stats.bins.forEach((count, i) => {
    // A bin that is not empty can be seen.
    const height = count ? Math.max(1, h * count / most) : 0;
    const bar = svg('rect', { x: i * w / n, y: h - height, width: w / n - 0.5, height });
    bar.append(svg('title', {}, number(stats.min + i * width) + ' to ' +
      number(stats.min + (i + 1) * width) + ': ' + count));
    s.append(bar);
  });
  s.append(svg('text', { x: 0, y: h + 13 }, number(stats.min)));
  s.append(svg('text', { x: w, y: h + 13, 'text-anchor': 'end' }, number(stats.max)));
  return s;
}

class Details {
  // `go(stage, part)` shows a part of a stage; `goPass(name)` the stage that a pass made.
  constructor(element_, go, goPass) {
    this.element = element_;
    this.go = go;
    this.goPass = goPass;
  }

  nameLink(stage, name) {
    const maker = stage.maker(name);
    if (!maker) return document.createTextNode(name);
    const i = maker.parsed.names.indexOf(name), type = maker.parsed.types[i];
    return link(name, () => this.go(stage, maker), type ? name + ': ' + type : '');
  }

  partLink(stage, part) {
    const x = part.parsed;
    return link((x.names[0] || x.op || part.text.trim().slice(0, 40)) + (x.op ? '  ' + x.op : ''),
      () => this.go(stage, part), part.text.trim());
  }

  empty() {
    this.element.replaceChildren(element('p', 'faint',
      'Click a line, a name in it, or a box of the picture.'));
  }

  show(stage, part) {
    const x = part.parsed, table = element('table', '');
    const title = x.op ? x.op : { c: 'constant', q: 'descriptor', g: 'graph' }[part.kind] || '';
    const out = [element('h2', '', x.names[0] && part.kind !== 'g' ? x.names[0] : title)];
    if (x.op) {
      const row = data.ops[x.op];
      fact(table, 'operation', x.op + (row ? ': ' + row[1] : ''));
    }
    if (part.kind !== 'g')
      x.names.forEach((name, i) => x.types[i] && fact(table, i ? 'type of ' + name : 'type', x.types[i]));
    for (const q of new Set(x.types.map(t => /^#/.test(t) && t.slice(0, t.lastIndexOf('['))).filter(Boolean)))
      this.quantFact(table, stage, q);
    fact(table, x.op ? 'operands' : 'constants', ...lines(x.takes.map(n => this.nameLink(stage, n))));
    if (x.attributes) fact(table, 'attributes', x.attributes);
    const users = [...new Set(x.names.flatMap(n => stage.users(n)))];
    if (part.kind !== 'g') fact(table, 'used by', ...some(users, 12, p => this.partLink(stage, p)));
    this.originFacts(table, stage, part);
    this.kernelFacts(table, stage, part);
    this.historyFacts(table, stage, part);
    out.push(table);
    if (part.kind === 'c') out.push(...this.numbers(stage, part));
    this.element.replaceChildren(...out);
  }

  quantFact(table, stage, name) {
    const part = stage.maker(name);
    if (part) fact(table, 'codes', link(part.text.trim().replace('quant ', ''), () => this.go(stage, part)));
  }

  originFacts(table, stage, part) {
    const x = part.parsed, first = stages[0];
    const back = x.at.flatMap(node => {
      const ops = first.ofNode(node);
      return [element('div', 'node', node), ...lines(ops.map(p => this.partLink(first, p)))];
    });
    fact(table, 'ONNX nodes', ...back);
    fact(table, 'via', ...lines(x.via.map(pass => link(pass, () => this.goPass(pass)))));
  }

  kernelFacts(table, stage, part) {
    if (part.kind !== 'o') return;
    const found = kernelsOf(part).map(p => {
      const op = p.parsed.op, row = data.ops[op], text = kernels.get(p.entity) || '';
      return element('div', '', link(op, () => this.go(lastStage, p), p.text.trim()),
        element('span', 'faint', '  nb_lower_' + (row ? row[0] : op) + (text ? ', ' + text : '')));
    });
    fact(table, 'kernel', ...found);
  }

  historyFacts(table, stage, part) {
    const rows = [];
    let before = null;
    for (const s of stages) {
      const p = s.of(part.entity);
      const what = !p ? (before ? 'gone' : '') : !before ? (s.index ? 'new' : 'there') :
        before.text === p.text ? '' : 'changed';
      if (what) rows.push(p ? link(what + ' in ' + s.name, () => this.go(s, p)) : 'gone in ' + s.name);
      before = p;
    }
    fact(table, 'history', ...lines(rows));
  }

  numbers(stage, part) {
    const s = stage.statsOf(part), e = stage.errorOf(part);
    const table = element('table', 'numbers');
    for (const [name, value] of [['elements', s.count], ['min', number(s.min)], ['max', number(s.max)],
      ['mean', number(s.mean)], ['deviation', number(s.deviation)], ['zeros', s.zeros]])
      fact(table, name, String(value));
    if (s.bad) fact(table, 'not finite', String(s.bad));
    if (e) {
      fact(table, 'SQNR', e[1] === null ? 'no finite ratio' : e[1].toFixed(2) + ' dB, to the stage before');
      fact(table, 'largest error', number(e[2]) + ', ' + e[3] + ' differ');
    }
    return s.min === null ? [table] : [table, histogram(s)];
  }
}
