"""Who had a name first keeps it, and a node that was started again gets it back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from flower_ist.grids.names import NameBook
from flower_ist.wire._flwr import NodeInfo


def node(node_id: int, registered: float = 0.0, heard: float = 0.0, name: str = "") -> NodeInfo:
    """A node as the SuperLink tells it: registered and last heard of at these seconds."""
    return NodeInfo(
        node_id=node_id,
        registered_at=datetime.fromtimestamp(registered, UTC).isoformat(),
        online_until=heard + 2 * 30.0,
        heartbeat_interval=30.0,
        name=name,
    )


def assign(book: NameBook, *pairs: tuple[NodeInfo, str | None]) -> dict[int, str]:
    told = {info.node_id: name for info, name in pairs}
    return {n: name for n, (name, _) in book.assign([info for info, _ in pairs], told).items()}


def test_who_tells_a_name_first_has_it():
    book = NameBook()
    assert assign(book, (node(7, 1, 5), "a"), (node(3, 2, 5), "b")) == {7: "a", 3: "b"}
    third = node(5, 3, 9)
    found = assign(book, (node(7, 1, 9), "a"), (node(3, 2, 9), "b"), (third, "a"))
    assert found == {7: "a", 3: "b", 5: "a-5"}


def test_of_two_at_once_the_one_that_was_registered_first():
    """Not the one of the smaller id, nor of the name that sorts first."""
    assert assign(NameBook(), (node(3, 2), "a"), (node(7, 1), "a")) == {7: "a", 3: "a-3"}


def test_the_order_is_that_of_registration_and_stays():
    book = NameBook()
    nodes = [node(9, 1), node(2, 2), node(5, 3)]
    found = book.assign(nodes, {9: "zebra", 2: "bear", 5: "ant"})
    assert found == {9: ("zebra", 0), 2: ("bear", 1), 5: ("ant", 2)}
    fourth = book.assign([*nodes, node(1, 4)], {9: "zebra", 2: "bear", 5: "ant", 1: "aaa"})
    assert fourth == {**found, 1: ("aaa", 3)}


def test_a_node_that_waits_beside_another_never_gets_its_name():
    """The robber (registered at 2) was there while the victim was last heard of (at 100)."""
    book = NameBook()
    assign(book, (node(7, 1, 100), "victim"), (node(3, 2, 100), "robber"))
    for claim in range(5):
        found = assign(book, (node(3, 2, 200 + claim), "victim"))
        assert found == {3: "robber"}
    book = NameBook()
    assign(book, (node(7, 1, 100), "victim"), (node(3, 2, 100), "victim"))
    assert assign(book, (node(3, 2, 200), "victim")) == {3: "victim-3"}
    assert assign(book, (node(3, 2, 300), "victim"), (node(7, 1, 300), "victim")) == {
        3: "victim-3",
        7: "victim",
    }


def test_a_node_that_was_started_again_gets_its_name_back():
    """Its new id was made at 140; the old one was last heard of at 130, and is listed until 190."""
    book = NameBook()
    old, new = node(7, 1, 130), node(8, 140, 150)
    assert assign(book, (old, "a")) == {7: "a"}
    assert assign(book, (old, "a"), (new, "a")) == {7: "a", 8: "a-8"}
    assert assign(book, (new, "a")) == {8: "a"}
    assert book.assign([new], {8: "a"}) == {8: ("a", 0)}


def test_one_that_told_nothing_is_called_after_its_id_until_it_does():
    book = NameBook()
    assert assign(book, (node(7, 1), None)) == {7: "node-7"}
    assert assign(book, (node(7, 1), "a")) == {7: "a"}
    assert assign(book, (node(7, 1), "a"), (node(8, 2), "node-7")) == {7: "a", 8: "node-7-8"}


def test_what_the_operator_wrote_goes_before_what_a_client_says():
    book = NameBook()
    found = assign(book, (node(1, 1), "desktop"), (node(2, 2, name="desktop"), "anything"))
    assert found == {2: "desktop", 1: "desktop-1"}
    hostile = node(3, 3, name="a\x1b[31m")
    assert assign(book, (hostile, "c")) == {3: "c"}


def resumed(book: NameBook) -> NameBook:
    again = NameBook()
    again.load_state(json.loads(json.dumps(book.state(), default=dict)))
    return again


def test_over_a_resume_a_key_keeps_its_name_whatever_it_says_then(caplog):
    book = NameBook()
    assign(book, (node(7, 1, 100), "a"), (node(3, 2, 100), "b"))
    again = resumed(book)
    found = assign(again, (node(3, 2, 500), "a"), (node(7, 1, 500), "a"))
    assert found == {7: "a", 3: "b"}
    assert "b now calls itself 'a': it stays b" in caplog.text
    # While its node is away, too.
    assert assign(resumed(book), (node(3, 2, 500), "a")) == {3: "b"}
    assert assign(resumed(book), (node(4, 50, 500), "a")) == {4: "a-4"}


def test_over_a_resume_one_that_had_left_was_last_heard_of_before_it_left():
    """The other one was there at the last look, at 500: whoever came before that had waited."""
    book = NameBook()
    assign(book, (node(7, 1, 100), "a"), (node(3, 2, 100), "b"))
    assign(book, (node(3, 2, 500), "b"))
    assert assign(resumed(book), (node(4, 99, 600), "a")) == {4: "a-4"}
    assert assign(resumed(book), (node(4, 101, 600), "a")) == {4: "a"}
    assert assign(resumed(book), (node(5, 499, 600), "b")) == {5: "b-5"}
    assert assign(resumed(book), (node(5, 501, 600), "b")) == {5: "b"}
    # It comes back, and another resume later it is known that it was there until 800.
    book = resumed(resumed(book))
    assign(book, (node(7, 1, 800), "a"))
    assert assign(resumed(book), (node(4, 799, 900), "a")) == {4: "a-4"}
    assert assign(resumed(book), (node(4, 801, 900), "a")) == {4: "a"}
    assert assign(resumed(book), (node(5, 501, 900), "b")) == {5: "b"}


def test_nothing_is_kept_anew_of_nodes_that_stay():
    book = NameBook()
    kept = book.state()["holders"]
    told = [(node_id, f"client-{node_id}") for node_id in range(1, 101)]
    assign(book, *((node(n, n, 200), name) for n, name in told))
    assert kept.writes == 100
    assign(book, *((node(n, n, 230), name) for n, name in told))
    assert kept.writes == 100
    assign(book, *((node(n, n, 260), name) for n, name in told[1:]))
    assert kept.writes == 101
    assign(book, *((node(n, n, 290), name) for n, name in told))
    assert kept.writes == 102


def test_over_a_resume_new_ids_of_a_simulation_get_the_names_that_they_tell():
    """A simulation's nodes send no heartbeats; all ids are new, and made after the first run."""
    endless = 1e300

    def simulated(node_id: int, registered: float) -> NodeInfo:
        info = node(node_id, registered)
        info.heartbeat_interval, info.online_until = endless, 2 * endless
        return info

    book = NameBook()
    first = book.assign([simulated(9, 10), simulated(4, 11)], {9: "client-0", 4: "client-1"})
    assert first == {9: ("client-0", 0), 4: ("client-1", 1)}
    again = resumed(book)
    nodes = [simulated(2, 50), simulated(8, 49)]
    assert again.assign(nodes, {8: "client-1", 2: "client-0"}) == {
        8: ("client-1", 1),
        2: ("client-0", 0),
    }


def test_without_a_superlinks_word_the_order_of_arrival_decides():
    book = NameBook()
    both = [NodeInfo(node_id=1), NodeInfo(node_id=2)]
    assert book.assign(both, {1: "a", 2: "a"}) == {1: ("a", 0), 2: ("a-2", 1)}
    # Node 2 came with node 1, node 3 later, as a node does that is started again.
    assert book.assign([both[1]], {2: "a"}) == {2: ("a-2", 1)}
    assert book.assign([both[1], NodeInfo(node_id=3)], {2: "a", 3: "a"})[3] == ("a", 0)
