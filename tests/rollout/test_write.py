"""Rollouts: exact probabilities, honest masks, and independence of the batch they were written in."""

from __future__ import annotations

import pytest
import torch

from opd_core.models import position_ids
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import by_length, completion_hidden, micro_batches, uniform_noise, visit, visit_all, write
from opd_core.rollout.sampling import behaviour_log_probs, sample

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]


def noise_for(prompts, length=12, step=1):
    return uniform_noise(0, step, [(i, 0) for i in range(len(prompts))], length)


def written(student, prompts=PROMPTS, noise=None, **settings):
    settings = {"temperature": 1.0, "top_p": 1.0, **settings}
    return write(student, prompts, max_new_tokens=12, noise=noise_for(prompts) if noise is None else noise, **settings)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.9)])
def test_recorded_probabilities_are_those_of_a_single_unpadded_forward(student, temperature, top_p):
    rollouts = written(student, temperature=temperature, top_p=top_p)
    for row, prompt in enumerate(PROMPTS):
        tokens = rollouts.tokens[row][rollouts.mask[row]]
        ids = torch.tensor([prompt + tokens.tolist()])
        with torch.no_grad():
            hidden = student.trunk(ids, torch.ones_like(ids)).last_hidden_state[0, len(prompt) - 1 : -1]
        expected = behaviour_log_probs(student.head(hidden), temperature=temperature, top_p=top_p)
        found = rollouts.behaviour_logp[row][rollouts.mask[row]]
        torch.testing.assert_close(found, expected.gather(1, tokens[:, None])[:, 0], atol=2e-5, rtol=0)


def test_a_rollout_depends_on_nothing_but_its_own_noise(student):
    """Also after finished rows have left the cache."""
    prompts = PROMPTS * 8
    together, noise = written(student, prompts), noise_for(prompts)
    lengths = together.lengths
    assert int((lengths < lengths.max()).sum()) * 4 >= len(prompts)  # enough ended early for rows to be dropped
    for row in range(len(prompts)):
        alone = written(student, [prompts[row]], noise[row : row + 1])
        assert torch.equal(alone.tokens[0][alone.mask[0]], together.tokens[row][together.mask[row]])


def test_batches_of_rows_are_joined_with_their_padding(student):
    noise = noise_for(PROMPTS)
    whole = written(student)
    parts = write(student, PROMPTS, max_new_tokens=12, noise=noise, batch_rows=2)
    assert torch.equal(parts.mask, whole.mask)
    assert torch.equal(parts.prompts, whole.prompts)
    assert torch.equal(parts.tokens[parts.mask], whole.tokens[whole.mask])


def test_the_mask_keeps_the_first_end_of_sequence_and_nothing_after(student):
    prompts = PROMPTS * 40
    rollouts = written(student, prompts)
    eos = student.eos_ids[0]
    ended = 0
    for tokens, mask, truncated in zip(rollouts.tokens, rollouts.mask, rollouts.truncated, strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert not mask[length:].any()
        assert (tokens[: length - 1] != eos).all()
        assert bool(truncated) == (int(tokens[length - 1]) != eos)
        ended += not truncated
    assert 0 < ended < len(prompts)


def test_end_of_sequence_stays_in_the_mask_when_it_is_the_padding_id(student, monkeypatch):
    before = written(student, PROMPTS * 20)
    monkeypatch.setattr(student, "pad_id", student.eos_ids[0])
    after = written(student, PROMPTS * 20)
    assert torch.equal(before.mask, after.mask)
    assert torch.equal(before.tokens[before.mask], after.tokens[after.mask])


def test_every_end_of_sequence_id_stops(student, monkeypatch):
    free = written(student, PROMPTS * 10)
    common = int(free.tokens[free.mask].mode().values)
    monkeypatch.setattr(student, "eos_ids", (*student.eos_ids, common))
    stopped = written(student, PROMPTS * 10)
    for tokens, mask in zip(stopped.tokens, stopped.mask, strict=True):
        assert not torch.isin(tokens[mask][:-1], torch.tensor(student.eos_ids)).any()
    assert stopped.mask.sum() < free.mask.sum()


def test_greedy_takes_the_most_probable_token(student):
    rollouts = write(student, PROMPTS, max_new_tokens=6, noise=None)
    with torch.no_grad():
        logp = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head).log_probs(1.0)
    assert torch.equal(logp.argmax(-1), rollouts.tokens[rollouts.mask])


def test_hidden_states_predict_their_own_token_and_not_a_neighbour(student):
    """logits[t] predicts token t + 1; a shift by one in either direction must not pass."""
    rollouts = written(student)
    with torch.no_grad():
        logp = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head).log_probs(1.0)
    tokens = rollouts.tokens[rollouts.mask]
    recorded = rollouts.behaviour_logp[rollouts.mask]
    torch.testing.assert_close(logp.gather(1, tokens[:, None])[:, 0], recorded, atol=2e-5, rtol=0)
    for shift in (-1, 1):
        moved = logp.roll(shift, 0).gather(1, tokens[:, None])[:, 0]
        assert float((moved - recorded).abs().max()) > 0.1


def test_selected_and_reordered_rows_give_the_same_hidden_states(student):
    rollouts = written(student)
    whole = completion_hidden(student.trunk, rollouts)
    parts = torch.cat(
        [completion_hidden(student.trunk, rollouts.select(slice(i, i + 1))) for i in range(len(rollouts))]
    )
    torch.testing.assert_close(parts, whole, atol=2e-5, rtol=0)
    order = by_length(rollouts)
    back = rollouts.reorder(order).reorder(order.argsort())
    torch.testing.assert_close(completion_hidden(student.trunk, back), whole, atol=2e-5, rtol=0)
    assert rollouts.reorder(order).lengths.add(rollouts.prompt_mask.sum(1)[order]).diff().min() >= 0


def test_end_states_are_those_after_the_last_token(student):
    """From an unpadded forward over prompt and completion; also where the batch is cut in pieces."""
    rollouts = written(student)
    assert 0 < int(rollouts.truncated.sum()) < len(rollouts)
    with torch.no_grad():
        whole = visit(student.trunk, rollouts)
        pieces = visit_all(student.trunk, [rollouts.select(slice(0, 2)), rollouts.select(slice(2, None))])
    assert torch.equal(whole.rows, completion_hidden(student.trunk, rollouts))
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt + rollouts.tokens[row][rollouts.mask[row]].tolist()])
        with torch.no_grad():
            alone = student.trunk(ids, torch.ones_like(ids)).last_hidden_state[0, -1]
        torch.testing.assert_close(whole.ends[row], alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(pieces.ends, whole.ends, atol=2e-5, rtol=0)
    torch.testing.assert_close(pieces.rows, whole.rows, atol=2e-5, rtol=0)


def test_sequences_lose_padding_and_nothing_else(student):
    rollouts = written(student)
    ids, attention, states = rollouts.sequences()
    assert ids.shape[1] == int((rollouts.prompt_mask.sum(1) + rollouts.lengths).max())
    assert int(states.sum()) == int(rollouts.mask.sum())
    for row, prompt in enumerate(PROMPTS):
        tokens = rollouts.tokens[row][rollouts.mask[row]].tolist()
        assert ids[row][attention[row]].tolist() == prompt + tokens
        assert states[row].nonzero()[:, 0].tolist() == list(range(len(prompt) - 1, len(prompt) + len(tokens) - 1))


@pytest.mark.parametrize("micro_tokens", [1, 25, 60, 200, 10_000])
@pytest.mark.parametrize("worth", [1, 40, 1024])
def test_micro_batches_are_the_batch_within_the_budget(student, micro_tokens, worth, monkeypatch):
    from opd_core.rollout import states as module

    monkeypatch.setattr(module, "WORTH_A_FORWARD", worth)
    rollouts = written(student, PROMPTS * 3)
    rollouts = rollouts.reorder(by_length(rollouts))
    groups = micro_batches(rollouts, micro_tokens)
    pieces = [piece for group in groups for piece in group]
    assert torch.equal(torch.cat([piece.tokens[piece.mask] for piece in pieces]), rollouts.tokens[rollouts.mask])
    assert sum(len(piece) for piece in pieces) == len(rollouts)
    for group in groups:
        padded = sum(piece.sequences()[0].numel() for piece in group)
        assert padded <= micro_tokens or (len(group) == 1 and len(group[0]) == 1)


def test_sampling_follows_the_distribution():
    logp = torch.tensor([0.5, 0.0, 0.3, 0.2]).log()
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    counts = sample(logp.expand(10_000, 4), uniform).bincount(minlength=4)
    assert counts.tolist() == [5000, 0, 3000, 2000]
    edges = sample(logp.expand(2, 4), torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64))
    assert edges.tolist() == [0, 3]
    impossible_first = torch.tensor([[0.0, 0.4, 0.6]]).log()
    assert sample(impossible_first, torch.tensor([0.0])).tolist() == [1]


@pytest.mark.parametrize("vocabulary", [5, 511, 512, 513, 1999])
def test_blocks_of_tokens_change_nothing(vocabulary):
    """Against one cumulative sum over the whole row; also where whole blocks are impossible."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3.0 * torch.randn(7, vocabulary, generator=generator)
    logits[:, vocabulary // 2 : vocabulary // 2 + 600] = -torch.inf
    logits[3, : vocabulary // 3] = -torch.inf
    logits[3, 0] = 0.0
    logits[5, :700], logits[5, -1] = -torch.inf, 0.0
    logp = logits.log_softmax(-1)
    uniform = torch.rand(400, 7, generator=generator, dtype=torch.float64)
    uniform[0], uniform[1] = 0.0, 1.0 - 2**-53
    cumulative = logp.double().exp().cumsum(-1)
    for numbers in uniform:
        expected = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)[:, 0]
        last = (logp > -torch.inf).long().cumsum(-1).argmax(-1)
        found = sample(logp, numbers)
        assert torch.equal(found, torch.minimum(expected, last))
        assert bool((logp.gather(1, found[:, None]) > -torch.inf).all())


def test_temperature_divides_the_logits():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    expected = torch.tensor([[0.5, 1.0, 2.0]]).log_softmax(-1)
    torch.testing.assert_close(behaviour_log_probs(logits, temperature=2.0, top_p=1.0), expected)


def test_top_p_keeps_the_smallest_nucleus_and_renormalises():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = behaviour_log_probs(logits, temperature=1.0, top_p=0.6).exp()
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    torch.testing.assert_close(behaviour_log_probs(logits, temperature=1.0, top_p=0.01).exp()[0, 0], torch.tensor(1.0))


def test_noise_is_a_function_of_its_four_counters():
    base = uniform_noise(0, 1, [(3, 0), (4, 1)], 8)
    assert torch.equal(uniform_noise(0, 1, [(4, 1)], 8)[0], base[1])
    assert torch.equal(uniform_noise(0, 1, [(3, 0)], 20)[0, :8], base[0])
    for other in (uniform_noise(1, 1, [(3, 0)], 8), uniform_noise(0, 2, [(3, 0)], 8), uniform_noise(0, 1, [(3, 1)], 8)):
        assert not torch.equal(other[0], base[0])
    assert 0.0 <= float(base.min()) <= float(base.max()) < 1.0


def test_position_ids_come_from_the_attention_mask():
    assert position_ids(torch.tensor([[0, 0, 1, 1]]))[0, 2:].tolist() == [0, 1]


def test_no_prompts_is_an_error(student):
    with pytest.raises(ValueError, match="no prompts"):
        write(student, [], max_new_tokens=4, noise=None)
