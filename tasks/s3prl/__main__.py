"""`python -m tasks.s3prl MODULE ...`: a module of s3prl with the arguments that s3prl documents.

python -m tasks.s3prl run_downstream -m train -u bench_local -k MODEL -d example -n try
"""

from __future__ import annotations

import os
import runpy
import sys


def main(arguments: list[str]) -> None:
    """Run the module as a script in this process, on torch 2.11 and with our encoders."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit(f"expected a module of s3prl, such as run_downstream\n{__doc__}")
    device = _device(arguments)
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # s3prl would look for its device there
    from tasks.s3prl import shim

    shim.install(device)
    module = arguments[0].removesuffix(".py").replace("/", ".")
    sys.argv = arguments
    runpy.run_module(f"s3prl.{module}", run_name="__main__", alter_sys=True)


def _device(arguments: list[str]) -> str:
    """What --device says; cuda, as s3prl has it, where it says nothing."""
    for place, argument in enumerate(arguments):
        if argument.startswith("--device="):
            return argument.partition("=")[2]
        if argument == "--device" and place + 1 < len(arguments):
            return arguments[place + 1]
    return "cuda"


if __name__ == "__main__":
    main(sys.argv[1:])
