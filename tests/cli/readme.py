"""The worked examples of tools/README.md: what they call, and what they say that it prints."""
import os
import re
import subprocess

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/README.md")


def example(command):
    """The call of the example that begins with `command`, and its lines."""
    with open(PAGE, encoding="utf-8") as f:
        lines = f.read().split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"    $ {command}"))
    call = lines[at][6:]
    while call.endswith("\\"):
        at += 1
        call = call[:-1] + lines[at].strip()
    end = at + 1
    while lines[end].startswith("    ") and not lines[end].startswith("    $ "):
        end += 1
    return call, [line[4:] for line in lines[at + 1:end]]


def problem(command, nibble, scratch):
    """Runs an example in `scratch`; "" when it prints what the page shows ("...": any lines)."""
    call, shown = example(command)
    models = os.path.join(os.path.dirname(PAGE), "../tests/models/sample")
    call = re.sub(r"^nibble ", f"'{nibble}' ", call).replace("tests/models/sample", models)
    found = subprocess.run(call, shell=True, cwd=scratch, capture_output=True, text=True,
                           check=False).stdout
    pattern = "".join("(.*\n)*" if line == "..." else re.escape(line) + "\n" for line in shown)
    return "" if re.fullmatch(pattern, found) else f"{call}\nprints\n{found}"
