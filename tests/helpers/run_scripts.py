"""
Runs scripts in child processes that have loaded torch and SB3 already: run as a script, it reads one JSON object a line, with
``script``, ``arguments``, ``folder``, ``stdout`` and ``stderr`` (files), and prints the exit status of each.

A script is run as ``python script arguments`` runs it, in a process of its own; none of this package is loaded before.
"""

import importlib
import json
import os
import runpy
import sys
import warnings

# Third-party packages that take seconds to import
LIBRARIES = [
    "torch",
    "torch._inductor",
    "torch.fx.experimental.proxy_tensor",
    "stable_baselines3",
    "scipy.stats",
    "tensorboard.backend.event_processing.event_accumulator",
    "matplotlib.pyplot",
]


def run(script: str, arguments: list[str], folder: str, stdout: str, stderr: str, caught: list) -> None:
    """In the child: replaces what belongs to this process and runs the script."""
    for path, mode, descriptor in ((os.devnull, "rb", 0), (stdout, "wb", 1), (stderr, "wb", 2)):
        with open(path, mode) as file:
            os.dup2(file.fileno(), descriptor)
    for warning in caught:  # of the libraries, as if they were imported now
        warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    os.chdir(folder)
    sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    with warnings.catch_warnings(record=True) as caught:
        for name in LIBRARIES:
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line), caught=caught)
            return  # the interpreter ends as usual; an exception or sys.exit() in the script ends it before
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main()
