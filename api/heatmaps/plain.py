"""As softmax alone would send it: what a suppressed token is to lose, spread over the others in proportion to what the
student already gives them.

At a state with probabilities pi where the plan predicts the change d of the sampled token y, token v would get
-d pi_v / (1 - pi_y). Only the favourites of both models have their probabilities recorded (``telemetry.top_k`` of
each): what goes to tokens beyond them is not shown.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from api.columns import entries

COLUMNS = (
    "logp_student",
    "student_top_ids",
    "student_top_logp",
    "teacher_top_ids",
    "teacher_top_student_logp",
    "probe_ids",
    "probe_predicted",
)


def plain(probed: pa.Table) -> pa.Table:
    """(token, target, plain): one row per probed state and token that gets something, or loses it, there."""
    written = probed["token_ids"].combine_chunks()
    states, targets, changes = entries(probed, "probe_ids", "probe_predicted")
    own = pc.equal(targets, written.take(states))
    states, change = states.filter(own), changes.filter(own)
    others = _favourites(probed).filter(pc.is_in(pc.field("state"), states))
    at = pc.index_in(others["state"], states)
    pi = pc.exp(probed["logp_student"].combine_chunks().take(others["state"]))
    share = pc.divide(pc.exp(others["logp"]), pc.subtract(1.0, pi))
    gained = pc.multiply(pc.negate(change.take(at)), share)
    moved = pa.table({"token": written.take(others["state"]), "target": others["target"], "plain": gained})
    lost = pa.table({"token": written.take(states), "target": written.take(states), "plain": change})
    return pa.concat_tables([moved, lost])


def _favourites(probed: pa.Table) -> pa.Table:
    """(state, target, logp): the student's log-probability of both models' favourites, without the sampled token."""
    kinds = (("student_top_ids", "student_top_logp"), ("teacher_top_ids", "teacher_top_student_logp"))
    names = ("state", "target", "logp")
    both = pa.concat_tables([pa.table(dict(zip(names, entries(probed, *kind), strict=True))) for kind in kinds])
    once = both.group_by(["state", "target"], use_threads=False).aggregate([("logp", "max")])
    others = pc.not_equal(once["target"], probed["token_ids"].combine_chunks().take(once["state"]))
    return once.rename_columns({"logp_max": "logp"}).filter(others).combine_chunks()
