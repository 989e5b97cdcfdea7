"""One keep-alive connection per worker, and requests repeated until their outcome is definite.

A request is repeated with the same Idempotency-Key, so that repeating cannot do it twice.
"""

import http.client
import json
import secrets
import time
import urllib.parse
import uuid

# How long the outcome of one request may stay unknown.
PATIENCE_S = 60.0
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 1.0


class Unreachable(Exception):
    """There is no service at that address; nothing was sent."""


class Unknown(Exception):
    """No answer: the service may or may not have done what was asked."""


class Answer:
    """An answer, read whole."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Unknown("an answer %d that is no JSON" % self.status)

    def code(self):
        """The code of a problem document; of anything else, the status."""
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return "status %d" % self.status

    def says_not_now(self):
        if self.status == 409:
            return self.code() == "idempotency_key_in_flight"
        return self.status in (429, 503)


class Client:
    """A client of one connection; connects when first used, and anew after a failure."""

    def __init__(self, base_url, timeout_s=10.0):
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a URL of the form http://host:port is wanted")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        # It sets TCP_NODELAY by itself.
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._path = parts.path.rstrip("/")

    def close(self):
        self._connection.close()

    def call(self, method, path, body=None, key=None):
        """One attempt. Raises Unreachable or Unknown when there is no answer."""
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        connection = self._connection
        if connection.sock is None:
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                raise Unreachable(str(error))
        try:
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unknown("%s: %s" % (type(error).__name__, error))

    def read(self, path, deadline):
        """Reads until there is an answer other than "not now", at most until `deadline`."""
        pause = PAUSE_FIRST_S
        while True:
            late = time.monotonic() + pause > deadline
            try:
                answer = self.call("GET", path)
                if late or not answer.says_not_now():
                    return answer
            except (Unreachable, Unknown):
                if late:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_S)

    def settle(self, path, fields, key, tally):
        """Posts until the answer is definite. Raises Unknown when it is not in time."""
        body = json.dumps(fields).encode()
        deadline = time.monotonic() + PATIENCE_S
        pause = PAUSE_FIRST_S
        while True:
            try:
                answer = self.call("POST", path, body, key)
                tally.answered(answer)
                if not answer.says_not_now():
                    return answer
                cause = answer.code()
                pause = max(pause, retry_after(answer))
            except (Unreachable, Unknown) as error:
                cause = str(error)
            if time.monotonic() + pause > deadline:
                raise Unknown("still unknown after %d s: %s" % (PATIENCE_S, cause))
            tally.repeated[cause] += 1
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_S)


def fresh_key():
    """A version 7 UUID: the service lays such keys by their time, which costs it a fraction of a random place."""
    random = 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=time.time_ns() // 1_000_000 << 80 | random))


def retry_after(answer):
    try:
        return min(float(answer.headers.get("Retry-After", 0)), PAUSE_MAX_S)
    except ValueError:
        return 0.0


def reach(base_url, timeout_s):
    """Raises Unreachable unless a service that is ready answers."""
    client = Client(base_url, timeout_s)
    try:
        answer = client.call("GET", "/readyz")
    except Unknown as error:
        raise Unreachable(str(error))
    finally:
        client.close()
    if answer.status != 200:
        raise Unreachable("not ready: status %d" % answer.status)
