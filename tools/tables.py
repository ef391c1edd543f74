"""What scripts that measure and write tables share: Markdown, and what was measured where."""
import os
import platform
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def markdown(head, rows):
    """The lines of a table; all columns but the first are numbers."""
    return ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|",
            *("| " + " | ".join(row) + " |" for row in rows)]


def cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            lines = dict(line.split(":", 1) for line in f.read().split("\n\n")[0].splitlines())
    except (OSError, ValueError):
        return platform.machine()
    about = {k.strip(): v.strip() for k, v in lines.items()}
    flags = about.get("flags", about.get("Features", "")).split()
    wanted = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "asimddp", "i8mm")
    name = about.get("model name", platform.machine())
    if "cpu family" in about:
        name += f" (family {about['cpu family']}, model {about.get('model', '?')})"
    return f"{name} with {' '.join(f for f in wanted if f in flags) or 'no vector extension'}"


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip() or "unknown"


def data_folder():
    return os.environ.get("NIBBLE_DATA", os.path.join(ROOT, "..", "shared", "data"))
