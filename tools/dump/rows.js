// Rows of the lists: lines of text with marks, and what their parts look like.

// Rows of the text between two stages: {text, mark, part, other}. A changed part has its old lines
// above its new ones. With `folded` only changes are there, and a row for each run left out.
function textRows(from, to, folded) {
  const rows = [];
  let left = 0;
  const fold = () => {
    if (left) rows.push({ text: '    ... ' + left + ' lines', mark: 'fold', part: null });
    left = 0;
  };
  const push = (part, mark, other) => {
    for (const text of part.text.split('\n')) rows.push({ text, mark, part, other });
  };
  for (const pair of mergeStages(from, to)) {
    const mark = markOf(pair), [a, b] = pair;
    if (mark === 'same' && folded) {
      left += 1;
      continue;
    }
    fold();
    if (mark === 'same') push(b, '', null);
    if (mark === 'new') push(b, 'new', null);
    if (mark === 'gone') push(a, 'gone', null);
    if (mark === 'changed') {
      push(a, 'old', b);
      push(b, 'changed', a);
    }
  }
  fold();
  return rows;
}

function number(x) {
  if (x === null || x === undefined) return '-';
  if (Number.isInteger(x) && Math.abs(x) < 1e9) return String(x);
  return Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6 ? x.toExponential(2) : x.toPrecision(4);
}

// A row for each constant of a stage, largest first.
function constantRows(to) {
  const cell = (text, width) => String(text).padStart(width);
  const head = cell('elements', 12) + cell('min', 12) + cell('max', 12) + cell('mean', 12) +
    cell('deviation', 12) + cell('zeros', 10) + cell('SQNR', 8) + '  constant';
  const parts = to.parts.filter(p => p.kind === 'c');
  const count = p => to.statsOf(p).count;
  parts.sort((p, q) => count(q) - count(p) || p.index - q.index);
  return [{ text: head, mark: 'head', part: null }].concat(parts.map(part => {
    const s = to.statsOf(part), e = to.errorOf(part), x = part.parsed;
    const text = cell(s.count, 12) + cell(number(s.min), 12) + cell(number(s.max), 12) +
      cell(number(s.mean), 12) + cell(number(s.deviation), 12) + cell(s.zeros, 10) +
      cell(e && e[1] !== null ? e[1].toFixed(1) : '', 8) + '  ' + x.names[0] + ': ' + x.types[0];
    return { text, mark: '', part, other: null };
  }));
}

function span(class_, text, name) {
  const s = document.createElement('span');
  s.className = class_;
  s.textContent = text;
  if (name) s.dataset.name = name;
  return s;
}

// What lies between the beginning and the end that two lines share: [from, to) of `text`.
function changedRange(text, other) {
  let a = 0, b = 0;
  const most = Math.min(text.length, other.length);
  while (a < most && text[a] === other[a]) a++;
  while (b < most - a && text[text.length - 1 - b] === other[other.length - 1 - b]) b++;
  return [a, text.length - b];
}

// Cuts [from, to) of `class_` out of pieces [class, text, name].
function markRange(pieces, from, to, class_) {
  const out = [];
  let at = 0;
  for (const [c, text, name] of pieces) {
    const a = Math.max(0, Math.min(text.length, from - at)), b = Math.max(a, Math.min(text.length, to - at));
    for (const [d, part] of [[c, text.slice(0, a)], [c + ' ' + class_, text.slice(a, b)], [c, text.slice(b)]])
      if (part) out.push([d, part, name]);
    at += text.length;
  }
  return out;
}

// A line as elements: names can be clicked, strings and comments have a colour, what differs from
// the other line and what is searched for is marked.
function fillRow(element, row, query) {
  let pieces = [], at = 0;
  if (row.part) {
    for (const m of row.text.matchAll(TOKENS)) {
      if (m.index > at) pieces.push(['', row.text.slice(at, m.index)]);
      const class_ = { '%': 'value', '@': 'constant', '#': 'quant', '"': 'string' }[m[0][0]];
      pieces.push([class_ || 'comment', m[0], '%@#'.includes(m[0][0]) ? m[0] : '']);
      at = m.index + m[0].length;
    }
  }
  if (at < row.text.length) pieces.push(['', row.text.slice(at)]);
  if (row.other && !row.text.includes('\n') && !row.other.text.includes('\n')) {
    const [a, b] = changedRange(row.text, row.other.text);
    pieces = markRange(pieces, a, b, 'differs');
  }
  if (query) {
    const i = row.text.toLowerCase().indexOf(query);
    if (i >= 0) pieces = markRange(pieces, i, i + query.length, 'found');
  }
  for (const [class_, text, name] of pieces)
    element.append(class_ ? span(class_, text, name) : document.createTextNode(text));
}
