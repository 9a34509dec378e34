"""Lines of a batch: read or refused with their number, whatever a file holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutoscope.serving.bundles import LINES, read_lines

GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "x"}}


def file_of(*lines: object) -> bytes:
    return "\n".join(json.dumps(line) for line in lines).encode()


def test_good_lines_come_in_order_and_empty_ones_do_not_count() -> None:
    content = b"\n" + file_of(GOOD, {**GOOD, "custom_id": "b"}) + b"\n\n"
    lines, faults = read_lines(content, "/v1/videos")
    assert [name for name, _ in lines] == ["a", "b"]
    assert json.loads(lines[0][1]) == {"prompt": "x"}
    assert faults == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({**GOOD, "custom_id": ""}, "invalid_custom_id"),
        ({**GOOD, "custom_id": 7}, "invalid_custom_id"),
        ({**GOOD, "custom_id": "\ud800"}, "invalid_custom_id"),
        (GOOD, "duplicate_custom_id"),
        ({**GOOD, "custom_id": "b", "method": "GET"}, "invalid_method"),
        ({**GOOD, "custom_id": "b", "url": "/v1/videos/edits"}, "mismatched_url"),
        ({**GOOD, "custom_id": "b", "url": "http://127.0.0.1/v1/videos"}, "mismatched_url"),
        ({**GOOD, "custom_id": "b", "body": "x"}, "invalid_request"),
        ([], "invalid_request"),
    ],
)
def test_a_fault_names_its_line(line: object, code: str) -> None:
    _, faults = read_lines(file_of(GOOD, line), "/v1/videos")
    assert [(fault.code, fault.line) for fault in faults] == [(code, 2)]


def test_files_that_are_no_batch() -> None:
    assert [fault.code for fault in read_lines(b" \n\n", "/v1/videos")[1]] == ["empty_file"]
    many = file_of(*({**GOOD, "custom_id": str(number)} for number in range(LINES + 1)))
    assert [fault.code for fault in read_lines(many, "/v1/videos")[1]] == ["too_many_requests"]
    assert len(read_lines(b"x\n" * 500, "/v1/videos")[1]) == 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
    max_leaves=6,
)


@given(st.binary(max_size=80) | st.lists(JSON, max_size=3).map(lambda lines: file_of(*lines)))
def test_any_file_is_a_batch_or_has_a_fault(content: bytes) -> None:
    lines, faults = read_lines(content, "/v1/videos")
    assert lines or faults
