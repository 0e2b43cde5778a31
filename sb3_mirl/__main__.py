"""
The command ``sb3-mirl``, same as ``python -m sb3_mirl``: ``gridworld``, ``bench``, ``inspect``, ``prior`` and ``export-onnx``
are ours, all others are rl-zoo3's.
"""

import sys

from sb3_mirl.pipes import quiet_without_reader


@quiet_without_reader
def main(arguments: list[str] | None = None) -> int:
    """
    The command ``sb3-mirl``. Each part is imported when it is called for: ours do not need rl-zoo3.

    :param arguments: without the program's name; by default those of the process
    :return: exit status
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["gridworld"]:
        from sb3_mirl.benchmark.gridworld import main as gridworld

        return gridworld(arguments[1:])
    if arguments[:1] == ["bench"]:
        from sb3_mirl.benchmark.run import main as bench

        return bench(arguments[1:])
    if arguments[:1] == ["inspect"]:
        from sb3_mirl.model_file import inspect_main

        return inspect_main(arguments[1:])
    if arguments[:1] == ["prior"]:
        from sb3_mirl.prior import main as prior

        return prior(arguments[1:])
    if arguments[:1] == ["export-onnx"]:
        from sb3_mirl.model_file import onnx_main

        return onnx_main(arguments[1:])
    from sb3_mirl.zoo import main as zoo

    return zoo(arguments)


if __name__ == "__main__":
    sys.exit(main())
