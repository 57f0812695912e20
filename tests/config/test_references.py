"""What is wrong although each field is right, and where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError, InvalidConfigError, OversizedConfigError, Problem
from config.loader import (
    DEMO_NODE_FILE,
    MAX_FILE_BYTES,
    load_tenants,
    parse_checked_tenant,
    parse_tenant_config,
)
from config.references import MAX_WARNINGS, check_references
from config.tenant import MAX_INSTRUCTIONS_CHARACTERS, TenantConfig
from config.variables import VARIABLES, VariableError, fill_in, filled_in

SHOP = """\
tenant_id: corner-shop
business_name: Corner Shop
business_kind: shop
numbers: [+15550123, +15550124]
time_zone: Europe/Berlin
greeting: Corner Shop, good day.
address: 1 Main Street
hours:
  monday: [{opens: 09:00, closes: 12:00}]
human: {name: Ada}
"""


def parse(text: str) -> tuple[TenantConfig, tuple[Problem, ...]]:
    return parse_checked_tenant(text.encode(), "shop.yaml")


def error(text: str) -> Problem:
    with pytest.raises(InvalidConfigError) as caught:
        parse(text)
    (problem,) = caught.value.problems
    return problem


def warning(text: str) -> Problem:
    _, (problem,) = parse(text)
    return problem


def line_of(problem: Problem) -> int | None:
    assert problem.place.file == "shop.yaml"
    return problem.place.line


# -- variables -----------------------------------------------------------------------------------------

FULL = (
    SHOP.replace(
        "Corner Shop, good day.", '"{business_name}, the {business_kind} at {address}. Braces: {{x}}."'
    ).replace("human: {name: Ada}", "human: {name: Ada, number: +15550199}")
    + """\
directions: Behind the church.
instructions: Our number is {number}; {human_name} has {human_number}. {directions}
faq:
  - {question: Where?, answer: "{address}. {directions}"}
emergency: {keywords: [fire], instructions: "Call {emergency_number}.", number: +15550198}
"""
)


def test_variables_stand_for_the_configurations_own_values() -> None:
    config, warnings = parse(FULL)
    assert warnings == ()
    said = filled_in(config)
    assert said.greeting == "Corner Shop, the shop at 1 Main Street. Braces: {x}."
    assert said.instructions == "Our number is +15550123; Ada has +15550199. Behind the church."
    assert said.faq[0].answer == "1 Main Street. Behind the church."
    assert said.emergency is not None
    assert said.emergency.instructions == "Call +15550198."
    # What is kept is what was written.
    assert "{business_name}" in config.greeting


def test_a_configuration_without_variables_stays_as_it_is() -> None:
    config, _ = parse(SHOP)
    assert filled_in(config) == config


@pytest.mark.parametrize(
    ("old", "new", "field", "line", "words"),
    [
        ("Corner Shop, good day.", "'{busines_name}'", "greeting", 6, "'{busines_name}' is no variable; allowed: {address}, "),
        ("Corner Shop, good day.", "'{}'", "greeting", 6, "'{}' is no variable"),
        ("Corner Shop, good day.", "'{number!r}'", "greeting", 6, "'{number!r}' is no variable"),
        ("Corner Shop, good day.", "'{number:>1000000}'", "greeting", 6, "is no variable"),
        ("Corner Shop, good day.", "'{number.__class__}'", "greeting", 6, "is no variable"),
        ("Corner Shop, good day.", "'{number[0]}'", "greeting", 6, "is no variable"),
        ("Corner Shop, good day.", "'{ number }'", "greeting", 6, "is no variable"),
        ("Corner Shop, good day.", "'{caller_name}'", "greeting", 6, "is no variable"),
        ("Corner Shop, good day.", "'a { b'", "greeting", 6, "a brace without its other one"),
        ("Corner Shop, good day.", "'a } b'", "greeting", 6, "a brace without its other one"),
        ("Corner Shop, good day.", "'{directions}'", "greeting", 6, "{directions} has no value here: directions is not set"),
        ("Corner Shop, good day.", "'{human_number}'", "greeting", 6, "human.number is not set"),
        ("{name: Ada}\n", "{name: Ada}\ninstructions: |\n  One.\n  Call {emergency_number}.\n", "instructions", 11, "emergency.number is not set"),
        ("{name: Ada}\n", "{name: Ada}\nfaq:\n  - question: Why?\n    answer: '{why}'\n", "faq[0].answer", 13, "'{why}' is no variable"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_filled_in_is_named_with_its_line(
    old: str, new: str, field: str, line: int, words: str
) -> None:
    problem = error(SHOP.replace(old, new))
    assert (problem.field, line_of(problem)) == (field, line)
    assert words in problem.text
    assert len(problem.text) < 400


def test_variables_do_not_multiply_a_text() -> None:
    text = SHOP.replace("1 Main Street", "x" * 2_000) + f"instructions: '{'{address}' * 2_000}'\n"
    problem = error(text)
    assert problem.field == "instructions"
    assert "longer than 20000 characters once its variables are filled in" in problem.text


@given(st.text(st.sampled_from("{}ab_:!.[] number"), max_size=40))
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    config, _ = parse(FULL)
    try:
        filled = fill_in(text, config, 100)
    except VariableError as error:
        assert str(error)
    else:
        assert len(filled) <= 100
        escaped = filled.replace("{", "{{").replace("}", "}}")
        assert fill_in(escaped, config, 200) == filled


def test_every_variable_has_a_value_where_everything_is_set() -> None:
    config, _ = parse(FULL)
    for name in VARIABLES:
        assert fill_in(f"{{{name}}}", config, 2_000)


# -- references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addition", "field", "line"),
    [
        ("human: {name: Ada, number: +15550124}", "human.number", 10),
        ("emergency:\n  keywords: [fire]\n  instructions: Out!\n  number: +15550123", "emergency.number", 14),
    ],
)
def test_a_person_who_is_the_receptionist_is_refused(addition: str, field: str, line: int) -> None:
    problem = error(
        SHOP.replace("human: {name: Ada}\n", "" if addition.startswith("human") else "human: {name: Ada}\n")
        + addition
    )
    assert problem.field == field
    assert line_of(problem) == line
    assert "own numbers" in problem.text


@pytest.mark.parametrize(
    ("addition", "field", "line", "words"),
    [
        ("emergency:\n  keywords: [fire]\n  instructions: I will transfer you at once.", "emergency.instructions", 13, "'transfer' promises"),
        ("emergency:\n  keywords: [fire]\n  instructions: Please call this number.", "emergency.instructions", 13, "emergency.number is not set"),
        ("services:\n  - {name: Soup, description: Hot.}\n  - {name: soup, description: Cold.}", "services[1].name", 13, "services[0].name already"),
        ("services:\n  - {name: Soup, description: Hot., keywords: [eat]}\n  - {name: Pie, description: Hot., keywords: [pie, Eat]}", "services[1].keywords[1]", 13, "services[0].keywords[0]"),
        ("faq:\n  - {question: Why?, answer: a}\n  - {question: why?, answer: b}", "faq[1].question", 13, "faq[0].question"),
        ("providers:\n  llm:\n    - {kind: openai, model: x, api_key_env: A}\n    - {kind: openai, model: x, api_key_env: A}", "providers.llm[1]", 14, "earlier in the chain"),
        ("providers: {use_platform: false, stt: [{kind: openai, model: x}]}", "providers.stt[0]", 11, "never asked"),
        ("providers: {use_platform: false, stt: [{kind: deepgram}]}", "providers.stt[0]", 11, "never asked"),
    ],
)  # fmt: skip
def test_what_may_not_be_meant_is_a_warning(addition: str, field: str, line: int, words: str) -> None:
    problem = warning(SHOP + addition)
    assert (problem.field, line_of(problem)) == (field, line)
    assert words in problem.text


def test_hours_that_overlap_are_a_warning_and_hours_that_touch_are_none() -> None:
    hours = "[{opens: 11:00, closes: 13:00}, {opens: 09:00, closes: 12:00}]"
    problem = warning(SHOP.replace("[{opens: 09:00, closes: 12:00}]", hours))
    assert problem.field == "hours.monday[0]"
    assert "11:00 to 13:00 overlaps 09:00 to 12:00" in problem.text
    touching = "[{opens: 12:00, closes: 13:00}, {opens: 09:00, closes: 12:00}]"
    assert parse(SHOP.replace("[{opens: 09:00, closes: 12:00}]", touching))[1] == ()


def test_an_emergency_with_its_number_may_promise_it() -> None:
    assert (
        parse(SHOP + "emergency: {keywords: [fire], instructions: I transfer you., number: +15550198}")[1]
        == ()
    )
    assert parse(SHOP + "emergency: {keywords: [fire], instructions: Leave the house.}")[1] == ()


def test_warnings_are_bounded() -> None:
    services = "".join(f"  - {{name: soup, description: Number {number}.}}\n" for number in range(100))
    assert len(parse(f"{SHOP}services:\n{services}")[1]) == MAX_WARNINGS


def test_a_configuration_that_is_no_file_has_fields_without_lines() -> None:
    config, _ = parse(SHOP)
    config = config.model_copy(update={"greeting": "{nobody}"})
    (problem,) = check_references(config).errors
    assert str(problem).startswith("configuration: greeting: '{nobody}' is no variable")


def test_the_demo_tenants_have_nothing_to_find() -> None:
    for config in load_tenants(
        (DEMO_NODE_FILE.parent / "bright_smile_dental.yaml", DEMO_NODE_FILE.parent / "rapid_plumbing.yaml")
    ):
        findings = check_references(config)
        assert findings.errors == ()
        assert findings.warnings == ()


# -- sizes ---------------------------------------------------------------------------------------------


def test_a_prompt_of_ten_megabytes_is_refused_before_it_is_read() -> None:
    with pytest.raises(OversizedConfigError, match=f"shop.yaml: larger than {MAX_FILE_BYTES} bytes"):
        parse(SHOP + f"instructions: {'x' * 10_000_000}\n")


def test_a_prompt_that_is_too_long_is_named_and_not_repeated() -> None:
    problem = error(SHOP + f"instructions: {'x' * (MAX_INSTRUCTIONS_CHARACTERS + 1)}\n")
    assert (problem.field, line_of(problem)) == ("instructions", 11)
    assert "at most 20000 characters" in problem.text
    assert len(problem.text) < 200


def test_a_number_given_twice_is_named_with_its_line() -> None:
    problem = error(SHOP.replace("+15550124", "+15550123"))
    assert (problem.field, line_of(problem)) == ("numbers", 4)
    assert "+15550123 stands there twice" in problem.text


@given(st.integers(1, 4), st.text("{}&*!: ab\n-", max_size=60))
def test_references_never_fail_on_what_the_schema_lets_pass(at: int, text: str) -> None:
    for field in ("instructions", "directions"):
        try:
            parse_tenant_config(f"{SHOP}{field}: {text * at}\n".encode(), "shop.yaml")
        except ConfigError as error:
            assert "shop.yaml" in str(error)
