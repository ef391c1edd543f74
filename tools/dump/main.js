// The page: which stages are looked at, which part, and in which of the three views.

const $ = id => document.getElementById(id);
const state = { from: 0, to: 0, view: 'text', entity: 0, stage: null };

const details = new Details($('details'), goTo, name => {
  const stage = stages.find(s => s.name === name && s.index <= state.to) || stages.find(s => s.name === name);
  if (stage) compare(stage.index - 1, stage.index);
});
const text = new List($('text'), pickRow), table = new List($('constants'), pickRow);
const picture = new Picture($('picture'), part => pick(stages[state.to], part));
const views = { text, constants: table, picture };

// ---- what is looked at -----------------------------------------------------------------------

function compare(from, to) {
  state.from = Math.max(0, Math.min(from, stages.length - 1));
  state.to = Math.max(0, Math.min(to, stages.length - 1));
  refresh();
}

function refresh() {
  const from = stages[state.from], to = stages[state.to];
  text.show(textRows(from, to, $('folded').checked && from !== to));
  table.show(constantRows(to));
  picture.show(from, to);
  $('what').textContent = from === to ? to.name : from.name + '  \u2192  ' + to.name;
  for (const input of document.querySelectorAll('#pipeline input'))
    input.checked = Number(input.value) === state[input.name];
  showView(state.view);
  search();
  mark();
  if (!state.entity || text.rowOf(state.entity) < 0) text.firstChange();
}

function showView(view) {
  state.view = view;
  for (const name of Object.keys(views)) {
    $(name).hidden = name !== view;
    $('tab-' + name).setAttribute('aria-selected', name === view);
  }
  $('zoom').hidden = view !== 'picture';
  $('changes').hidden = view !== 'text';
  if (view === 'picture' && !picture.drawn) {
    picture.draw();
    picture.zoom(0);
  }
  if (view !== 'picture') views[view].draw(true);
  remember();
}

function mark() {
  text.select(state.entity);
  table.select(state.entity);
  picture.selected = state.entity;
  if (state.view === 'picture' && state.entity) picture.reveal(state.entity);
}

function pick(stage, part) {
  state.entity = part.entity;
  details.show(stage, part);
  mark();
  remember();
}

// A part of any stage: in the one that is shown if it is there, else in its own.
function goTo(stage, part) {
  const shown = stage.index === state.to || stage.index === state.from;
  if (!shown) compare(Math.max(0, stage.index - 1), stage.index);
  if (state.view === 'constants' && part.kind !== 'c') showView('text');
  if (state.view === 'picture' && part.kind !== 'o') showView('text');
  pick(stage, part);
}

function pickRow(row, name) {
  if (!row || !row.part) return;
  const stage = row.part.stage, maker = name && stage.maker(name);
  // A click on a name goes to what makes it, but on its own line to the line.
  if (maker && maker !== row.part)
    goTo(stage, maker);
  else
    pick(stage, row.part);
}

// ---- the pipeline ----------------------------------------------------------------------------

function counts(step) {
  if (!step.counts) return step.result;
  const [added, removed, changed, constants] = step.counts, out = [];
  if (added) out.push('+' + added);
  if (removed) out.push('-' + removed);
  if (changed) out.push('~' + changed);
  if (constants) out.push(constants + ' constants');
  return out.join(' ') || 'other names or storage';
}

function radio(name, value) {
  const input = element('input');
  Object.assign(input, { type: 'radio', name, value, title: name === 'from' ? 'compare from here' : 'show this' });
  input.addEventListener('change', () => compare(name === 'from' ? value : state.from, name === 'to' ? value : state.to));
  return input;
}

function stageRow(name, index, note, result) {
  const row = element('li', result);
  if (index === null) {
    row.append(element('span', 'pass', name), element('span', 'note', note));
    return row;
  }
  const button = element('button', 'pass', name);
  button.type = 'button';
  button.dataset.stage = index;
  button.addEventListener('click', () => compare(Math.max(0, index - 1), index));
  row.append(radio('from', index), radio('to', index), button, element('span', 'note', note));
  return row;
}

function fillPipeline() {
  const list = $('pipeline'), ops = stages[0].kinds.split('o').length - 1;
  list.append(stageRow('input', 0, ops + ' ops', 'changed'));
  for (const step of data.steps) {
    const row = stageRow(step.name, 'stage' in step ? step.stage : null, counts(step), step.result);
    row.title = step.name + ': ' + step.ms.toFixed(1) + ' ms';
    list.append(row);
  }
  $('command').textContent = data.pipeline;
}

// ---- search ----------------------------------------------------------------------------------

function search() {
  const list = state.view === 'constants' ? table : text, n = list.search($('query').value);
  $('hits').textContent = $('query').value ? n + (n === 1 ? ' line' : ' lines') : '';
}

function nextHit(step) {
  if (state.view === 'picture') showView('text');
  const list = state.view === 'constants' ? table : text, i = list.nextHit(step);
  if (!i) return;
  $('hits').textContent = i + ' of ' + list.hits.length;
}

// ---- all -------------------------------------------------------------------------------------

// The place is kept in the address: a link to it shows the same.
function remember() {
  const { from, to, view, entity } = state;
  history.replaceState(null, '', '#' + new URLSearchParams({ from, to, view, entity }));
}

function recall() {
  const p = new URLSearchParams(location.hash.slice(1)), int = (name, none) => {
    const n = parseInt(p.get(name), 10);
    return Number.isNaN(n) ? none : n;
  };
  state.entity = int('entity', 0);
  if (p.get('view') in views) state.view = p.get('view');
  compare(int('from', Math.max(0, stages.length - 2)), int('to', stages.length - 1));
  const part = stages[state.to].of(state.entity) || stages[state.from].of(state.entity);
  if (part)
    details.show(part.stage, part);
  else
    details.empty();
}

function wire() {
  for (const name of Object.keys(views)) $('tab-' + name).addEventListener('click', () => {
    showView(name);
    search();
    mark();
  });
  $('query').addEventListener('input', search);
  $('query').addEventListener('keydown', event => {
    if (event.key === 'Enter') nextHit(event.shiftKey ? -1 : 1);
    if (event.key === 'Escape') $('query').blur();
  });
  $('next-hit').addEventListener('click', () => nextHit(1));
  $('last-hit').addEventListener('click', () => nextHit(-1));
  $('next-change').addEventListener('click', () => text.nextChange(1));
  $('last-change').addEventListener('click', () => text.nextChange(-1));
  $('folded').addEventListener('change', refresh);
  $('zoom-in').addEventListener('click', () => picture.zoom(1.25));
  $('zoom-out').addEventListener('click', () => picture.zoom(0.8));
  $('zoom-fit').addEventListener('click', () => picture.zoom(0));
  $('expand').addEventListener('click', () => {
    $('too-many').hidden = picture.expand();
  });
  $('collapse').addEventListener('click', () => picture.collapse());
  document.addEventListener('keydown', event => {
    if (event.target.tagName === 'INPUT' && event.target.type !== 'radio') return;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === '/') {
      event.preventDefault();
      $('query').focus();
    }
    if (event.key === 'n' || event.key === 'p') text.nextChange(event.key === 'n' ? 1 : -1);
  });
}

$('title').textContent = data.title.split('/').pop();
$('title').title = data.title;
$('version').textContent = 'nibble ' + data.version;
fillPipeline();
wire();
recall();
document.body.dataset.ready = 'yes';

// What a picture and details will ask for is made while nobody waits.
function prepare(i) {
  requestIdleCallback(deadline => {
    const stage = stages[state.to];
    while (i < stage.entities.length && deadline.timeRemaining() > 1) void stage.part(i++).parsed;
    if (i < stage.entities.length) prepare(i);
  });
}
prepare(0);
