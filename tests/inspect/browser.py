"""A real browser without a window, told what to do over a pipe (the DevTools protocol): opens
pages, clicks where an element is, types, takes pictures."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_program():
    """The path of a browser, or None."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


class Browser:
    """One page at a time; `problems` holds what went wrong in it, `requests` what it asked for."""

    def __init__(self, program, width=1400, height=900, patience=120):
        self.patience = patience
        self.folder = tempfile.mkdtemp()
        self.problems, self.requests, self.events = [], [], []
        self.buffer, self.number = b"", 0
        to_browser, self.out = os.pipe()
        self.into, from_browser = os.pipe()

        def join():
            # Both are moved out of the way first: either may be 3 or 4 already.
            here, there = os.dup(to_browser), os.dup(from_browser)
            while min(here, there) < 5:
                here, there = os.dup(here), os.dup(there)
            os.dup2(here, 3)
            os.dup2(there, 4)

        options = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
                   "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
                   f"--window-size={width},{height}", f"--user-data-dir={self.folder}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")
        self.process = subprocess.Popen([program, *options, "about:blank"], preexec_fn=join,
                                        close_fds=False, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"],
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- messages ----

    def read(self):
        """The next message, an answer or an event."""
        end = time.monotonic() + self.patience
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            bytes_ = os.read(self.into, 1 << 20)
            if not bytes_:
                raise OSError("the browser is gone")
            self.buffer += bytes_
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        method, params = event.get("method"), event.get("params", {})
        self.events.append(method)
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") != self.number:
                self.note(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            return answer["result"]

    # ---- pages ----

    def open(self, path, fragment=""):
        """Loads a file; returns seconds until its script is done."""
        self.problems.clear()
        self.requests.clear()
        self.events.clear()
        begin = time.monotonic()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url="file://" + os.path.abspath(path) + fragment)
        while self.value("document.body && document.body.dataset.ready") != "yes":
            if self.problems or time.monotonic() > begin + self.patience:
                break
            time.sleep(0.02)
        return time.monotonic() - begin

    def value(self, expression):
        """What a JavaScript expression gives."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def click(self, element):
        """Clicks in the middle of what a JavaScript expression gives, where it can be seen."""
        box = self.value(f"""(() => {{
            const e = {element};
            if (!e) return null;
            e.scrollIntoView({{block: 'nearest', inline: 'nearest'}});
            const b = e.getBoundingClientRect();
            return [b.left + Math.min(b.width / 2, 60), b.top + Math.min(b.height / 2, 12)];
        }})()""")
        if box is None:
            raise RuntimeError(f"there is no {element}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left",
                      clickCount=1)
        self.settle()

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            text = key if len(key) == 1 else "\r" if key == "Enter" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key,
                      **({"text": text} if kind == "keyDown" and text else {}))
        self.settle()

    def type(self, text):
        self.call("Input.insertText", text=text)
        self.settle()

    def settle(self):
        """Until what was done is drawn."""
        self.value("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")

    def picture(self, path):
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with open(path, "wb") as file:
            file.write(data)
        return data
