"""When a command is run again, and how one run of it ends."""

import os
import sys

import pytest

from whisperd.listeners.notifications.channel import KEPT_BYTES, Channel, Delivery, sender


@pytest.fixture
def deliver():
    """Start a shell script; what is left of it is ended afterwards."""
    deliveries = []

    def start(script, data=b"", deadline=100.0, **environment):
        deliveries.append(Delivery(["/bin/sh", "-c", script], environment, data, deadline))
        return deliveries[-1]

    yield start
    for delivery in deliveries:
        delivery.kill()


@pytest.mark.parametrize(
    ("status", "hook", "webhook"),
    [(os.EX_TEMPFAIL, True, True), (1, False, True), (os.EX_UNAVAILABLE, False, False), (None, False, True)],
)
def test_what_is_worth_another_try(status, hook, webhook):
    """Nobody knows what a command of the operator's did before it failed; a receiver that is gone stays gone."""
    own = Channel("hook", ("failed",), ("/bin/false",), 1.0, is_repeatable=False)

    assert own.is_worth_another_try(status) is hook
    assert sender("webhook", ("failed",)).is_worth_another_try(status) is webhook


def test_a_sender_is_a_module_of_this_package():
    """Run by the same interpreter."""
    assert sender("mail", (), "a", "b").command == (
        sys.executable, "-P", "-m", "whisperd.listeners.notifications.mail", "a", "b",
    )  # fmt: skip


def test_a_command_gets_its_input_and_environment(deliver, wait_until):
    """However much that is: a pipe would fill up."""
    delivery = deliver('wc -c; echo "$WORD"', b"x" * 1_000_000, WORD="hello")
    wait_until(lambda: delivery.has_ended(0.0))

    assert delivery.reap() == (0, "1000000 | hello")


def test_of_what_it_prints_the_start_is_kept_as_one_printable_line(deliver, wait_until):
    """A command that prints without end does not fill the memory, nor the journal with what a terminal would obey."""
    delivery = deliver("printf 'a\\033[31m\\n\\n'; head -c 3000000 /dev/zero | tr '\\0' b; exit 3")
    wait_until(lambda: delivery.has_ended(0.0))
    status, output = delivery.reap()

    assert status == 3
    assert output.startswith("a\\x1b[31m | bbb")
    assert len(output) <= KEPT_BYTES + 10


def test_a_command_is_killed_at_its_deadline_with_what_it_started(deliver, wait_until):
    """Its exit status is then None."""
    delivery = deliver("sleep 1000 & sleep 1000", deadline=5.0)
    group = os.getpgid(delivery._process.pid)
    assert not delivery.has_ended(4.9)
    wait_until(lambda: delivery.has_ended(5.0))

    assert delivery.reap() == (None, "")
    wait_until(lambda: is_gone(group))


def is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_command_that_is_not_there_leaves_no_descriptor():
    """It fails with the reason."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Delivery(["/nowhere/hook"], {}, b"", 1.0)

    assert len(os.listdir("/proc/self/fd")) == before
