"""Stands in for an engine: writes the build context that a `docker build` sends to a file.

    capture.py SOCKET FILE
"""

import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

socket, out = sys.argv[1:]


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body=b"{}"):
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Ostype", "linux")
        self.send_header("Builder-Version", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        self.answer(b'{"ApiVersion":"1.41","Os":"linux"}')

    do_HEAD = do_GET

    def do_POST(self):
        with open(out + ".part", "wb") as context:
            while size := int(self.rfile.readline(), 16):
                context.write(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        os.rename(out + ".part", out)
        self.answer()

    def address_string(self):
        return "docker"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


Server(socket, Engine).serve_forever()
