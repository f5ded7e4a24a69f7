"""Specs of other versions: a newer minor one is read without what is new, a newer major refused."""

from __future__ import annotations

import pytest

from core.errors import InputError
from core.spec import SCHEMA, ModelSpec
from encoders import zoo

SPEC = zoo.wavlm_base()
MAJOR, MINOR = SCHEMA


def _file(schema: object = None, **more: object) -> dict:
    return {**SPEC.to_json(), **({} if schema is None else {"schema": schema}), **more}


@pytest.mark.parametrize("schema", [None, f"{MAJOR}.{MINOR}", f"{MAJOR}.{MINOR + 1}"])
def test_specs_of_this_major_version_are_read(schema: object) -> None:
    assert ModelSpec.from_json(_file(schema)) == SPEC


def test_what_a_newer_minor_version_adds_is_passed_over() -> None:
    newer = _file(f"{MAJOR}.{MINOR + 1}", colour="red")
    newer["layers"] = [{**layer, "colour": 1} for layer in newer["layers"]]
    newer["front_end"] = {**newer["front_end"], "colour": [1]}
    newer["positions"] = {**newer["positions"], "colour": None}
    assert ModelSpec.from_json(newer) == SPEC


def test_in_this_version_an_unknown_field_is_an_error() -> None:
    with pytest.raises(InputError, match="colour"):
        ModelSpec.from_json(_file(f"{MAJOR}.{MINOR}", colour="red"))


def test_a_newer_major_version_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"later version.*update") as caught:
        ModelSpec.from_json(_file(f"{MAJOR + 1}.0"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", ["", "1", "one", "1.0.0", "-1.0", 1.0, [1, 0], "9" * 30 + ".0"])
def test_a_schema_that_is_none_is_refused(schema: object) -> None:
    with pytest.raises(InputError, match="schema"):
        ModelSpec.from_json(_file(schema))


def test_the_schema_is_no_part_of_what_identifies_a_model() -> None:
    assert "schema" not in SPEC.canonical()
