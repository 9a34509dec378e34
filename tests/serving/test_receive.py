"""Names with brackets become a tree, whatever their order, and nothing else gets in."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutoscope.serving.protocol import ApiError, CreateVideo, spoken
from mutoscope.serving.receive import Received, _place, data_url


def tree(*fields: tuple[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in fields:
        _place(result, name, value)
    return result


def refusal_of(call: Callable[[], object]) -> ApiError | None:
    """How a call was refused, None when it was not; any other exception is a failure of the test."""
    try:
        call()
    except ApiError as error:
        return error
    return None


def test_brackets() -> None:
    assert tree(("a", "1"), ("b[c]", "2"), ("b[d][e]", "3")) == {"a": "1", "b": {"c": "2", "d": {"e": "3"}}}
    assert tree(("x[][id]", "1"), ("x[][id]", "2")) == {"x": [{"id": "1"}, {"id": "2"}]}
    assert tree(("x[][id]", "1"), ("x[][name]", "n")) == {"x": [{"id": "1", "name": "n"}]}
    assert tree(("x[]", "1"), ("x[]", "2")) == {"x": ["1", "2"]}
    assert tree(("video", '{"id": "v"}')) == {"video": {"id": "v"}}
    assert tree(("prompt", '{"id": "v"}')) == {"prompt": '{"id": "v"}'}


@pytest.mark.parametrize("name", ["a[", "a]", "[a]", "", "a[b", "a[b]c", "a[[b]]", "a[b][c][d][e][f]"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ApiError) as caught:
        tree((name, "x"))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        (("a", "1"), ("a", "2")),
        (("a", "1"), ("a[b]", "2")),
        (("a[]", "1"), ("a[b]", "2")),
        (("a[b]", "1"), ("a[]", "2")),
    ],
)
def test_a_field_twice(fields: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ApiError, match="came twice"):
        tree(*fields)


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=5)), max_size=6))
def test_any_form_is_read_or_refused(fields: list[tuple[str, str]]) -> None:
    refusal = refusal_of(lambda: Received(tree(*fields), strict=False).parse(CreateVideo))
    assert refusal is None or refusal.status == 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(CreateVideo.model_fields)), VALUES))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    refusal = refusal_of(lambda: Received(fields, strict=True).parse(CreateVideo))
    assert refusal is None or refusal.message.endswith(".")


@given(st.binary(max_size=60))
def test_data_urls(data: bytes) -> None:
    assert data_url("data:image/png;base64," + base64.b64encode(data).decode(), "p") == data


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.0, "4"), (2.125, "2.125"), (10.0, "10"), (0.5, "0.5"), (1 / 3, "0.333")]
)
def test_seconds_are_spoken_short(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
