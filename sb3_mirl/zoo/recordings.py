"""What is changed in rl-zoo3's ``record-training`` and ``record-video``, and why."""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sb3_mirl.zoo.runs import CommandError
from sb3_mirl.zoo.workarounds import replaced, shown_entries

VIDEO_SUFFIXES = (".mp4", ".gif")


@contextmanager
def recordings_elsewhere(options: argparse.Namespace) -> Iterator[None]:
    """
    ``record_training`` of rl-zoo3 2.9.2 empties its output folder, and passes its name to the shell without quotes. Let it
    record into a new folder, and then move the videos.

    :param options: gets ``recording_folder``; has ``video_folder``, where the videos are to be, after the parsing
    :raises CommandError: if there is no video of the training
    """
    with tempfile.TemporaryDirectory(prefix="sb3-mirl-") as folder:
        options.recording_folder = folder
        yield
        videos = [file for file in Path(folder).iterdir() if file.suffix in VIDEO_SUFFIXES]
        if "training.mp4" not in [file.name for file in videos]:
            raise CommandError("ffmpeg could not join the videos to training.mp4: see its messages above")
        target = Path(options.video_folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in videos:
            shutil.move(file, target / file.name)
        print(f"The videos are in {target}")


def checkpoints_once() -> AbstractContextManager[None]:
    """
    ``record_training`` of rl-zoo3 2.9.2 takes each file ``rl_model_*`` for a model, but our checkpoints have several files.
    Hide all but those that ``--load-checkpoint`` finds.
    """
    return shown_entries(lambda name: re.match(r"(?!rl_model_)|rl_model_\d+_steps\.zip$", name) is not None)


@contextmanager
def ffmpeg_on_path() -> Iterator[None]:
    """
    ``record_training`` of rl-zoo3 2.9.2 calls ``ffmpeg``, which it does not declare. If the machine has none, use the one of
    imageio-ffmpeg.
    """
    if shutil.which("ffmpeg"):
        yield
        return
    import imageio_ffmpeg  # installed with moviepy

    path = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), Path(folder, "ffmpeg"))
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
        try:
            yield
        finally:
            os.environ["PATH"] = path


@contextmanager
def videos_on_servers() -> Iterator[None]:
    """
    SDL complains of a missing display, and before Gymnasium 1.4 of a missing sound card, which frames of a video do not need:
    use its ``dummy`` drivers where there is no display.
    moviepy draws a bar for each video wherever it writes: only on a terminal.
    """
    from moviepy.video.VideoClip import VideoClip

    write = VideoClip.write_videofile

    def write_videofile(clip: Any, *args: Any, **kwargs: Any) -> Any:
        return write(clip, *args, **(kwargs if sys.stderr.isatty() else {**kwargs, "logger": None}))

    drivers = () if os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"} else ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER")
    missing = [name for name in drivers if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, "dummy"))
    try:
        with replaced(VideoClip, write_videofile=write_videofile):
            yield
    finally:
        for name in missing:
            del os.environ[name]
