"""Reloads the configuration on SIGHUP: it is applied or refused as a whole.

One with another engine is first tried on a worker of its own, beside those at work; it is applied when that one is ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.errors import ConfigError, NoResources
from whisperd.daemon.child import Child
from whisperd.daemon.loop import NEVER, Part
from whisperd.protocol import BootFailed, ProtocolError, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.devices import Place
    from whisperd.daemon.systemd import Notifier
    from whisperd.protocol import FromWorker
    from whisperd.settings.config import Config

TRIAL = 0  # its number, until the pool gives it another one
AGAIN = "then reload again"


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration that is being tried, and the worker that loads its engine."""

    config: Config
    child: Child


class Reload(Part):
    """The part of the loop that reads the configuration again on SIGHUP, and applies or refuses it.

    Args:
        config: the one in use.
        read: gives the new one; raises ConfigError.
        apply: puts one to use, now, with the worker that has loaded its engine, if that had to be tried.
        notifier: told when a reload begins and when it is over.
        emitter: told what came of it.
        place: where a worker tries the engine of a configuration.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        apply: Callable[[Config, float, tuple[Child, Ready] | None], None],
        notifier: Notifier,
        emitter: events.Emitter,
        *,
        place: Callable[[Config], Place | None] = lambda _: None,
    ) -> None:
        self._config = config
        self._read = read
        self._apply = apply
        self._place = place
        self._notifier = notifier
        self._emit = emitter.emit
        self._trial: Trial | None = None
        self._ended: list[Child] = []  # killed, and still to be reaped
        self.status = ""  # for the status line: what is being tried, or why the last reload was refused

    def begin(self, now: float) -> None:
        """Read the configuration; apply it at once, or first try its engine on a new worker. A running trial is given up."""
        self._notifier.reloading()
        self.give_up()
        try:
            config = self._read()
        except ConfigError as error:
            self._refuse(str(error))
            return
        if config.root != self._config.root:
            self._refuse("root cannot change in a running daemon", "restart the service")
        elif config.engine_options() == self._config.engine_options():
            self._use(config, now)
        else:
            self._begin_trial(config, now)

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when the trial sends a message or ends."""
        pidfds = [child.pidfd for child in self._ended]
        if self._trial is None:
            return pidfds
        connection = self._trial.child.connection
        return [*pidfds, self._trial.child.pidfd, *([] if connection.is_closed else [connection])]

    def tick(self, now: float) -> float:
        """Process the result of the trial; returns the time of its timeout."""
        for child in [child for child in self._ended if child.has_ended()]:
            child.reap()
            self._ended.remove(child)
        if self._trial is None:
            return NEVER
        self._judge(self._trial, now)
        return NEVER if self._trial is None else self._deadline(self._trial)

    def give_up(self) -> None:
        """Give up the trial, if there is one; a worker that hangs in the kernel is collected later."""
        if self._trial is not None:
            self._trial.child.kill()
            self._ended.append(self._trial.child)
            self._trial = None
            self.status = ""

    def close(self) -> None:
        """End the trial and wait for its process."""
        self.give_up()
        while self._ended:
            self._ended.pop().reap()

    def _begin_trial(self, config: Config, now: float) -> None:
        try:
            self._trial = Trial(config, Child(TRIAL, config.engine_options(), now, self._place(config)))
        except OSError as error:
            failure = NoResources("a worker", error)
            self._refuse(failure.message, f"{failure.hint}; {AGAIN}")
            return
        self.status = f"loading the model {config.model} of a new configuration"
        self._emit(events.ReloadTried(config.model, config.engine_options().device))

    def _judge(self, trial: Trial, now: float) -> None:
        child, model = trial.child, repr(trial.config.model)
        has_ended = child.has_ended()  # asked first: what it said before it ended counts
        try:
            for message in child.receive(now, has_ended=has_ended):
                self._hear(trial, message, now)
                return
        except ProtocolError as error:
            self._fail(f"a worker broke the protocol ({error})", "please report this")
            return
        if has_ended:
            self._trial = None
            memory = "if the memory does not hold the old model and the new one at once, restart the service instead"
            self._refuse(f"a worker {child.reap()} while it loaded the model {model}", memory)
        elif now > self._deadline(trial):
            seconds = trial.config.pool.boot_seconds
            hint = f"raise pool.boot_seconds, or use a smaller model; {AGAIN}"
            self._fail(f"a worker did not load the model {model} within {seconds:.0f} s", hint)

    def _hear(self, trial: Trial, message: FromWorker, now: float) -> None:
        """Take the verdict of a worker that has no job, and therefore nothing else to say.

        Raises:
            ProtocolError: it says something else.
        """
        match message:
            case Ready():
                self._trial = None
                self._use(trial.config, now, (trial.child, message))
            case BootFailed(failure):
                self._fail(failure.message, f"{failure.hint}; {AGAIN}")
            case _:
                raise ProtocolError(f"{type(message).__name__}: it has no job")

    def _deadline(self, trial: Trial) -> float:
        return trial.child.started_at + trial.config.pool.boot_seconds

    def _fail(self, reason: str, hint: str) -> None:
        self.give_up()
        self._refuse(reason, hint)

    def _use(self, config: Config, now: float, trial: tuple[Child, Ready] | None = None) -> None:
        self._config, self.status = config, ""
        self._apply(config, now, trial)
        self._emit(events.ConfigApplied())
        self._notifier.reloaded()

    def _refuse(self, reason: str, hint: str = "") -> None:
        self.status = f"the new configuration is refused: {' '.join(reason.split())}"
        self._emit(events.ConfigRefused(reason, hint))
        self._notifier.reloaded()
