"""Generated requests against every operation of the OpenAPI document, one by one and in sequences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from hypothesis.stateful import Bundle, initialize
from schemathesis import GenerationMode
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.generation.stateful.state_machine import StepInput
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.world import SPEC, World


def no_failure(_: Any, response: Any, case: Any) -> None:
    """Nothing fails; only ``/readyz`` says 503, about the broker that is not there."""
    assert response.status_code < 500 or (response.status_code, case.path) == (503, "/readyz"), response.text


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_PATIENCE_S = 120.0  # a busy machine is no failure
# Mostly the token that may do everything, or nothing would be reached.
_TOKENS = ("admin",) * 12 + ("submit",) * 4 + ("read", "nobody")


def _schema(world: World) -> Any:
    # Streams of jobs that are not over do not end; tests/api/test_stream.py reads them.
    return schemathesis.openapi.from_asgi("/openapi.json", world.app).exclude(path_regex="/stream$")


def _settings(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **more,
    )


def _authorize(world: World, luck: random.Random, case: Any) -> None:
    """One of our tokens instead of the generated one, which is nobody's."""
    kept = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
    case.headers = {**kept, "Authorization": f"Bearer {world.tokens[luck.choice(_TOKENS)]}"}


def stateless(
    world: World, seed: int, examples: int, mode: GenerationMode, wanted: Callable[[Any], bool] = lambda _: True
) -> None:
    """``examples`` requests to every operation; half of them name a job that exists. Raises at the first bad answer."""
    luck = random.Random(seed)
    found = [operation.ok() for operation in _schema(world).get_all_operations()]
    operations = sorted(filter(wanted, found), key=lambda one: one.method == "delete")  # what it removes is asked first
    for operation in operations:
        check = _check(world, luck, world.make_job(ended=luck.random() < 0.5))
        asked = hypothesis.seed(luck.getrandbits(32))(hypothesis.given(case=operation.as_strategy(mode))(check))
        try:
            _settings(examples)(asked)()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, operation.label  # it takes nothing that could be wrong


def _check(world: World, luck: random.Random, known: dict[str, Any]) -> Callable[[Any], None]:
    def check(case: Any) -> None:
        if luck.random() < 0.6:
            case.path_parameters = {key: known.get(key, made) for key, made in (case.path_parameters or {}).items()}
        _authorize(world, luck, case)
        case.call_and_validate(checks=CHECKS, timeout=_PATIENCE_S)

    return check


def stateful(world: World, seed: int, sequences: int, steps: int) -> None:
    """Sequences of operations that use what earlier ones have made. Raises at the first bad answer."""
    luck = random.Random(seed)
    schema = _schema(world)
    done = 0

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        @initialize(target=Bundle("catch_all"))
        def submit(self) -> Any:
            """Every sequence has a job from the start: nearly all generated specs are refused."""
            nonlocal done
            done += 1
            case = schema["/v1/jobs"]["POST"].Case(body=SPEC, media_type="application/json")
            self.recorder.record_case(case=case)
            return self._step(StepInput.initial(case))

        def before_call(self, case: Any) -> None:
            if case.body is SPEC:
                case.headers = {"Authorization": f"Bearer {world.tokens['admin']}"}
                return
            if case.operation.label == "POST /v1/jobs" and luck.random() < 0.7:
                case.body, case.query = SPEC, {}  # by others as well, some of whom may not
            _authorize(world, luck, case)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"timeout": _PATIENCE_S}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **options: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    while done < sequences:
        seeded = hypothesis.seed(luck.getrandbits(32))(Machine)
        try:
            run_state_machine_as_test(seeded, settings=_settings(sequences - done, stateful_step_count=steps))
        except FlakyStrategyDefinition:
            # The service remembers earlier sequences, so the same draws may lead elsewhere. That is no bad answer.
            continue
