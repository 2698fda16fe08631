from opd_core.runs.ids import is_id, new_id


def test_ids_are_unique_sort_by_time_and_match_their_pattern():
    ids = [new_id("job") for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert all(is_id(value) for value in ids)
    # Ids of the same quarter microsecond may swap; over the list the order is that of creation.
    assert ids[::100] == sorted(ids[::100])


def test_anything_else_is_no_id():
    good = new_id("job")
    bad = ["", "job", "job_", good + "a", good[:-1], good + "\n", good.upper(), "../etc/passwd", good.replace("_", "/")]
    assert not any(is_id(value) for value in bad)
    assert not is_id(good[:-1] + "u")  # not in Crockford's alphabet
