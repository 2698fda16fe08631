"""Access tokens in the database: only hashes, scopes in order, an end by time or by hand."""

import pytest
from sqlalchemy import text

from opd_core.runs.tokens import RESERVED, SCOPES, Tokens, allows, token_hash
from opd_core.spec import UserError


@pytest.fixture
def tokens(store):
    return Tokens(store.engine)


def test_a_token_is_known_by_its_hash_and_the_database_does_not_hold_it(tokens, store):
    secret = tokens.create("ci", "submit")
    assert len(secret) >= 43  # 256 bits in base 64
    assert tokens.create("other", "submit") != secret
    holder = tokens.holder(secret)
    assert (holder.name, holder.scope, holder.revoked_at) == ("ci", "submit", None)
    with store.engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM tokens")).all()
    assert token_hash(secret) in str(rows)
    assert secret not in str(rows)
    assert secret not in repr(tokens.all())
    for wrong in ("", "x", secret[:-1], secret + "x", token_hash(secret), "\udcff"):
        assert tokens.holder(wrong) is None


def test_a_token_ends_by_time_or_by_hand(tokens):
    assert not tokens.any()
    assert tokens.holder(tokens.create("short", "read", expires_s=-1.0)) is None
    assert not tokens.any()
    good = tokens.create("long", "read", expires_s=3600.0)
    assert tokens.holder(good).expires_at > tokens.holder(good).created_at
    assert tokens.any()
    tokens.revoke("long")
    assert tokens.holder(good) is None
    assert not tokens.any()
    with pytest.raises(UserError, match="'long'"):
        tokens.revoke("long")
    assert [token.name for token in tokens.all()] == ["short", "long"]


def test_a_name_is_used_again_only_when_its_token_is_no_longer_good(tokens):
    first = tokens.create("ci", "read")
    with pytest.raises(UserError, match="there is a token 'ci'"):
        tokens.create("ci", "admin")
    tokens.revoke("ci")
    second = tokens.create("ci", "admin")
    assert tokens.holder(first) is None
    assert tokens.holder(second).scope == "admin"
    assert len(tokens.all()) == 1


def test_the_last_use_is_noted(tokens):
    secret = tokens.create("ci", "read")
    assert tokens.all()[0].last_used_at is None
    tokens.holder(secret)
    used = tokens.all()[0].last_used_at
    assert used is not None
    tokens.holder(secret)
    assert tokens.all()[0].last_used_at == used  # once a minute: reading must not write


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "<b>", "a\n", *RESERVED])
def test_what_is_no_name(tokens, name):
    with pytest.raises(UserError) as refused:
        tokens.create(name, "read")
    assert refused.value.param == "name"


def test_what_is_no_scope(tokens):
    with pytest.raises(UserError, match="one of read, submit, admin"):
        tokens.create("x", "root")


def test_each_scope_implies_those_before_it():
    assert SCOPES == ("read", "submit", "admin")
    for held, scope in enumerate(SCOPES):
        assert [allows(scope, needed) for needed in SCOPES] == [needed <= held for needed in range(3)]
