"""What is changed in rl-zoo3's ``record-training`` and ``record-video``, and why."""

import argparse
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from sb3_mirl.zoo.runs import CommandError
from sb3_mirl.zoo.workarounds import replaced

VIDEO_SUFFIXES = (".mp4", ".gif")


@contextmanager
def recordings_elsewhere(options: argparse.Namespace) -> Iterator[None]:
    """
    ``record_training`` of rl-zoo3 2.9.2 empties its output folder, and passes its name to the shell without quotes. Let it
    record into a new folder, and then move the videos.

    :param options: this context sets ``recording_folder``; the parser sets ``video_folder``, the folder for the videos
    :raises CommandError: if ffmpeg fails
    """
    with tempfile.TemporaryDirectory(prefix="sb3-mirl-") as folder:
        if shlex.quote(folder) != folder:
            raise CommandError(f"TMPDIR must be a folder whose name the shell does not split, got {os.path.dirname(folder)!r}")
        options.recording_folder = folder
        try:
            yield
            if not Path(folder, "training.mp4").exists():
                raise FileNotFoundError("training.mp4")
        except FileNotFoundError as error:
            raise CommandError(f"ffmpeg could not write a video: see its messages above ({error})") from error
        finally:
            # Also those of an interrupted command
            _move_videos(Path(folder), Path(getattr(options, "video_folder", folder)))


def _move_videos(recorded: Path, target: Path) -> None:
    videos = [file for file in recorded.iterdir() if file.suffix in VIDEO_SUFFIXES and "_with_text" not in file.stem]
    if not videos or target == recorded:
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in videos:
        shutil.move(file, target / file.name)
    print(f"The videos are in {target}" if target / "training.mp4" in target.iterdir() else f"Single videos are in {target}")


def checkpoints_once() -> AbstractContextManager[None]:
    """
    ``record_training`` of rl-zoo3 2.9.2 takes each file ``rl_model_*`` for a model, but our checkpoints have several files.
    Hide all but those that ``--load-checkpoint`` finds.
    """
    scandir = os.scandir

    class Entries(closing[Any]):
        def __init__(self, *path: Any) -> None:
            self.entries = scandir(*path)
            super().__init__(self.entries)

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return (entry for entry in self.entries if re.match(r"(?!rl_model_)|rl_model_\d+_steps\.zip$", entry.name))

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

    return replaced(os, scandir=Entries)


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
    SDL warns of a missing display, and before Gymnasium 1.4 of a missing sound card. Frames of a video need neither: without
    a display, use SDL's ``dummy`` drivers.
    moviepy draws a progress bar for each video even into files: draw bars only on a terminal.
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
