"""Runs drivers and Nibble in turn: all are set up first, then each has its turn in every round, so
that a machine whose speed drifts is as fair to one as to the other."""
import json
import os
import signal
import statistics
import subprocess
import sys


class Failed(Exception):
    pass


def said(text):
    """The line of a program's messages that says most: its first error, or else its last line."""
    lines = [x.strip() for x in text.splitlines() if x.strip()] or ["no message"]
    return next((x for x in lines if "error" in x), lines[-1])


class Driver:
    """A program of tools/peers that is set up and waits for its turns.

    It is stopped between them: threads that wait for work by spinning would take processors from
    the others."""

    def __init__(self, command, threads):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        try:
            # A session of its own: schedulers may share processors out by session.
            self.process = subprocess.Popen(
                [str(x) for x in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        except OSError as e:
            raise Failed(str(e)) from e
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            raise Failed(self.close())
        self.text = line[len("ready"):].strip()
        self.process.send_signal(signal.SIGSTOP)

    def turn(self):
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write("turn\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise Failed(self.close())
        self.process.send_signal(signal.SIGSTOP)
        return [float(x) for x in line.split()]

    def close(self):
        """Ends the driver; what it said."""
        self.process.send_signal(signal.SIGCONT)
        try:
            return said(self.process.communicate(timeout=20)[1] or "")
        except (subprocess.TimeoutExpired, ValueError, OSError):
            self.process.kill()
            return "no message"


class Program:
    """A program that answers in JSON, a process for each turn; `figures` takes what is wanted."""

    text = ""

    def __init__(self, command, figures):
        self.command, self.figures = [str(x) for x in command], figures

    def turn(self):
        done = subprocess.run(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, check=False, start_new_session=True)
        try:
            if done.returncode:
                raise Failed(said(done.stderr))
            return self.figures(json.loads(done.stdout))
        except (ValueError, KeyError, TypeError) as e:
            raise Failed(f"unexpected answer {done.stdout.strip()!r}") from e

    def close(self):
        return ""


_SPIN = """
import time
end, before = time.monotonic() + 0.3, time.process_time()
while time.monotonic() < end: pass
print((time.process_time() - before) / 0.3)
"""


def free_processors(n):
    """How much of `n` processors `n` busy threads get now: n when nothing else runs."""
    busy = [subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE, text=True,
                             start_new_session=True) for _ in range(n)]
    return sum(float(p.communicate()[0]) for p in busy)


def take(contenders, rounds, say):
    """Starts and runs what `contenders` lists, pairs of a name and a function that makes it.

    Returns {name: one list of figures for each round}.  What fails is said and left out.
    """
    alive, out = {}, {}
    try:
        for name, make in contenders:
            try:
                alive[name] = make()
                out[name] = []
            except Failed as e:
                say(f"{name}: not measured: {e}")
        for _ in range(rounds):
            for name in list(alive):
                try:
                    out[name].append(alive[name].turn())
                except Failed as e:
                    say(f"{name}: not measured: {e}")
                    alive.pop(name).close()
                    del out[name]
    finally:
        for running in alive.values():
            running.close()
    return out


def median(rounds, which=0):
    return statistics.median(r[which] for r in rounds)


def ratio(above, below, which=0):
    """Median over rounds of one contender's figure divided by another's of the same round."""
    return statistics.median(a[which] / b[which] for a, b in zip(above, below))
