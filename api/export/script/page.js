// The page, top to bottom. Its data is the JSON beside it.

const words = (name) => name.replaceAll("_", " ");

function facts(pairs) {
  return el(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => known(value) && value !== "")
      .flatMap(([name, value]) => [el("dt", null, name), el("dd", null, readable(value))]),
  );
}

function header({ job, seed, spec, recipe, made_at, opd_version }) {
  const model = (reference) => reference?.model ?? JSON.stringify(reference ?? null);
  const steps = `${job.progress.step ?? 0} of ${job.progress.total ?? spec.schedule?.steps ?? "?"}`;
  const seconds =
    job.started_at && job.finished_at ? (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000 : null;
  return el(
    "header",
    null,
    el("h1", null, readable(job.name), " ", el("span", { class: `badge ${job.status}` }, job.status)),
    job.error ? el("p", { class: "error" }, readable(job.error.message)) : null,
    el(
      "div",
      { class: "recipe" },
      el("h3", null, recipe ? `${job.recipe} · ${recipe.title}` : job.recipe),
      recipe
        ? [
            el("pre", null, recipe.formula),
            note(`Source: ${recipe.citation}`),
            el("p", null, recipe.summary),
            note(`Evidence: ${recipe.evidence}`),
            recipe.differs ? note(`Differs from the paper: ${recipe.differs}`) : null,
          ]
        : note("This recipe is not in the version that wrote this file; the spec below says what was trained."),
    ),
    facts([
      ["student", model(spec.student)],
      ["teacher", model(spec.teacher)],
      ["task", spec.task?.name ?? spec.task?.dataset],
      ["seed", seed],
      ["steps", steps],
      ["started", moment(job.started_at)],
      ["took", duration(seconds)],
      ["attempts", job.attempt],
      ["worker", job.worker],
      ["id", job.id],
      ["written", `${moment(made_at)} by opd ${opd_version}`],
    ]),
  );
}

function accuracies(accuracy) {
  const now = accuracy.after ?? accuracy.latest;
  const gained = known(now) && known(accuracy.before) ? ` (${signed(100 * (now - accuracy.before), 1)} points)` : "";
  return el(
    "div",
    { class: "figures" },
    figure("Student before", percent(accuracy.before), "Exact answers on held-out problems before the first step."),
    figure(
      known(accuracy.after) ? "Student after" : "Student at the newest evaluation",
      percent(now) + gained,
      "On the same problems.",
    ),
    figure("Teacher", percent(accuracy.teacher), "The teacher on the same problems: the ceiling."),
    figure("Gap closed", percent(accuracy.gap_recovered, 0), "(after − before) / (teacher − before)."),
  );
}

function spent(budget) {
  const phases = Object.entries(budget.wall_s_by_phase ?? {}).filter(([, seconds]) => seconds);
  return [
    el(
      "div",
      { class: "figures" },
      figure("Student tokens", compact(budget.student_tokens), "Written by the student for training."),
      figure("Teacher tokens", compact(budget.teacher_tokens), "Read by the teacher to score them."),
      figure("Compute", compact(budget.flops, "FLOP"), "Estimated floating-point operations."),
      figure("Time", duration(budget.wall_s), phases.length ? "All phases." : "Training alone."),
    ),
    phases.length
      ? note(`Seconds by phase: ${phases.map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`).join(", ")}.`)
      : null,
  ];
}

function sentences(title, texts) {
  if (!texts.length) return null;
  return section(
    title,
    el(
      "ul",
      { class: "warnings" },
      texts.map((text) => el("li", null, readable(text))),
    ),
  );
}

// A JSON value as nested lists.
function tree(value) {
  if (!known(value)) return el("span", { class: "none" }, "none");
  if (Array.isArray(value)) {
    if (!value.length) return el("span", { class: "none" }, "none");
    return value.some((one) => typeof one === "object")
      ? el(
          "ol",
          null,
          value.map((one) => el("li", null, tree(one))),
        )
      : readable(value.join(", "));
  }
  if (typeof value === "object") {
    if (!Object.keys(value).length) return el("span", { class: "none" }, "none");
    return el(
      "dl",
      { class: "tree" },
      Object.entries(value).flatMap(([name, entry]) => [
        el("dt", null, readable(words(name))),
        el("dd", null, tree(entry)),
      ]),
    );
  }
  return readable(String(value));
}

function folded(title, ...content) {
  return el("details", null, el("summary", null, title), ...content);
}

function history(events, attempts) {
  const ending = (one) => {
    if (one.reason) return one.reason;
    if (known(one.signal)) return `killed by signal ${one.signal}`;
    return known(one.exit_code) ? `exit code ${one.exit_code}` : "–";
  };
  return [
    folded(
      `Events (${events.length})`,
      table(
        ["time", "level", "attempt", "event", "message"],
        events.map((one) => [
          moment(one.created_at),
          one.level,
          one.attempt ?? "",
          words(one.type),
          readable(one.message),
        ]),
      ),
    ),
    folded(
      `Attempts (${attempts.length})`,
      table(
        ["attempt", "worker", "started", "ended", "end"],
        attempts.map((one) => [
          String(one.attempt),
          readable(one.worker),
          moment(one.started_at),
          moment(one.finished_at),
          readable(ending(one)),
        ]),
      ),
    ),
  ];
}

function draw(data) {
  document.title = `${data.job.name} · opd`;
  document.getElementById("page").replaceChildren(
    ...[
      header(data),
      section("Accuracy", accuracies(data.job.accuracy)),
      section("Budget", ...spent(data.budget)),
      sentences("Warnings", data.job.warnings),
      sentences(
        "Health",
        data.health.map((one) => one.sentence),
      ),
      section("Curves", ...curves(data.metrics, data.job.accuracy)),
      section("Routing", ...routingMaps(data.routing)),
      section("Tokens", ...tokenViewer(data.records)),
      data.checklist
        ? section(
            "Report",
            el(
              "div",
              { class: "checklist" },
              Object.entries(data.checklist).map(([name, entry]) =>
                el("div", null, el("h4", null, words(name)), tree(entry)),
              ),
            ),
          )
        : null,
      section("History", ...history(data.events, data.attempts)),
      section(
        "Details",
        data.self_check ? folded("Self-check before the first step", tree(data.self_check)) : null,
        folded("Versions", tree(data.versions)),
        folded("Resolved spec", el("pre", null, readable(JSON.stringify(data.spec, null, 2)))),
      ),
    ].filter(known),
  );
}

draw(JSON.parse(document.getElementById("data").textContent));
