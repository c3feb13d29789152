"""How a recording is transcribed, unless a test says otherwise."""

from whisperd.options import TranscribeOptions


def options(**changes):
    """Greedy decoding without thresholds, and what a test changes of it."""
    return TranscribeOptions(
        **{
            "language": "en",
            "task": "transcribe",
            "initial_prompt": None,
            "carry_initial_prompt": False,
            "condition_on_previous_text": False,
            "beam_size": None,
            "best_of": None,
            "patience": None,
            "length_penalty": None,
            "temperature": (0.0,),
            "compression_ratio_threshold": None,
            "logprob_threshold": None,
            "no_speech_threshold": None,
            "suppress_tokens": "-1",
            "word_timestamps": False,
            "hallucination_silence_threshold": None,
        }
        | changes
    )
