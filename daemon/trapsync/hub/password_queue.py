"""Compare passwords with their hashes, one after another, whoever asks how often."""

import logging
import threading
from collections.abc import Callable

from trapsync.hub.accounts import Accounts, User
from trapsync.hub.admission import Login

log = logging.getLogger(__name__)

_MOST = 64  # ten seconds of work; on a Pi a minute
_MOST_EACH = 4

Answer = Callable[[User | None], object]


class PasswordQueue:
    """One thread, so that guessers have one core at most, which serves networks in turn. It ends with its work."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        # Who waits for each login of each network. The order is that in which networks are served.
        self._waiting: dict[str, dict[Login, list[Answer]]] = {}
        self._lock = threading.Lock()
        self._works = False

    def put(self, network: str, login: Login, answer: Answer) -> bool:
        """Queue a login; False when there are too many. `answer` gets its user, or None, in the queue's thread."""
        with self._lock:
            logins = self._waiting.get(network, {})
            full = len(logins) >= _MOST_EACH or sum(map(len, self._waiting.values())) >= _MOST
            if full and login not in logins:
                return False
            self._waiting.setdefault(network, {}).setdefault(login, []).append(answer)
            if not self._works:
                self._works = True
                threading.Thread(target=self._work, name="passwords", daemon=True).start()
            return True

    def _work(self) -> None:
        while found := self._next():
            login, answers = found
            user = None
            try:
                # It may have been compared since it was queued: a fleet that comes back shares a password.
                user = self._accounts.recognise(*login)
            except Exception:
                log.exception("a password could not be compared")
            for answer in answers:
                answer(user)

    def _next(self) -> tuple[Login, list[Answer]] | None:
        with self._lock:
            if not self._waiting:
                self._works = False
                return None
            network = next(iter(self._waiting))
            logins = self._waiting.pop(network)
            login = next(iter(logins))
            answers = logins.pop(login)
            if logins:
                self._waiting[network] = logins  # as the last
            return login, answers
