"""HTTP over one kept connection. No answer within the time limit is a failure of its own."""

import http.client
import json
import time
from urllib.parse import urlsplit

PATIENCE = 30


class Answer:
    def __init__(self, status, headers, text, begun, ended):
        self.status, self.headers, self.text = status, headers, text
        #: Milliseconds of the clock that service and database share with this process.
        self.begun, self.ended = begun, ended
        try:
            self.body = json.loads(text)
        except ValueError:
            self.body = None

    @property
    def code(self):
        return self.body.get("code") if isinstance(self.body, dict) else None


class Client:
    def __init__(self, url):
        self.at = urlsplit(url)
        self.connection = None

    def ask(self, method, path, body=None, headers=None):
        headers = dict(headers or {})
        if body is not None:
            body = json.dumps(body, ensure_ascii=False).encode()
            headers["content-type"] = "application/json"
        begun = int(time.time() * 1000)
        answer, text = self.once(method, path, body, headers)
        sent = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, sent, text, begun, int(time.time() * 1000) + 1)

    def once(self, method, path, body, headers):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.at.hostname, self.at.port, timeout=PATIENCE)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer, answer.read().decode()

    def get(self, path, headers=None):
        return self.ask("GET", path, headers=headers)
