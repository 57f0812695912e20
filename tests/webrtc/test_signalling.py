"""Bodies of signalling requests: what Pipecat's clients send is taken, what is wrong is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.webrtc.signalling import (
    MAX_CANDIDATES,
    MAX_SDP_CHARACTERS,
    Candidates,
    Offer,
    StartRequest,
    WebRefusal,
    parse,
)


def test_what_the_published_client_sends_is_understood() -> None:
    offer = parse(
        Offer, b'{"sdp": "v=0", "type": "offer", "pc_id": null, "restart_pc": false, "requestData": {"a": 1}}'
    )
    assert (offer.sdp, offer.pc_id, offer.restart_pc) == ("v=0", None, False)
    candidates = parse(
        Candidates,
        b'{"pc_id": "x", "candidates": [{"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host",'
        b' "sdp_mid": "0", "sdp_mline_index": 0}, {"candidate": "", "sdp_mid": null, "sdp_mline_index": null}]}',
    )
    assert [bool(each.candidate) for each in candidates.candidates] == [True, False]
    start = parse(
        StartRequest,
        b'{"createDailyRoom": false, "enableDefaultIceServers": true, "body": {"number": "+1555"}}',
    )
    assert start.number == "+1555"
    assert parse(StartRequest, b'{"number": "+1555", "transport": "webrtc"}').number == "+1555"


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        (Offer, b"", 400, "not JSON"),
        (Offer, b"\xff\xfe", 400, "not JSON"),
        (Offer, b"[]", 400, "not a JSON object"),
        (Offer, b"{}", 422, "sdp: Field required"),
        (Offer, b'{"sdp": 5, "type": "offer"}', 422, "sdp: Input should be a valid string"),
        (Offer, b'{"sdp": "", "type": "offer"}', 422, "sdp: String should have at least 1 character"),
        (Offer, b'{"sdp": "v=0", "type": "answer"}', 422, "type: Input should be 'offer'"),
        (
            Offer,
            json.dumps({"sdp": "v" * (MAX_SDP_CHARACTERS + 1), "type": "offer"}).encode(),
            422,
            f"sdp: String should have at most {MAX_SDP_CHARACTERS} characters",
        ),
        (Offer, b'{"sdp": "v=0", "type": "offer", "pc_id": 7}', 422, "pc_id: Input should be a valid string"),
        (Candidates, b'{"pc_id": "x"}', 422, "candidates: Field required"),
        (Candidates, b'{"pc_id": "x", "candidates": [{}]}', 422, "candidates.0.candidate: Field required"),
        (
            Candidates,
            json.dumps({"pc_id": "x", "candidates": [{"candidate": ""}] * (MAX_CANDIDATES + 1)}).encode(),
            422,
            f"candidates: Tuple should have at most {MAX_CANDIDATES} items",
        ),
        (StartRequest, b"{}", 422, "number or site_key, one of both"),
        (StartRequest, b'{"number": "+1", "site_key": "s"}', 422, "number or site_key, one of both"),
        (StartRequest, b'{"number": "+1", "transport": "daily"}', 422, "transport: Input should be 'webrtc'"),
    ],
)
def test_what_is_wrong_is_named(
    model: type[Offer | Candidates | StartRequest], body: bytes, status: int, words: str
) -> None:
    with pytest.raises(WebRefusal) as refusal:
        parse(model, body)
    assert refusal.value.status == status
    assert words in refusal.value.text
    assert len(refusal.value.text) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["sdp", "type", "pc_id", "candidates", "candidate", "number", "body", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from([Offer, Candidates, StartRequest]),
    st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()),
)
def test_any_body_is_taken_or_refused(model: type[Offer | Candidates | StartRequest], body: bytes) -> None:
    try:
        parse(model, body)
    except WebRefusal as refusal:
        assert refusal.status in {400, 422}
        assert refusal.text
