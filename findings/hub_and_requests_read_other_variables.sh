#!/usr/bin/env bash
# huggingface_hub 2.4.0 and requests 2.34.2 take an additional certificate authority from different environment variables.
#
# A program that downloads from the Hub and from other servers, in a company whose proxy has a certificate authority of its own,
# needs both. One would expect REQUESTS_CA_BUNDLE to serve the Hub's client too, as it did while that was built on requests; since
# it is built on httpx, SSL_CERT_FILE counts there, and requests does not read it. Seen with a loopback server:
#   SSL_CERT_FILE:      the Hub's client connects, requests does not
#   REQUESTS_CA_BUNDLE: requests connects, the Hub's client does not
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0 requests==2.34.2 trustme==1.2.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import http.server
import os
import ssl
import subprocess
import sys
import threading

import trustme

authority = trustme.CA()
authority.cert_pem.write_to_path("authority.pem")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("127.0.0.1").configure_cert(context)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *arguments):
        pass


server = Server(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"https://127.0.0.1:{server.server_port}/"
CLIENTS = {
    "hub": "from huggingface_hub.utils import get_session; get_session().get(URL)",
    "requests": "import requests; requests.get(URL)",
}
seen = {}
for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
    plain = {key: value for key, value in os.environ.items() if "CERT" not in key and "CA_BUNDLE" not in key}
    environment = {**plain, variable: os.path.abspath("authority.pem"), "NO_PROXY": "*"}
    for client, code in CLIENTS.items():
        done = subprocess.run([sys.executable, "-c", code.replace("URL", repr(url))], env=environment, capture_output=True)
        seen[variable, client] = "connects" if done.returncode == 0 else "refuses the certificate"
for key, value in seen.items():
    print(*key, value)
assert [value == "connects" for value in seen.values()] == [True, False, False, True], "the behaviour has changed"
PY
