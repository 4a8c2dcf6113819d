"""Deferred scans: a quick series at once, the other one later, from a queue that outlives the server."""

import socket

import pytest

from gadgets.hosts.library import find
from gadgets.hosts.queue import told
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import Spool, entries
from gadgets.messages import Close, ConfigText, Header
from tests.gadgets import toys
from tests.gadgets.clients import attached, served, texts
from tests.gadgets.deferring import RETRIEVE, comments, done, expected, header, scan, sent
from tests.gadgets.spools import only
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

# Quick now, slow later


def test_a_deferred_scan_is_answered_at_once_and_says_how_to_get_the_other_series(rules):
    received = sent(rules, scan())
    assert comments(received) == 4 * [
        "a toy; quick series by chain quick.xml; the better one by configuration comes later: it is given when the "
        "scan is sent again, or by the chain retrieve.xml with the measurement ID M1"
    ]
    entry = only(rules.spool)
    assert (entry.state, entry.record().measurement, entry.record().deferred) == ("queued", "M1", True)


@pytest.mark.parametrize(
    "ask",
    [scan(), [RETRIEVE, Header(header()), Close()], [RETRIEVE, *scan()[1:]]],
    ids=["the scan", "asked", "asked with the scan"],
)
def test_the_other_series_comes_when_the_scan_is_sent_again_or_asked_for(rules, ask):
    sent(rules, scan())
    done(rules)
    assert blob(sent(rules, ask)) == expected(5)
    assert only(rules.spool).state == "done"


def test_a_scan_that_lacks_something_is_given_when_it_is_sent_again(rules):
    (rules.chains / "quick.xml").write_text(chain(stage("lacking")))
    *_, text = sent(rules, scan())
    assert "lacking: a slice is missing; the scan is kept as" in text
    *_, text = sent(rules, scan())
    assert "lacking: a slice is missing" in text
    done(rules)
    assert blob(sent(rules, scan())) == expected(5)


def test_a_scan_that_is_sent_again_before_its_turn_is_queued_once(rules):
    first = sent(rules, scan())
    assert blob(sent(rules, scan())) == blob(first)
    assert only(rules.spool).state == "queued"
    (text,) = texts(sent(rules, [RETRIEVE, Header(header()), Close()]))
    assert "the series of the scan 'M1' is not there yet: it is number 1 of 1 in the queue" in text


@pytest.mark.parametrize(
    "other",
    [scan(measurement="M2"), scan(stage("noted", scale=6)), scan(stage("noted", scale=5), "M1", toys.lines(2))],
    ids=["header", "chain", "one line more"],
)
def test_another_scan_is_never_taken_for_the_first(rules, other):
    sent(rules, scan())
    done(rules)
    assert "quick series" in comments(sent(rules, other))[0]
    assert [entry.state for entry in entries(rules.spool.folder)] == ["done", "queued"]


def test_the_newest_scan_of_a_measurement_is_given_and_says_that_there_are_others(rules):
    sent(rules, scan())
    sent(rules, scan(stage("noted", scale=6)))
    done(rules)
    received = sent(rules, [RETRIEVE, Header(header()), Close()])
    assert comments(received) == 4 * ["a toy; 2 scans have this measurement ID; this is the newest"]


def test_measurements_that_begin_alike_are_not_taken_for_each_other(rules):
    """IDs without end are not kept: such a scan is given when it is sent again."""
    ids = ["M" * 5000 + end for end in "ab"]
    sent(rules, scan(measurement=ids[0]))
    done(rules)
    for measurement in (*ids, "M" * 200, "", " "):
        (text,) = texts(sent(rules, [RETRIEVE, Header(header(measurement)), Close()]))
        assert "no deferred scan" in text or "no measurement ID" in text
    assert blob(sent(rules, scan(measurement=ids[0]))) == expected(5)


def test_a_terminal_is_given_no_orders_by_a_measurement_id(rules):
    sent(rules, scan(measurement="M\N{CONTROL SEQUENCE INTRODUCER}2J"))
    assert next(told(rules.spool.folder)).endswith("measurement M\ufffd2J")


def test_a_measurement_can_be_named_in_the_chain(rules):
    sent(rules, scan())
    done(rules)
    asked = ConfigText(chain(stage("retrieve", measurement="M1")).encode())
    assert blob(sent(rules, [asked, Header(toys.HEADER), Close()])) == expected(5)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (header("M7"), "no deferred scan with the measurement ID 'M7'"),
        (toys.HEADER, "the header has no measurement ID"),
    ],
)
def test_what_is_not_there_is_one_sentence(rules, head, sentence):
    (text,) = texts(sent(rules, [RETRIEVE, Header(head), Close()]))
    assert sentence in text


def test_a_host_without_a_spool_has_no_deferred_scans(rules):
    (text,) = texts(sent(Rules(rules.chains), [RETRIEVE, Header(header()), Close()]))
    assert "only a host with a spool" in text


def test_without_a_spool_nothing_is_deferred(rules, caplog):
    received = sent(Rules(rules.chains), scan())
    assert blob(received) == expected(5)
    assert "a scan can only be deferred where it is kept in a spool" in caplog.text


@pytest.mark.parametrize(("defer", "quick"), [("no", False), ("true", False), ("nonesuch", False)])
def test_values_of_defer(rules, defer, quick):
    """The chain cgsense is not in this folder."""
    messages = scan()
    messages[0] = ConfigText(messages[0].text.replace(b'value="quick"', f'value="{defer}"'.encode()))
    received = sent(rules, messages)
    if defer == "no":
        assert blob(received) == expected(5)
    else:
        name = "cgsense" if defer == "true" else defer
        assert f'There is no chain "{name}"' in texts(received)[0]


@pytest.mark.parametrize(("weights", "is_deferred"), [(True, True), (False, False)])
def test_a_server_that_defers_defers_the_chains_with_trained_weights(rules, weights, is_deferred):
    properties = {"weights": "varnet_brain"} if weights else {"name": "zerofilled"}
    stages = (stage("noise"), stage("sort"), stage("coils"), stage("network", **properties), stage("images"))
    text = chain(*stages).encode()
    given = Rules(rules.chains, spool=rules.spool, defer="quick")
    sent(given, [ConfigText(text), Header(header()), Close()])
    assert only(rules.spool).record().deferred == is_deferred


def test_images_that_are_sent_in_get_their_labels_at_once(rules):
    """No quick chain makes labels, and images that pass carry no comment of a better series."""
    text, _ = find("tissue")
    given = Rules(rules.chains, spool=rules.spool, defer="quick")
    sent(given, [ConfigText(text), Header(header()), Close()])
    assert not only(rules.spool).record().deferred


def test_the_quick_chain_itself_is_not_deferred(rules):
    sent(rules, scan(stage("noted", scale=1)))
    assert (only(rules.spool).state, only(rules.spool).record().deferred) == ("done", False)


def test_a_quick_series_that_fails_does_not_lose_the_scan(rules):
    (rules.chains / "quick.xml").write_text(chain(stage("toy", fail="bug")))
    (text,) = texts(sent(rules, scan()))
    assert "toys break" in text
    done(rules)
    assert blob(sent(rules, [RETRIEVE, Header(header()), Close()])) == expected(5)


def test_a_scan_that_fails_later_says_why(rules):
    sent(rules, scan(stage("noted", fail="true")))
    done(rules)
    (text,) = texts(sent(rules, [RETRIEVE, Header(header()), Close()]))
    assert "the series of the scan 'M1' failed: Gadget noted failed: ZeroDivisionError: toys break" in text


def test_a_scan_that_was_cut_off_is_not_queued(rules):
    with served(rules) as client:
        client.socket.sendall(blob(scan())[:-40])
        client.socket.shutdown(socket.SHUT_WR)
        client.receive()
    assert only(rules.spool).state == "failed"


def test_a_client_that_sends_all_and_takes_nothing_loses_no_scan(rules):
    """More images than a socket holds; it vanishes when it has sent CLOSE."""
    big = [toys.lines(200, coils=16, samples=512)] * 3
    with served(rules) as client:
        client.send(*scan(stage("noted", scale=5), "M1", *big))
        client.socket.shutdown(socket.SHUT_RD)
        client.socket.close()
    assert only(rules.spool).state == "queued"
    done(rules)
    assert len(comments(sent(rules, [RETRIEVE, Header(header()), Close()]))) > 3


def test_gadgetrons_external_process_defers_too(rules):
    own = f'<property name="spool" value="{rules.spool.folder}"/>'
    quick = f'<property name="defer" value="{rules.chains / "quick.xml"}"/>'
    first = ConfigText(configuration(own, quick, stage("noted", scale=5)).encode())
    with attached() as (status, process):
        process.send(first, *scan()[1:])
        assert "quick series" in comments(process.receive())[0]
    done(rules)
    asked = ConfigText(configuration(own, stage("retrieve")).encode())
    for messages in ([first, *scan()[1:]], [asked, Header(header()), Close()]):
        with attached() as (_, process):
            process.send(*messages)
            assert blob(for_clients(process.receive())) == expected(5)
    assert status == []


def test_a_spool_that_gets_full_is_told_since_the_other_series_will_not_come(rules, monkeypatch):
    monkeypatch.setattr("gadgets.hosts.keeping.STEP", 4096)
    with served(Rules(rules.chains, spool=Spool(rules.spool.folder, size=100_000))) as client:
        client.send(*scan()[:-1])
        assert "quick series" in comments([client.peer.read()])[0]
        client.send(toys.lines(200, coils=16, samples=512), Close())
        (text,) = texts(client.receive())
    assert "the series by configuration does not follow" in text
    assert list(rules.spool.folder.iterdir()) == []
