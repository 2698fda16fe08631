// Where probability moved: rows are suppressed tokens, columns their destinations, one table per quantity.

function heatmapTable(title, matrix, routing, limit, kind, say) {
  const names = (tokens) => {
    const texts = tokens.map((token) => visible(token.text));
    return texts.map((text, i) => (texts.filter((one) => one === text).length > 1 ? `${text} #${tokens[i].id}` : text));
  };
  const [rows, columns] = [names(routing.rows), names(routing.columns)];
  const head = el(
    "tr",
    null,
    el("td"),
    columns.map((name) => el("th", { scope: "col", title: name }, el("span", null, name))),
  );
  const body = rows.map((row, i) =>
    el(
      "tr",
      null,
      el("th", { scope: "row", title: row }, row),
      columns.map((column, j) => {
        const cell = el("td", { "data-place": `${i}/${j}` });
        tint(cell, matrix[i][j], limit, kind);
        return cell;
      }),
    ),
  );
  const drawn = el("table", { class: "heatmap" }, el("thead", null, head), el("tbody", null, body));
  drawn.addEventListener("pointerover", (event) => {
    const place = event.target.dataset.place;
    if (!place) return;
    const [i, j] = place.split("/").map(Number);
    say(`${title}: ${rows[i]} → ${columns[j]}: ${Number(matrix[i][j].toPrecision(4))}`);
  });
  const ends =
    kind === "signed" ? `−${limit.toPrecision(2)} … +${limit.toPrecision(2)}` : `0 … ${limit.toPrecision(2)}`;
  return el(
    "div",
    { class: "map" },
    el("h4", null, title, " ", el("span", null, ends)),
    el("div", { class: "scroll" }, drawn),
  );
}

function routingMaps(routing) {
  if (!routing) return [note("No state was probed, so nothing is known of where probability moved.")];
  const say = (text) => {
    readout.textContent = text;
  };
  const readout = el("p", { class: "readout", "aria-live": "polite" }, "Point at a cell to read it.");
  const change = scaleLimit([...routing.predicted, ...routing.realised].flat(), 1e-9);
  const maps = [
    heatmapTable("Predicted by the plan", routing.predicted, routing, change, "signed", say),
    heatmapTable("Realised by the network", routing.realised, routing, change, "signed", say),
  ];
  if (routing.routed) {
    const sent = routing.routed.flat();
    const kind = sent.some((value) => value < 0) ? "signed" : "positive";
    maps.unshift(heatmapTable("Sent by the plan, nats", routing.routed, routing, scaleLimit(sent, 1e-9), kind, say));
  }
  const balance = routing.balance;
  return [
    note(
      `Mean change of probability over ${routing.states} probed states of steps ${routing.from_step} to `,
      `${routing.to_step} `,
      "at which the teacher liked the sampled token less than the student did. Red = lost, blue = gained. ",
      "Parameters are shared between states: what was realised differs from what was meant.",
    ),
    balance
      ? el(
          "div",
          { class: "figures" },
          figure(
            "Suppressed tokens",
            balance.suppressed.toLocaleString("en"),
            "Recorded tokens with a negative log-ratio.",
          ),
          figure("Released", balance.released.toFixed(3), "Mean size of their negative coefficients, in nats."),
          figure("Routed", balance.routed.toFixed(3), "Mean weight that is sent to named destinations, in nats."),
          figure("Send nothing", percent(balance.empty_rate), "Share of them without any destination."),
        )
      : null,
    readout,
    el("div", { class: "maps" }, maps),
  ];
}
