"""Creates the engine that is asked for, from the table `ENGINES`, and imports no other."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError
from whisperd.core.options import ENGINES

if TYPE_CHECKING:
    from whisperd.core.options import EngineOptions
    from whisperd.engine.api import Engine


def create(options: EngineOptions) -> Engine:
    """Load the engine that `options.engine` names, which takes seconds to minutes.

    Raises:
        BootError: no such engine, or its model or device cannot be used.
    """
    entry = ENGINES.get(options.engine)
    if entry is None:
        raise BootError(f"there is no engine {options.engine!r}", hint=f"set engine to one of {', '.join(ENGINES)}")
    module, _, name = (entry.batched if options.decoding == "batched" else entry.sequential).partition(":")
    try:
        made = importlib.import_module(f"whisperd.engine.{module}")
    except ImportError as error:
        if not entry.extra:
            raise
        raise BootError(
            f"the engine {options.engine} is not installed: {error}",
            hint=f"run `pip install 'whisperd[{entry.extra}]'`",
        ) from error
    engine: Engine = getattr(made, name)(options)
    return engine
