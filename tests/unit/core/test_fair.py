"""FairQueue: groups take turns."""

from whisperd.core.fair import FairQueue, top_folder


def filled(*names):
    queue = FairQueue()
    for name in names:
        queue.push(name, top_folder(name), name)
    return queue


def drained(queue):
    return [queue.pop() for _ in range(len(queue))]


def test_groups_take_turns():
    """A thousand files of one folder delay those of another by one file each."""
    queue = filled("a/1", "a/2", "a/3", "b/1", "top", "b/2")

    assert drained(queue) == ["a/1", "b/1", "top", "a/2", "b/2", "a/3"]


def test_iteration_is_the_order_of_pop():
    """Queue positions shown to people are the order in which jobs run."""
    queue = filled("a/1", "b/1", "a/2", "c/1", "a/3")

    assert list(queue) == drained(queue)


def test_first_come_first_served_within_one_group():
    """Within one folder nobody overtakes."""
    names = [f"a/{number}" for number in range(20)]

    assert drained(filled(*names)) == names


def test_given_back_is_next_again():
    """An item that could not be used keeps its turn."""
    queue = filled("a/1", "b/1", "a/2")
    item = queue.pop()
    queue.push_front(item, top_folder(item), item)

    assert drained(queue) == ["a/1", "b/1", "a/2"]


def test_removed_items_are_gone():
    """An item can be taken out wherever it stands, once or twice."""
    queue = filled("a/1", "b/1", "a/2")
    queue.remove("a/1")
    queue.remove("a/1")

    assert "a/1" not in queue
    assert drained(queue) == ["a/2", "b/1"] or drained(queue) == ["b/1", "a/2"]
    assert queue.pop() is None
    assert queue.peek() is None


def test_who_overtakes_uses_up_the_turn_of_his_group():
    """As if he had been the next."""
    queue = filled("a/1", "b/1", "a/2", "b/2")
    queue.take("a/2")

    assert drained(queue) == ["b/1", "a/1", "b/2"]
