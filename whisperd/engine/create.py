"""The table of engines: creates the one that is asked for, and imports no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core.errors import BootError

if TYPE_CHECKING:
    from whisperd.core.options import EngineOptions
    from whisperd.engine.api import Engine


def create(options: EngineOptions) -> Engine:
    """Load the engine that `options.engine` names, which takes seconds to minutes.

    Raises:
        BootError: no such engine, or its model or device cannot be used.
    """
    # ruff's PLC0415 wants imports on top: torch takes seconds and 200 MB, which a scripted worker must not pay.
    if options.engine == "openai-whisper":
        if options.decoding == "batched":
            from whisperd.engine.whisper_batched.engine import BatchedWhisper  # noqa: PLC0415

            return BatchedWhisper(options)
        from whisperd.engine.whisper_sequential import OpenAIWhisper  # noqa: PLC0415

        return OpenAIWhisper(options)
    if options.engine == "faster-whisper":
        try:
            from whisperd.engine.faster_whisper.engine import FasterWhisper  # noqa: PLC0415
        except ImportError as error:
            raise BootError(
                f"the engine faster-whisper is not installed: {error}",
                hint="run `pip install 'whisperd[faster-whisper]'`",
            ) from error

        return FasterWhisper(options)
    if options.engine == "scripted":
        from whisperd.engine.scripted import WINDOWS, Scripted, ScriptedWindows  # noqa: PLC0415

        return ScriptedWindows(options) if options.script.startswith(WINDOWS) else Scripted(options)
    raise BootError(f"there is no engine {options.engine!r}", hint="set engine to openai-whisper or faster-whisper")
