"""Recordings and transcripts for pages, harmless and hostile."""

from __future__ import annotations

from whisperd.core.job import original_url
from whisperd.core.options import OutputOptions
from whisperd.core.transcript import About, Segment, Transcript, Word
from whisperd.output import formats

HOSTILE = (
    "<script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    '"><img src=x onerror="document.title=`run`">',
    "' onmouseover='document.title=1' x='",
    "--> <!-- ]]> </style></title></template>",
    "&lt;b&gt; &amp; &#60;i&#62; $title ${script} %s {0}",
    "one\u2028two\u2029three\x85four\x00five\x1b[31m",
    "abc\u202egpj.exe",
    "javascript:document.title='run'",
)
SENTENCES = (
    "And so, my fellow Americans.",
    "Ask not what your country can do for you.",
    "The résumé is on the table.",
    "Nobody knows.",
    "Ask what you can do for your country.",
)
STEP_SECONDS = 2.0  # each sentence


def words(text, start, end, unsure=()):
    """Each word in its equal share of the time."""
    found = text.split()
    step = (end - start) / len(found)
    return tuple(
        Word(start + step * number, start + step * (number + 1), f" {word}", 0.31 if word in unsure else 0.9)
        for number, word in enumerate(found)
    )


def transcript(texts=SENTENCES, *, language="en", with_words=True, speakers=(), **fields):
    """Sentence after sentence, each of two seconds."""
    segments = []
    for number, text in enumerate(texts):
        start, end = STEP_SECONDS * number, STEP_SECONDS * (number + 1)
        spoken = words(text, start, end, unsure=("table.",)) if with_words and text.split() else None
        speaker = speakers[number] if speakers else None
        segments.append(Segment(start, end, f" {text}", words=spoken, speaker=speaker, **fields))
    return Transcript(" ".join(texts), tuple(segments), language)


def about(place="talk.wav", **changes):
    """What the worker knows of a recording at this place."""
    fields = {
        "title": place,
        "link": original_url(place),
        "duration_seconds": STEP_SECONDS * len(SENTENCES),
        "heights": (),
        "task": "transcribe",
        "made_by": "openai-whisper, model base",
        "made_at": "2026-01-02T03:04:05.678Z",
    }
    return About(**fields | changes)


def page(transcript, about):
    """The page in UTF-8."""
    return formats.render(transcript, OutputOptions(formats=("html",)), about)["html"]
