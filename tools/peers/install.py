"""Gets the other systems that tools/bench measures, into build/peers, and builds their drivers.

Each is one row of SYSTEMS and one function; what cannot be had is said and left out.  Versions are
fixed, because the drivers declare the interfaces they call by themselves.
"""
import glob
import os
import platform
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(ROOT, "build", "peers")
HERE = os.path.dirname(os.path.abspath(__file__))
ARCH = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Missing(Exception):
    pass


def call(command, cwd=None):
    try:
        done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Missing(str(e)) from e
    if done.returncode:
        lines = [x for x in done.stdout.splitlines() if x.strip() and "warn" not in x.lower()]
        raise Missing(f"{command[0]}: {lines[0] if lines else 'failed'}")


def package(name, version):
    """The folder of an npm package, installed when it is not there."""
    folder = os.path.join(PEERS, "node_modules", name)
    if not os.path.isdir(folder):
        call(["npm", "install", "--prefix", PEERS, "--ignore-scripts", "--no-audit", "--no-fund",
              f"{name}@{version}"])
    return folder


def driver(name, *flags, more=()):
    """Builds tools/peers/NAME.c when it, a header or a file of `more` is newer than its program."""
    source, program = os.path.join(HERE, name + ".c"), os.path.join(PEERS, "bin", name)
    newest = max(map(os.path.getmtime, [source, *glob.glob(HERE + "/*.h"), *more]))
    if not os.path.exists(program) or os.path.getmtime(program) < newest:
        os.makedirs(os.path.dirname(program), exist_ok=True)
        call(["cc", "-std=c17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror",
              source, "-o", program, *flags])
    return program


def ort():
    folder = package("onnxruntime-node", "1.30.0")
    library = glob.glob(f"{folder}/bin/*/linux/{ARCH}/libonnxruntime.so.1")
    if not library:
        raise Missing(f"the package has no library for {ARCH}")
    return [driver("ort", "-ldl"), library[0]]


def llama_libraries():
    """The folder of llama.cpp's shared libraries."""
    folder = package(f"@node-llama-cpp/linux-{ARCH}", "3.22.1")
    libraries = glob.glob(f"{folder}/bins/*/libggml-base.so")
    if not libraries:
        raise Missing(f"the package has no library for {ARCH}")
    return os.path.dirname(libraries[0])


def llama():
    return [driver("llama", "-ldl"), llama_libraries()]


def dnnl():
    """Debian's packages, unpacked beside the others: nothing is installed into the system."""
    folder = os.path.join(PEERS, "dnnl")
    if not glob.glob(f"{folder}/usr/lib/*/libdnnl.so"):
        os.makedirs(folder, exist_ok=True)
        # With the OpenCL loader that it links to, whatever the system has of that name.
        call(["apt-get", "download", "libdnnl2", "libdnnl-dev", "ocl-icd-libopencl1"], folder)
        for deb in glob.glob(folder + "/*.deb"):
            call(["dpkg", "-x", deb, folder])
            os.remove(deb)
    libraries = glob.glob(f"{folder}/usr/lib/*/libdnnl.so")
    if not libraries:
        raise Missing("the package has no library")
    where = os.path.dirname(libraries[0])
    return [driver("dnnl", "-isystem", f"{folder}/usr/include", f"-L{where}",
                   f"-Wl,-rpath,{where},-rpath-link,{where},--disable-new-dtags", "-ldnnl")]


def compiled(runtime):
    """The driver of models compiled by Nibble, with its library."""
    return [driver("compiled", "-I", ROOT, runtime, "-pthread", "-ldl", more=[runtime])]


SYSTEMS = {"ort": ("onnxruntime", ort), "llama": ("llama.cpp", llama), "dnnl": ("oneDNN", dnnl)}


def install(wanted, say):
    """The command that starts each driver, by system; `say` hears what is missing."""
    os.makedirs(PEERS, exist_ok=True)
    out = {}
    for key in wanted:
        name, get = SYSTEMS[key]
        try:
            out[key] = get()
        except (Missing, OSError) as e:
            say(f"{name}: not measured: {e}")
    return out
