// Learning curves as inline SVG: one chart per subject, every axis from the first to the last step.

const share = { share: true };
const CHARTS = {
  Learning: [
    ["Accuracy", "% of held-out problems", { accuracy: "student" }, { share: true, whole: true, reference: true }],
    ["Loss", "nats per token", { loss: "loss" }],
    ["KL to the teacher", "nats per token", { kl: "per-token KL" }],
    ["Completion length", "tokens", { length_mean: "rollouts", eval_length: "evaluation" }],
    ["Entropy", "nats", { entropy_student: "student", entropy_teacher: "teacher" }],
    ["Log-ratio of sampled tokens", "nats, teacher − student", { log_ratio_mean: "mean" }],
    ["Cut off at the token limit", "% of rollouts", { truncated: "rollouts" }, share],
  ],
  "What the objective does": [
    [
      "Critic's quality",
      "1 = explains every return",
      { critic_explained_variance: "explained variance", critic_length_correlation: "correlation with length left" },
    ],
    ["Critic's mean value", "nats", { critic_value_mean: "value" }],
    ["Critic's loss", "in target deviations", { critic_loss: "loss" }],
    [
      "Routing",
      "% of tokens; of those without a destination",
      { route_triggered: "suppressed", route_empty: "no destination" },
      share,
    ],
    ["Tokens that a gate lets speak", "%", {}, { share: true, family: ["gate_", "_share"] }],
    ["Mean gate", "0 silenced, 1 as it is", {}, { family: ["gate_", "_weight"] }],
    ["Update by part", "mean |coefficient|, nats", {}, { family: ["size_", ""] }],
    ["Importance weights cut off", "% of tokens", { importance_truncated: "beyond the cap" }, share],
    ["Mass outside the support", "%", { support_student_tail: "student's", support_teacher_tail: "teacher's" }, share],
  ],
  "Optimizer and machine": [
    ["Gradient norm", "before clipping", { grad_norm: "student", critic_grad_norm: "critic" }],
    ["Throughput", "tokens per second", { tokens_per_s: "tokens/s" }],
    [
      "Time by phase",
      "seconds per step",
      { time_rollout_s: "rollout", time_teacher_s: "teacher", time_update_s: "update", time_telemetry_s: "telemetry" },
    ],
    ["Memory", "GiB", { memory_gib: "process", gpu_memory_gib: "GPU, peak" }],
  ],
};
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [380, 190, 46, 12, 12, 24];

function linesOf(names, options, series) {
  let found = names;
  if (options.family) {
    const [prefix, suffix] = options.family;
    const keys = Object.keys(series)
      .filter((key) => key.startsWith(prefix) && key.endsWith(suffix))
      .sort();
    found = Object.fromEntries(
      keys.map((key) => [key, key.slice(prefix.length, key.length - suffix.length).replaceAll("_", " ")]),
    );
  }
  return Object.entries(found)
    .filter(([key]) => (series[key] ?? []).some(known))
    .map(([key, name]) => ({ name, values: series[key].map((v) => (known(v) && options.share ? 100 * v : v)) }));
}

// Round numbers that cover low..high, about four of them.
function ticks(low, high) {
  const raw = (high - low || Math.abs(high) || 1) / 4;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * magnitude >= raw) * magnitude;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) found.push(i * step);
  return found;
}

const short = (value) => (Math.abs(value) >= 1e4 ? compact(value) : String(Number(value.toPrecision(3))));

function chart([title, unit, names, options = {}], metrics, accuracy) {
  const lines = linesOf(names, options, metrics.series);
  if (!lines.length) return null;
  const references = options.reference
    ? [
        ["teacher", accuracy.teacher],
        ["before", accuracy.before],
      ]
        .filter(([, value]) => known(value))
        .map(([name, value]) => [name, 100 * value])
    : [];
  const all = [...lines.flatMap((line) => line.values.filter(known)), ...references.map(([, value]) => value)];
  let [low, high] = options.whole ? [0, 100] : [Math.min(...all), Math.max(...all)];
  if (options.share) low = 0;
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const steps = metrics.steps;
  const last = Math.max(1, steps[steps.length - 1]);
  const x = (step) => LEFT + (step / last) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const label = (px, py, text, anchor) => svg("text", { x: px, y: py, "text-anchor": anchor }, text);

  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  for (const value of ticks(low, high)) {
    drawing.append(
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      label(LEFT - 6, y(value) + 4, short(value), "end"),
    );
  }
  for (const step of ticks(0, last)) drawing.append(label(x(step), HEIGHT - 6, short(step), "middle"));
  for (const [name, value] of references) {
    const above = name === "teacher" ? 13 : -5;
    drawing.append(
      svg("line", { class: "reference", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      label(
        name === "teacher" ? LEFT + 4 : WIDTH - RIGHT,
        y(value) + above,
        name,
        name === "teacher" ? "start" : "end",
      ),
    );
  }
  lines.forEach((line, i) => {
    const points = steps.map((step, k) => [step, line.values[k]]).filter(([, value]) => known(value));
    const path = points
      .map(([step, value], k) => `${k ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`)
      .join("");
    drawing.append(svg("path", { class: `line c${i % 7}`, d: path }));
    if (points.length <= 30)
      for (const [step, value] of points)
        drawing.append(svg("circle", { class: `dot c${i % 7}`, cx: x(step), cy: y(value), r: 2.5 }));
  });

  const ends = (values) => `${short(values[0])} to ${short(values.at(-1))}`;
  const numbers = lines.map((line) => line.values.filter(known));
  drawing.setAttribute(
    "aria-label",
    `${title} (${unit}): ${lines.map((line, i) => `${line.name} from ${ends(numbers[i])}`).join("; ")}`,
  );
  const readout = el("figcaption", null, "\u00a0");
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  drawing.append(cursor);
  const measured = steps.map((_, k) => k).filter((k) => lines.some((line) => known(line.values[k])));
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const wanted = ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * last;
    const near = measured.reduce((best, k) =>
      Math.abs(steps[k] - wanted) < Math.abs(steps[best] - wanted) ? k : best,
    );
    cursor.setAttribute("x1", x(steps[near]));
    cursor.setAttribute("x2", x(steps[near]));
    cursor.setAttribute("visibility", "visible");
    const values = lines
      .filter((line) => known(line.values[near]))
      .map((line) => `${line.name} ${short(line.values[near])}${options.share ? " %" : ""}`);
    readout.textContent = `step ${steps[near]}: ${values.join(", ")}`;
  });
  drawing.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "\u00a0";
  });
  const legend =
    lines.length > 1
      ? el(
          "div",
          { class: "legend" },
          lines.map((line, i) => el("span", { class: `key c${i % 7}` }, line.name)),
        )
      : null;
  return el("figure", { class: "chart" }, el("h4", null, title, " ", el("span", null, unit)), legend, drawing, readout);
}

function curves(metrics, accuracy) {
  if (!metrics.steps.length) return [note("This run recorded no metrics.")];
  return Object.entries(CHARTS).flatMap(([group, charts]) => {
    const drawn = charts.map((one) => chart(one, metrics, accuracy)).filter(known);
    return drawn.length ? [el("h3", null, group), el("div", { class: "charts" }, drawn)] : [];
  });
}
