"""Serves a directory over HTTP on a free port of loopback, and writes the port to a file. Usage: serve.py DIR PORTFILE"""
import functools
import http.server
import os
import sys

directory, port_file = sys.argv[1:3]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
with open(port_file + ".new", "w") as file:
    file.write(str(server.server_port))
os.rename(port_file + ".new", port_file)
server.serve_forever()
