"""What the student proposes: the tokens that a method compares because the student likes them.

A teacher in the process gives whole distributions. One that is asked for tokens by their ids has to be told them first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_core.objective.candidates import wanted_k
from opd_core.objective.feedback import row_chunks
from opd_core.objective.targets import Target
from opd_core.spec import MethodSpec
from opd_core.spec.combinations import students_favourites


@torch.no_grad()
def propose(method: MethodSpec, student: Target, special_ids: Sequence[int]) -> Tensor:
    """[N, K] token ids, in which a row may repeat itself; K = 0 where a method looks at no favourites of the student.

    They are those that ``Feedback.candidates`` will find in the same ``student``: with the special tokens among them
    and without, as supports may want the former and gates the latter. Where special tokens are excluded from a
    comparison the teacher's mass on them has to be known, too.
    """
    k = students_favourites(method)
    special = torch.tensor(special_ids, dtype=torch.long)
    parts = []
    for rows in row_chunks(student) if k else ():
        logp = student[rows].log_probs(method.objective.temperature)
        most = min(wanted_k(method), logp.shape[1])  # cut from the same ranking: equals may be ranked as it pleases
        found = [logp.topk(most).indices[:, :k]]
        if special_ids:
            special = special.to(logp.device)
            found.append(logp.index_fill(1, special, -torch.inf).topk(most).indices[:, :k])
            if method.support.special_tokens == "exclude":
                found.append(special.expand(len(logp), -1))
        parts.append(torch.cat(found, 1))
    return torch.cat(parts) if parts else torch.zeros((len(student), 0), dtype=torch.long)
