"""Somebody who looks at pages without a browser: cookies, forms, no redirect followed."""

import re
from typing import Any

import requests

import hub_server
from hub_server import PASSWORD, RunningHub
from trapsync.hub.sessions import COOKIE


class Visitor:
    """A browser without a face: it keeps the cookie `secret`, and follows no redirect."""

    def __init__(self, hub: RunningHub, name: str = "", secret: str = "") -> None:
        self._hub = hub
        self.secret = secret
        if name:
            assert self.log_in(name).status_code == 303

    def get(self, path: str, **headers: str) -> requests.Response:
        """GET a page. `_` in a header's name is `-`."""
        return self._ask("GET", path, headers)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> requests.Response:
        """Send a form."""
        return self._ask("POST", path, headers or {}, fields)

    def _ask(
        self, method: str, path: str, headers: dict[str, str], data: dict[str, str] | None = None
    ) -> requests.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret:
            sent["Cookie"] = f"{COOKIE}={self.secret}"
        answer = requests.request(
            method, self._hub.url + path, headers=sent, data=data, allow_redirects=False, timeout=40
        )
        self.secret = answer.cookies.get(COOKIE) or self.secret
        return answer

    def log_in(self, name: str, password: str = PASSWORD, **more: Any) -> requests.Response:
        """Send the form for that."""
        if name in hub_server.USERS:
            self._hub.auth(name)  # makes the account
        return self.post("/login", name=name, password=password, **more)

    def token(self, page: str = "/") -> str:
        """The token of the forms of a page."""
        found = re.search(r'name="form" value="([0-9a-f]+)"', self.get(page).text)
        assert found
        return found[1]

    def form(self, page: str, path: str, **fields: str) -> requests.Response:
        """Send a form of a page, as a browser does."""
        return self.post(path, None, form=self.token(page), **fields)
