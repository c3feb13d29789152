"""How a recording is taken in and transcribed, unless a test says otherwise."""

from whisperd.core.options import TranscribeOptions
from whisperd.settings.sections import IntakeOptions

INTAKE = IntakeOptions(
    settle_seconds=5.0,
    settle_seconds_proven=0.25,
    empty_seconds=60.0,
    truncated_seconds=3600.0,
    rescan_seconds=30.0,
    poll_seconds=5.0,
    done_marker="",
    ignore=(),
)


def options(**changes):
    """Greedy decoding without thresholds, and what a test changes of it, valid or not."""
    plain = TranscribeOptions(
        language="en",
        condition_on_previous_text=False,
        best_of=None,
        temperature=(0.0,),
        compression_ratio_threshold=None,
        logprob_threshold=None,
        no_speech_threshold=None,
    )
    return plain.evolve(**changes)
