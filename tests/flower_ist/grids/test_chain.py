"""The order of a chain, and that each step sees what it should."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

from flower_ist.grids.chain import Filter, FilteredGrid, OneByOne
from flower_ist.grids.inprocess import InProcessGrid
from tests.fakes.tiny import tiny_app


class Note(Filter):
    """Write down what passes."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def nodes(self, grid):
        self.notes.append(f"{self.name} nodes")
        return list(grid.get_node_ids())[1:]

    def down(self, messages):
        for message in messages:
            self.notes.append(f"{self.name} down")
            yield message

    def up(self, replies):
        for reply in replies:
            self.notes.append(f"{self.name} up")
            yield reply


def chain(notes: list[str]) -> FilteredGrid:
    return FilteredGrid(InProcessGrid(tiny_app(), 3), [Note("a", notes), Note("b", notes)])


def questions(grid: FilteredGrid) -> list[Message]:
    content = RecordDict({"config": ConfigRecord({})})
    return [Message(content, node, "query") for node in grid.get_node_ids()]


def test_messages_pass_the_filters_in_the_lists_order_and_replies_in_the_other():
    notes: list[str] = []
    grid = chain(notes)
    messages = questions(grid)
    assert notes == ["a nodes", "b nodes"]
    notes.clear()
    assert len(list(grid.send_and_receive(messages))) == len(messages) == 1  # 3 - 1 - 1 nodes
    assert notes == ["a down", "b down", "b up", "a up"]


def test_messages_and_replies_pass_one_at_a_time():
    """A list is answered with a list, OneByOne as each reply comes: the second is not made yet."""
    notes: list[str] = []
    grid = FilteredGrid(InProcessGrid(tiny_app(), 3), [Note("a", notes)])
    node_ids = list(InProcessGrid(tiny_app(), 3).get_node_ids())
    messages = [Message(RecordDict({}), node, "query") for node in node_ids[:2]]
    assert isinstance(grid.send_and_receive(messages), list)
    assert notes == ["a down", "a up"] * 2
    notes.clear()
    replies = iter(grid.send_and_receive(OneByOne(messages)))
    assert notes == ["a down", "a up"]
    assert len(list(replies)) == 2
    assert notes == ["a down", "a up"] * 2
    assert grid.send_and_receive(OneByOne()) == []


def test_pushed_messages_pass_them_too():
    notes: list[str] = []
    grid = chain(notes)
    messages = questions(grid)
    notes.clear()
    message_ids = list(grid.push_messages(messages))
    assert notes == ["a down", "b down"]
    assert len(list(grid.pull_messages(message_ids))) == 1
    assert notes[2:] == ["b up", "a up"]


def test_a_chain_in_front_of_a_chain_is_one_chain():
    notes: list[str] = []
    inner = FilteredGrid(InProcessGrid(tiny_app(), 3), [Note("b", notes)])
    messages = questions(inner)[:1]
    notes.clear()
    list(FilteredGrid(inner, [Note("a", notes)]).send_and_receive(messages))
    assert notes == ["a down", "b down", "b up", "a up"]


def test_without_filters_it_is_the_grid():
    plain = InProcessGrid(tiny_app(), 3)
    assert list(FilteredGrid(plain, []).get_node_ids()) == list(plain.get_node_ids())
