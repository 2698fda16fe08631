"""Which dialect a teacher server speaks, and what it can do: found by asking, never by its name or version."""

from __future__ import annotations

from collections.abc import Sequence

from opd_core.servers import Server, Unsuitable
from opd_core.teachers.dialect import Dialect, Read
from opd_core.teachers.sglang import SGLang
from opd_core.teachers.vllm import VLLM

SLIGHT = -7.0  # log of a probability of a thousandth: below it two requests to a server in bfloat16 differ
_SAME = 0.1  # nats: two answers of one server about one token
_COMPARED = 8  # candidates of each token


def recognise(server: Server, ids: Sequence[int]) -> Dialect:
    """Asks about ``ids``. Raises ServerUnreachable, or Unsuitable for a server that speaks none."""
    vllm, sglang = VLLM(server), SGLang(server)
    if vllm.answers(ids):
        return vllm
    try:
        sglang.read(ids, 1)
    except Unsuitable as error:
        raise server.unsuitable(
            "it gives no log-probabilities of a prompt's tokens: its completions know no prompt_logprobs (vLLM), and "
            f"as for SGLang {error.reason}"
        ) from error
    return sglang


def why_no_candidates(dialect: Dialect, ids: Sequence[int], read: Read) -> str | None:
    """Why the server cannot be asked for given candidates; None if it can.

    It is asked about favourites and tokens of which it has just spoken by itself (``read``): what it says of them as
    given candidates has to be the same. That is false where the field is ignored, where logits are answered for
    log-probabilities, and where the rows of candidates stand a position off.
    """
    asked = [list(entry)[:_COMPARED] for entry in read.tokens[1:]]
    try:
        given = dialect.score(ids, 1, asked).tokens
    except Unsuitable as error:
        return error.reason
    differences = [
        abs(logp - entry[i])
        for said, entry in zip(given, read.tokens[1:], strict=True)
        for i, logp in said.items()
        if entry[i] > SLIGHT
    ]
    off = sum(differences) / max(1, len(differences))
    if off > _SAME:
        return (
            f"what it says of given candidates is {off:.2g} nats from what it says of the same tokens by itself: it "
            "may stand a position off"
        )
    return None
