"""The address that AWS clients of the lab talk to: a proxy before moto that keeps a log and does what faults.py decides.

It answers GetConsoleOutput from the machine's real console, and turns moto's HTML page for what it does not implement
into an error that no SDK retries. After each call that changes something it tells the lab. Started by region.py."""
import base64
import html
import http.client
import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from faults import error_page

NOT_RELAYED = ("content-length", "transfer-encoding", "connection", "expect")
CONSOLE_LIMIT = 65536
READS = ("Describe", "Get", "List")
READ_TRIES = 5                                      # moto has no locks: what it reads may change under its reader, which then fails


def injected(fault):
    """What the log says of a fault: an error code, or what was done to the answer."""
    if not fault:
        return None
    done = [fault["code"]] if fault["code"] else []
    done += ["dropped answer"] if fault["drop_answer"] else []
    done += ["cut answer"] if fault["truncate"] else []
    return ", ".join(done + ([f"held {fault['delay']} s"] if fault["delay"] else []))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def relay(self):
        lab, start = self.server.lab, time.time()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = dict(parse_qsl(body.decode("latin-1"))) if re.search(rb"(^|&)Action=\w", body) else {}
        action = form.get("Action") or self.headers.get("X-Amz-Target", "").split(".")[-1] or f"{self.command} {self.path}"
        key = (re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", "")) or [None, None])[1]
        lab.check_request(action, form)
        fault, late = lab.take_fault(action, form, key), lab.too_new(action, form)
        if late and not fault:
            status, headers, answer = 400, [], error_page(*late)
        elif fault and fault["code"]:
            status, headers = fault["status"], []
            answer = error_page(fault["code"], "made up by the lab", "X-Amz-Target" in self.headers)
        else:
            status, headers, answer = self.answer_of_moto(action, form, key, body)
        if fault and fault["truncate"]:
            answer = answer[:len(answer) // 2]
        if fault and fault["delay"]:
            time.sleep(fault["delay"])
        drop = bool(fault and fault["drop_answer"])
        lab.log_call({"time": round(start, 3), "action": action, "status": status,
                      "ms": round(1000 * (time.time() - start)), "injected": injected(fault) or (late[0] if late else None),
                      "from": self.client_address[0], "key": key, "token": form.get("ClientToken")})
        if drop:                                    # the call worked, and the client never learns of it
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            try:
                self.send(status, headers, answer)
            except ConnectionError:                 # whoever asked had no patience
                self.close_connection = True

    def answer_of_moto(self, action, form, key, body):
        lab, is_read = self.server.lab, action.startswith(READS)
        for _ in range(READ_TRIES if is_read else 1):
            status, headers, answer = self.ask_moto(body)
            is_page = status == 500 and answer.lstrip().startswith(b"<!doctype")
            if not is_page:
                break
        if is_page:
            text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]+>", " ", answer.decode(errors="replace"))))
            status, headers, answer = 501, [], error_page("NotInThisLab", f"{action}: {text.strip()[:400]}")
        if status == 400 and b"<Code>DryRunOperation<" in answer:
            status = 412                            # as EC2 says it; the log tells dry runs by it
        if status == 200 and action == "GetConsoleOutput":
            answer = self.real_console(form["InstanceId"], answer)
        if status == 200 and action == "DescribeInstances":
            status, answer = lab.forget(form, answer, key)
        if status == 200 and form and not is_read:
            lab.made(action, form, answer)
            lab.changed(action, [value for name, value in form.items() if name.startswith("InstanceId.")], form, answer)
        return status, headers, answer

    def ask_moto(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.moto_port, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_RELAYED}
        try:
            connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def real_console(self, instance_id, answer):
        console = self.server.lab.console(instance_id)
        text = console.read_bytes()[-CONSOLE_LIMIT:] if console.exists() else b""
        return re.sub(rb"(?s)<output>.*</output>", b"<output>" + base64.b64encode(text) + b"</output>", answer)

    def send(self, status, headers, answer):
        self.send_response_only(status)
        size = next((value for name, value in headers if name.lower() == "content-length"), "0")
        for name, value in headers:
            if name.lower() not in NOT_RELAYED:
                self.send_header(name, value)
        self.send_header("Content-Length", size if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = relay


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128


def serve(address, moto_port, lab):
    server = Server(address, Handler)
    server.moto_port, server.lab = moto_port, lab
    server.serve_forever()
