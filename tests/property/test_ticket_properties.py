"""Tickets come from anybody who may write into the inbox."""

import json
import time

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from whisperd.core.display import printable
from whisperd.core.errors import InputError
from whisperd.intake.ticket import BYTES_MAX, parse
from whisperd.settings import config, profiles
from whisperd.settings.sections import SETTABLE

ALL = config.validate({"tickets": {"allow": ["model", *SETTABLE]}}, source="test")
USUAL = config.validate({}, source="test")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
YAML = st.text(alphabet="abz:-[]{}&*!|>'\"#%@`,?~<= \n\t01.e\u2028\ud83d", max_size=60)
MAPPINGS = st.dictionaries(
    st.sampled_from(["model", *SETTABLE]) | st.text(max_size=8),
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3),
    max_size=5,
)
BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(ord("b"), ord("z")))


@example(BOMB)
@example(b"? " * (BYTES_MAX // 2))
@example(b"- " * (BYTES_MAX // 2))
@example(b"{" * BYTES_MAX)
@example(b"a: |\n" + b" x\n" * 5000)
@example(b"<<: {language: fr}\n")
@example(b"a: {<<: {b: c}}\n")
@example(b"a: {? [x] : y}\n")
@settings(deadline=None)
@given(st.binary(max_size=200) | YAML.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_can_do_more_than_be_refused(data):
    """Whatever stands there: values that are plain, or one reason, and soon."""
    started = time.process_time()
    ticket = parse("a.yaml", data)

    assert time.process_time() - started < 5.0
    assert not (ticket.values and ticket.problems)
    for value in ticket.values.values():
        if isinstance(value, dict):
            assert all(type(each) is str for entry in value.items() for each in entry)
            continue
        for each in value if isinstance(value, tuple) else (value,):
            assert each is None or type(each) in {str, int, float, bool}


@settings(deadline=None)
@given(MAPPINGS, st.sampled_from([ALL, USUAL]))
def test_an_order_is_valid_or_refused_with_its_key(values, configured):
    """Nothing but that error comes out, and what is accepted survives the job's record."""
    ticket = parse("a.yaml", yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))
    refusal = order = None
    try:
        order = profiles.resolve(configured, "a.wav", [ticket])
    except InputError as error:
        refusal = error

    if refusal is not None:
        assert refusal.job_code == "bad_ticket"
        assert ticket.problems or any(printable(key) in refusal.message for key in ticket.values)
        return
    assert set(ticket.values) <= set(configured.tickets.allow)
    assert order.model == "base"
    json.dumps(order.changes, allow_nan=False).encode()
