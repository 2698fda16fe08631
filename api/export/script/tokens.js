// The recorded sequences of a few steps, token by token: a coloured strip, and everything about the selected token.

const LOUD = "how loudly the token speaks in the update: 0 silenced, 1 as it is";
const FIELDS = [
  ["log_ratio", "log-ratio r", "log p(teacher) − log π(student) of the sampled token, in nats", "signed"],
  ["return", "return", "log-ratios of this token and all later ones, summed up, in nats", "signed"],
  ["value", "value V", "the return that the critic expected at this state, in nats", "signed"],
  ["advantage", "advantage", "the credit that the recipe gives, after baseline or critic", "signed"],
  ["gate", "all gates", LOUD, "positive"],
  [
    "coefficient",
    "coefficient",
    "weight of log π(token) in the update: above zero makes the token more likely here",
    "signed",
  ],
  ["kl", "KL", "divergence of the two next-token distributions, in nats", "positive"],
  ["entropy_student", "student entropy", "uncertainty of the student here, in nats", "positive"],
  ["entropy_teacher", "teacher entropy", "uncertainty of the teacher here, in nats", "positive"],
].map(([key, label, meaning, kind]) => ({ key, label, meaning, kind, read: (token) => token[key] }));

// Fields that these tokens have: single gates and parts of the coefficient have the names that the method gives them.
function fieldsOf(tokens) {
  const named = (table, label, meaning, kind) =>
    [...new Set(tokens.flatMap((token) => Object.keys(token[table] ?? {})))].map((name) => ({
      key: `${table}:${name}`,
      label: `${label} ${name.replaceAll("_", " ")}`,
      meaning,
      kind,
      read: (token) => token[table]?.[name],
    }));
  const all = [
    ...FIELDS,
    ...named("gates", "gate", `this gate alone: ${LOUD}`, "positive"),
    ...named("components", "part", "this part of the coefficient alone", "signed"),
  ];
  // Numbers that say nothing: credit on the direct route, which has none, and gates that let everything through.
  const idle = [
    ...(tokens.some((token) => token.coefficient) ? [] : ["advantage", "coefficient"]),
    ...(tokens.some((token) => known(token.gate) && token.gate !== 1) ? [] : ["gate"]),
  ];
  return all.filter((field) => !idle.includes(field.key) && tokens.some((token) => known(field.read(token))));
}

function favourites(title, entries, token, texts, isStudent) {
  const rows = entries.map(([id, own, other]) => [id, isStudent ? own : other, isStudent ? other : own]);
  if (!rows.some(([id]) => id === token.id)) rows.push([token.id, token.logp_student, token.logp_teacher]);
  return el(
    "div",
    null,
    el("h4", null, title),
    table(
      ["token", "student p", "teacher p", ""],
      rows.map(([id, student, teacher]) => [
        el("code", null, visible(texts[id] ?? `<${id}>`)),
        percent(probability(student)),
        percent(probability(teacher)),
        id === token.id ? "◀ sampled" : "",
      ]),
    ),
  );
}

function moved(title, headings, entries, texts, show) {
  if (!entries || !entries.length) return null;
  const rows = [...entries].sort((a, b) => Math.abs(b.at(-1) ?? 0) - Math.abs(a.at(-1) ?? 0));
  return el(
    "div",
    null,
    el("h4", null, title),
    table(
      headings,
      rows.map(([id, ...values]) => [el("code", null, visible(texts[id] ?? `<${id}>`)), ...values.map(show)]),
    ),
  );
}

function shown(field, token) {
  const value = field.read(token);
  if (field.kind === "signed") return signed(value);
  return known(value) ? value.toFixed(3) : "–";
}

function detail(token, place, texts, fields) {
  const numbers = fields.map((field) => figure(field.label, shown(field, token), field.meaning));
  return [
    el("h3", null, `Token ${place}`),
    el(
      "p",
      null,
      el("code", null, visible(texts[token.id] ?? `<${token.id}>`)),
      ` (id ${token.id}): the student gave it ${percent(probability(token.logp_student))}, `,
      `the teacher ${percent(probability(token.logp_teacher))}.`,
    ),
    el("div", { class: "figures" }, numbers),
    el(
      "div",
      { class: "columns" },
      favourites("The student's favourites", token.student_top, token, texts, true),
      favourites("The teacher's favourites", token.teacher_top, token, texts, false),
      moved("Planned route", ["destination", "sent, nats"], token.route, texts, (value) => signed(value)),
      moved("Change of probability", ["token", "predicted", "realised"], token.probe, texts, (value) =>
        signed(value, 5),
      ),
    ),
  ];
}

function choice(label, options, selected, onPick) {
  const box = el(
    "select",
    { name: label.toLowerCase(), "aria-label": label },
    options.map(([value, text]) => el("option", { value, selected: value === selected }, text)),
  );
  box.addEventListener("change", () => onPick(box.value));
  return el("label", null, label, box);
}

const outcome = (sequence) => (sequence.correct === null ? "unscored" : sequence.correct ? "✓ right" : "✗ wrong");

function tokenViewer(records) {
  const steps = records.steps.filter((one) => one.sequences.length);
  const left = records.left_out.length ? note("Not in this file: ", records.left_out.join("; "), ".") : null;
  if (!steps.length) return [note("This run recorded no tokens."), left];
  const host = el("div", { class: "viewer" });
  const state = { step: steps.at(-1), sequence: steps.at(-1).sequences[0], color: "log_ratio", token: 0 };

  function draw() {
    const { step, sequence } = state;
    const tokens = step.sequences.flatMap((one) => one.tokens);
    const fields = fieldsOf(tokens);
    const field = fields.find((one) => one.key === state.color) ?? fields[0];
    const atLeast = field.key.startsWith("gate") ? 1 : 1e-6;
    const limit = scaleLimit(tokens.map(field.read), atLeast);
    const under = el("div", { class: "detail" });
    const strip = el("div", {
      class: "strip",
      role: "listbox",
      tabindex: "0",
      "aria-label": `Completion, coloured by ${field.label}`,
    });
    const pieces = sequence.tokens.map((token, i) => {
      const text = records.texts[token.id] ?? `<${token.id}>`;
      const piece = el(
        "span",
        {
          class: "token",
          role: "option",
          id: `token-${i}`,
          title: `${i} · ${visible(text)}: ${field.label} ${shown(field, token)}`,
        },
        visible(text),
      );
      tint(piece, field.read(token), limit, field.kind);
      piece.addEventListener("click", () => select(i));
      const replies = (token.reply ?? []).map((id) => records.texts[id] ?? `<${id}>`);
      const said = replies.map((one) =>
        el("span", { class: "said", title: "not written by the student: no force, no time" }, visible(one)),
      );
      const last = replies.at(-1) ?? text;
      strip.append(piece, ...said, ...(last.includes("\n") ? [el("span", { class: "break" })] : []));
      return piece;
    });

    function select(place) {
      state.token = Math.max(0, Math.min(pieces.length - 1, place));
      pieces.forEach((piece, i) => {
        piece.classList.toggle("selected", i === state.token);
        piece.setAttribute("aria-selected", String(i === state.token));
      });
      if (!pieces.length) return;
      strip.setAttribute("aria-activedescendant", `token-${state.token}`);
      under.replaceChildren(...detail(sequence.tokens[state.token], state.token, records.texts, fields));
    }
    strip.addEventListener("keydown", (event) => {
      const moves = {
        ArrowRight: state.token + 1,
        ArrowDown: state.token + 1,
        ArrowLeft: state.token - 1,
        ArrowUp: state.token - 1,
        Home: 0,
        End: pieces.length - 1,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      select(moves[event.key]);
      pieces[state.token].scrollIntoView({ block: "nearest" });
    });

    const pick = (changes) => {
      Object.assign(state, changes);
      draw();
    };
    const sides = field.kind === "signed" ? "red = below zero, blue = above" : "stronger = more";
    host.replaceChildren(
      el(
        "div",
        { class: "choices" },
        choice(
          "Step",
          steps.map((one) => [
            String(one.step),
            `step ${one.step} · ${one.sequences.length} of ${one.recorded} sequences`,
          ]),
          String(step.step),
          (value) => {
            const chosen = steps.find((one) => String(one.step) === value);
            pick({ step: chosen, sequence: chosen.sequences[0], token: 0 });
          },
        ),
        choice(
          "Sequence",
          step.sequences.map((one, i) => [
            String(i),
            `#${one.n} · problem ${one.problem} · ${outcome(one)} · ${one.length} tokens` +
              (one.truncated ? ", cut off" : ""),
          ]),
          String(step.sequences.indexOf(sequence)),
          (value) => pick({ sequence: step.sequences[Number(value)], token: 0 }),
        ),
        choice(
          "Colour",
          fields.map((one) => [one.key, one.label]),
          field.key,
          (value) => pick({ color: value }),
        ),
      ),
      el(
        "div",
        { class: "columns texts" },
        el(
          "div",
          null,
          el("h4", null, "Prompt"),
          el("pre", null, readable(sequence.prompt)),
          known(sequence.answer)
            ? el("p", { class: "note" }, "Expected answer: ", el("code", null, readable(sequence.answer)))
            : null,
        ),
        el("div", null, el("h4", null, "Completion as plain text"), el("pre", null, readable(sequence.completion))),
      ),
      strip,
      note(
        `${field.label}: ${field.meaning}; ${sides}, strongest at ${limit.toPrecision(3)} and beyond; `,
        "one scale for all sequences of this step. Arrow keys move the selection.",
      ),
      under,
    );
    select(state.token);
  }

  draw();
  return [host, left];
}
