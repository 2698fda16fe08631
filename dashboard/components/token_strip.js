// A strip of tokens. Every piece of model text enters the page through textContent and through nothing else.
const PALETTES = __PALETTES__;
const SETTLE_MS = 120; // arrow keys held down send one selection, the last
const TRUST_MS = 2500; // how long a click outranks what the server still says

const instances = new WeakMap();

function themeOf(host) {
  const color = getComputedStyle(host).getPropertyValue("--st-background-color").trim();
  const hex = /^#([0-9a-f]{6})/i.exec(color);
  if (!hex) return "light";
  const n = parseInt(hex[1], 16);
  return 0.299 * (n >> 16) + 0.587 * ((n >> 8) & 255) + 0.114 * (n & 255) < 128 ? "dark" : "light";
}

function mount(parentElement) {
  const state = {
    strip: parentElement.querySelector(".strip"),
    card: parentElement.querySelector(".card"),
    legend: parentElement.querySelector(".legend"),
    barLegend: parentElement.querySelector(".legend.bar"),
    tokens: [],
    identity: null,
    colors: null,
    selected: 0,
    clickedAt: 0,
    timer: null,
    data: null,
    send: null,
  };

  state.mark = () => {
    state.tokens.forEach((element, i) => {
      const on = i === state.selected;
      element.classList.toggle("selected", on);
      element.setAttribute("aria-selected", on ? "true" : "false");
    });
    const current = state.tokens[state.selected];
    if (current) state.strip.setAttribute("aria-activedescendant", current.id);
  };

  state.choose = (index) => {
    if (!state.tokens.length) return;
    state.selected = Math.max(0, Math.min(state.tokens.length - 1, index));
    state.clickedAt = Date.now();
    state.mark();
    state.tokens[state.selected].scrollIntoView({ block: "nearest" });
    clearTimeout(state.timer);
    // On a live run the next step may be drawn before this is sent: the pick says what it was made on.
    const pick = { pos: state.selected, place: state.data.place };
    state.timer = setTimeout(() => state.send(pick), SETTLE_MS);
  };

  state.move = (what, by) => {
    clearTimeout(state.timer); // a selection that still waits would lead back here
    state.send({ move: what, by, place: state.data.place, at: Date.now() });
  };

  // From the selected token on through the list of extremes, round and round.
  state.nextExtreme = (by) => {
    const list = state.data.extremes ?? [];
    if (!list.length) return null;
    const at = list.indexOf(state.selected);
    if (at < 0) return list[by > 0 ? 0 : list.length - 1];
    return list[(at + by + list.length) % list.length];
  };

  state.showCard = (index) => {
    const token = state.data.tokens[index];
    const element = state.tokens[index];
    if (!token || !element) return;
    state.card.replaceChildren();
    const head = document.createElement("div");
    head.className = "head";
    head.textContent = `${index} · ${token.text}`;
    state.card.append(head);
    state.data.columns.forEach((name, i) => {
      const row = document.createElement("div");
      const label = document.createElement("span");
      const value = document.createElement("b");
      label.textContent = name;
      value.textContent = token.numbers[i];
      row.append(label, value);
      state.card.append(row);
    });
    state.card.hidden = false;
    const box = state.strip.parentElement.getBoundingClientRect();
    const at = element.getBoundingClientRect();
    const left = Math.min(at.left - box.left, box.width - state.card.offsetWidth - 4);
    state.card.style.left = `${Math.max(0, left)}px`;
    state.card.style.top = `${at.bottom - box.top + 6}px`;
  };

  const indexOf = (event) => {
    const element = event.target.closest?.(".token");
    return element ? state.tokens.indexOf(element) : -1;
  };
  state.strip.onclick = (event) => {
    const index = indexOf(event);
    if (index >= 0) {
      state.strip.focus({ preventScroll: true });
      state.choose(index);
    }
  };
  state.strip.onmouseover = (event) => {
    const index = indexOf(event);
    if (index >= 0) state.showCard(index);
  };
  state.strip.onmouseleave = () => {
    state.card.hidden = true;
  };
  state.strip.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tokens = { ArrowRight: 1, ArrowLeft: -1 };
    const moves = {
      ArrowDown: ["sequence", 1], ArrowUp: ["sequence", -1],
      PageDown: ["step", 1], PageUp: ["step", -1], " ": ["play", 1],
    };
    let target = null;
    if (event.key in tokens) target = state.selected + tokens[event.key];
    if (event.key === "Home") target = 0;
    if (event.key === "End") target = state.tokens.length - 1;
    if (event.key === "x" || event.key === "X") target = state.nextExtreme(event.key === "x" ? 1 : -1);
    if (target === null && !(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    if (target !== null) state.choose(target);
    else state.move(...moves[event.key]);
  };
  return state;
}

function rebuild(state) {
  const pieces = [];
  state.tokens = state.data.tokens.map((token, i) => {
    const element = document.createElement("span");
    element.className = `token ${token.kind}`;
    element.id = `token-${i}`;
    element.dataset.pos = String(i);
    element.setAttribute("role", "option");
    element.textContent = token.text;
    pieces.push(element);
    // What an environment said is there to be read: nothing of it can be chosen, and it has no number.
    for (const text of token.reply ?? []) {
      const said = document.createElement("span");
      said.className = "said";
      said.title = "not written by the student: no force, no time";
      said.textContent = text;
      pieces.push(said);
    }
    if (token.newline) {
      const gap = document.createElement("span");
      gap.className = "break";
      pieces.push(gap);
    }
    return element;
  });
  state.strip.replaceChildren(...pieces);
}

function gradient(palette) {
  return `linear-gradient(to right, ${palette.map((colors) => colors[0]).join(", ")})`;
}

function paint(state, theme) {
  const palette = PALETTES[theme][state.data.palette];
  state.data.tokens.forEach((token, i) => {
    const colors = token.color === null ? null : palette[token.color];
    state.tokens[i].style.background = colors ? colors[0] : "transparent";
    state.tokens[i].style.color = colors ? colors[1] : "inherit";
  });
  state.legend.querySelector(".ramp").style.background = gradient(palette);
  const bar = state.data.bar;
  state.strip.classList.toggle("barred", Boolean(bar));
  const below = bar ? PALETTES[theme][bar.palette] : null;
  state.tokens.forEach((element, i) => {
    const color = bar && bar.colors[i] !== null ? below[bar.colors[i]][0] : "transparent";
    element.style.borderBottomColor = color;
  });
  if (bar) state.barLegend.querySelector(".ramp").style.background = gradient(below);
}

function describe(legend, name, ends) {
  legend.querySelector(".name").textContent = name;
  legend.querySelector(".low").textContent = ends[0];
  legend.querySelector(".high").textContent = ends[1];
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  if (!instances.has(parentElement)) instances.set(parentElement, mount(parentElement));
  const state = instances.get(parentElement);
  const theme = themeOf(parentElement.host ?? parentElement);
  const moved = data.place !== state.data?.place;
  state.send = (pick) => setTriggerValue("picked", pick);
  state.data = data;

  const identity = JSON.stringify(data.tokens.map((token) => [token.text, token.kind, token.reply]));
  if (identity !== state.identity) {
    state.identity = identity;
    state.colors = null;
    state.card.hidden = true;
    rebuild(state);
  }
  const bar = data.bar ?? null;
  const barred = bar ? bar.palette + bar.colors.join() : "";
  const colors = theme + data.palette + data.tokens.map((token) => token.color).join() + barred;
  if (colors !== state.colors) {
    state.colors = colors;
    paint(state, theme);
  }
  if (moved || data.selected === state.selected || Date.now() - state.clickedAt > TRUST_MS) {
    state.selected = data.selected;
  }
  state.strip.setAttribute("aria-label", data.label);
  state.strip.dataset.place = data.place;
  describe(state.legend, bar ? `colour: ${data.name}` : "", data.ends);
  state.barLegend.hidden = !bar;
  if (bar) describe(state.barLegend, `bar: ${bar.label}`, bar.ends);
  state.mark();
  return () => {
    clearTimeout(state.timer);
    instances.delete(parentElement);
  };
}
