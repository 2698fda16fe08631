"""SGLang: /generate with ``return_logprob``, ``top_logprobs_num`` and ``token_ids_logprob``.

Every list of ``meta_info`` has one entry for each input token from ``logprob_start_len`` on, the first of them without
a value, and an entry is [log-probability, id, text]. ``token_ids_logprob`` is one list for all tokens of a request, so
candidates that differ from token to token are asked in runs of tokens: a run's union is short, and what is answered and
not wanted stays in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from opd_core.servers import Server
from opd_core.teachers.dialect import Given, Read

_GENERATE = "/generate"
_LARGEST_UNION = 512  # ids that one request asks for at each of its tokens


class SGLang:
    """See Dialect."""

    name = "SGLang"
    needs = "an SGLang that answers token_ids_logprob"

    def __init__(self, server: Server) -> None:
        self._server = server

    def read(self, ids: Sequence[int], top_k: int) -> Read:
        """See Dialect."""
        told = self._ask(ids, 0, top_logprobs_num=top_k)
        own, top = told.get("input_token_logprobs"), self._rows(told, "input_top_logprobs", len(ids))
        if not isinstance(own, list) or [entry[1] for entry in own] != list(ids):
            raise self._server.unsuitable("its input_token_logprobs are not those of the tokens that it was sent")
        tokens = [
            {**self._by_id(favourites), **self._by_id([entry])} for favourites, entry in zip(top, own[1:], strict=True)
        ]
        written = told.get("output_top_logprobs") or [[]]
        return Read([{}, *tokens], self._by_id(written[0] or []))

    def score(self, ids: Sequence[int], start: int, candidates: Sequence[Sequence[int]]) -> Given:
        """See Dialect."""
        found: list[dict[int, float]] = [{} for _ in candidates]
        read = 0
        for run, union in _runs(candidates):
            # The token before the run's first is where the lists begin, without a value.
            begin, end = start + run.start, start + run.stop
            told = self._ask(ids[:end], begin - 1, token_ids_logprob=union)
            read += end
            for at, entries in zip(run, self._rows(told, "input_token_ids_logprobs", len(run) + 1), strict=True):
                known = self._by_id(entries)
                if missing := [i for i in candidates[at] if i not in known]:
                    raise self._server.unsuitable(
                        f"it was asked for {len(candidates[at])} candidates of a token and leaves out {len(missing)} "
                        "(input_token_ids_logprobs)"
                    )
                found[at] = {i: known[i] for i in candidates[at]}
        return Given(found, read)

    def _ask(self, ids: Sequence[int], first: int, **wanted: Any) -> dict[str, Any]:
        answer = self._server.post(
            _GENERATE,
            {
                "input_ids": list(ids),
                "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
                "return_logprob": True,
                "logprob_start_len": first,
                **wanted,
            },
        )
        told = answer.get("meta_info")
        if not isinstance(told, dict):
            raise self._server.unsuitable(f"{_GENERATE} answers without meta_info")
        return told

    def _rows(self, told: dict[str, Any], name: str, length: int) -> list[list[Any]]:
        """The entries of a list of ``meta_info`` but its first, which has no value."""
        rows = told.get(name)
        if not isinstance(rows, list) or len(rows) != length or not all(isinstance(row, list) for row in rows[1:]):
            said = f"{len(rows)} entries" if isinstance(rows, list) else "nothing"
            raise self._server.unsuitable(f"it was asked for {name} of {length} tokens and answers {said}")
        return rows[1:]

    def _by_id(self, entries: Sequence[Sequence[Any]]) -> dict[int, float]:
        found = {}
        for logprob, token, *_ in entries:
            if not isinstance(logprob, int | float):
                raise self._server.unsuitable(f"it gives no number for token id {token} ({_GENERATE})")
            found[int(token)] = float(logprob)
        return found


def _runs(candidates: Sequence[Sequence[int]]) -> Iterator[tuple[range, list[int]]]:
    """Consecutive rows with the sorted union of their ids: not above the limit, unless a row is by itself."""
    begin, union = 0, set[int]()
    for at, row in enumerate(candidates):
        if union and len(union | set(row)) > _LARGEST_UNION:
            yield range(begin, at), sorted(union)
            begin, union = at, set()
        union |= set(row)
    if union:
        yield range(begin, len(candidates)), sorted(union)
