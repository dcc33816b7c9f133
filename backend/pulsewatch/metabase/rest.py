"""Metabase's REST API: one session, bounded waits, and errors that say what to do. Secrets never leave this file."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import requests

TIMEOUT_S = 60.0
# 429: nothing has happened. The others are told by what stands before the server: it may have got the request.
TRY_AGAIN = frozenset({429, 502, 503})
PATIENCE_S = (1.0, 2.0, 4.0, 8.0)


class Clock:
    """The time that passes while we wait."""

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


class MetabaseError(Exception):
    """Metabase cannot be brought to what it should be. The message says why, in one line, without secrets."""


class Unreachable(MetabaseError):
    """Nothing answers at this address."""


class Refused(MetabaseError):
    """Metabase has refused a request."""

    def __init__(self, status: int, said: str, request: str) -> None:
        super().__init__(f"Metabase refuses {request} ({status}): {said}")
        self.status, self.said = status, said


class Rest:
    """Speaks to one Metabase. `writes` counts what has changed something there."""

    def __init__(self, url: str, secrets: Sequence[str], clock: Clock | None = None) -> None:
        self.url = url.rstrip("/")
        self.writes = 0
        self.clock = clock or Clock()
        self._secrets = [secret for secret in secrets if secret]
        self._session = requests.Session()
        # A proxy or a .netrc of the machine must neither see these passwords nor add its own.
        self._session.trust_env = False

    def authenticate(self, header: str, value: str) -> None:
        """From now on every request carries this header; its value counts as a secret."""
        self._secrets.append(value)
        self._session.headers[header] = value

    def get(self, path: str, **query: Any) -> Any:
        return self._request("GET", path, query=query)

    def write(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that changes something in Metabase. What makes a new thing is never sent twice."""
        self.writes += 1
        return self._request(method, path, body, is_repeatable=method != "POST")

    def ask(self, path: str, body: Any) -> Any:
        """POST what changes nothing: a login, a query."""
        return self._request("POST", path, body)

    def ask_delete(self, path: str) -> None:
        """DELETE what is ours alone: the session."""
        self._request("DELETE", path)

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a list: some come bare, some wrapped, some in pages."""
        offset = 0
        while True:
            answer = self.get(path, **query, **({"offset": offset} if offset else {}))
            found = answer if isinstance(answer, list) else answer.get("data", [])
            yield from found
            offset += len(found)
            total = None if isinstance(answer, list) else answer.get("total")
            if not found or total is None or offset >= total:
                return

    def close(self) -> None:
        self._session.close()

    def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        is_repeatable: bool = True,
    ) -> Any:
        name = f"{method} {path}"
        for patience in (*PATIENCE_S, None):
            try:
                answer = self._session.request(
                    method, self.url + path, params=_words(query or {}), json=body, timeout=TIMEOUT_S,
                    allow_redirects=False,
                )  # fmt: skip
            except requests.RequestException as error:
                # It may have been carried out; the next `apply` finds what it has done.
                msg = f"Metabase does not answer at {self.url}: {self.without_secrets(_reason(error))}"
                raise Unreachable(msg) from None
            again = answer.status_code in TRY_AGAIN and (is_repeatable or answer.status_code == 429)
            if not again or patience is None:
                return self._content(answer, name)
            self.clock.pause(patience)
        raise AssertionError(name)

    def _content(self, answer: requests.Response, name: str) -> Any:
        if 300 <= answer.status_code < 400:
            where = answer.headers.get("Location", "elsewhere")
            raise Refused(answer.status_code, f"it leads to {where}; set PULSEWATCH_METABASE_URL to that", name)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, self.without_secrets(_said(answer)), name)
        if not answer.content:
            return None
        try:
            return answer.json()
        except requests.JSONDecodeError:
            said = f"{name} gives no JSON: is there a Metabase at {self.url}?"
            raise MetabaseError(said) from None

    def without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _words(query: dict[str, Any]) -> dict[str, Any]:
    """Booleans as Metabase reads them."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, without the address and the object around it."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return (str(cause).strip() or type(cause).__name__).split("\n")[0]


def _said(answer: requests.Response) -> str:
    """What Metabase says about an error, which has many shapes, in one line."""
    try:
        body = answer.json()
    except requests.JSONDecodeError:
        body = answer.text
    if isinstance(body, dict):
        errors = body.get("errors")
        if isinstance(errors, dict) and errors:
            return "; ".join(f"{name}: {text}" for name, text in errors.items())
        body = body.get("message") or body.get("error") or body
    return " ".join(str(body).split())[:500]
