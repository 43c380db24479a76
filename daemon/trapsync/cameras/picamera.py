"""The Raspberry Pi's own camera: the one door to picamera2, and through it to libcamera.

picamera2 comes from the system (`apt install python3-picamera2`), bound to the system's libcamera, so it is
imported only when a camera is opened. It is configured once: to configure or open again leaks contiguous
memory (picamera2 issues 887, 1125, 1130); to stop and start it does not. The encoder's own EXIF is thrown away
later, by `exif.embed_metadata`: it is written from the local clock, and its `Make` is one that the Sticky Pi server
fails on.

It needs picamera2 0.3.26 (February 2025) or later: older ones cannot make a JPEG of YUV420, and those before
0.3.20 cannot give up a wait.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from trapsync.cameras import NOT_INSTALLED, Frame, frames_at_most
from trapsync.cameras.controls import Box, Size, controls, mode, size
from trapsync.cameras.flash import Flash
from trapsync.errors import CameraError, DamagedImage
from trapsync.jpeg import structure
from trapsync.settings.schema import Camera as CameraSettings

_NOT_FOUND = "no camera found: check the cable and its direction, then run `rpicam-hello --list-cameras`"
_BUSY = "another program holds the camera: stop it (`sudo fuser -v /dev/media*` shows which)"
_SILENT = "the camera gave no picture in time: check the cable and the power supply"
_OLD = "run `sudo apt full-upgrade`"
_NO_FOCUS = "the autofocus found nothing sharp: is the lens clean? A fixed camera.lens_position is surer"

# Parts of `camera.timeout`: together less than all of it, so that the reason is known before the end.
_PART_FOR_FOCUS, _PART_FOR_FRAME, _PART_FOR_STOP = 0.4, 0.4, 0.5

T = TypeVar("T")


class Picamera:
    """The first camera that libcamera knows, set up for stills.

    While it runs its exposure and white balance keep settled, so that a picture is one frame away; `rest` stops
    it until the next. `sleep` is how settling is waited for.
    """

    def __init__(self, settings: CameraSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._flash = Flash(settings.flash, sleep)
        self._camera: Any = None
        self._model = ""
        self._is_running = False
        self._remark: str | None = None

    def open(self) -> None:
        """Claim the camera and configure it, once; it does not run yet."""
        kind = _picamera2()
        self._flash.open()
        try:
            with _explained("the camera cannot be opened"):
                if not kind.global_camera_info():
                    raise CameraError(_NOT_FOUND)
                self._camera = kind()
            with _explained("the camera cannot be set up"):
                self._configure()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Lit by the flash, running, its exposure settled, and focused: what takes its time, and is no picture."""
        self._remark = None
        with self._flash.lit():
            self._run()
            self._focus()
            yield

    def capture(self, moment: datetime) -> Frame:
        """Take the next whole frame; `moment` is not needed, for what is seen is seen now."""
        self._run()
        with _explained("the camera gave no picture"):
            request = self._next_request()
            self._flash.off()  # before the frame is turned into a JPEG, which takes a second on a small Pi
            # The pixels and what is said of them come from one request; it must go back, or the camera,
            # which has this one buffer, never gives another.
            try:
                metadata = request.get_metadata()
                picture = io.BytesIO()
                request.save("main", picture, format="jpeg")
            finally:
                request.release()
        return self._frame(picture.getvalue(), metadata)

    def rest(self) -> None:
        """Stop the sensor until the next picture, and keep its configuration."""
        if self._is_running:
            self._is_running = False
            with _explained("the camera cannot be stopped"):
                # As its own stop() does it; but that one would wait for ever.
                job = self._camera.dispatch_functions([self._camera.stop_], wait=False, immediate=True)
                self._waited_for(job, _PART_FOR_STOP * self._settings.timeout)

    def close(self) -> None:
        """Let the camera go, whatever state it is in."""
        camera, self._camera = self._camera, None
        self._is_running = False
        with suppress(Exception):
            self._flash.close()
        if camera is not None:
            with suppress(Exception):
                camera.cancel_all_and_flush()  # or close() would wait for a frame that never comes
            with suppress(Exception):
                camera.close()

    def _configure(self) -> None:
        import libcamera

        camera, settings = self._camera, self._settings
        self._model = str(camera.camera_properties.get("Model") or "unknown")
        turned = settings.rotation == 180
        # One buffer, of the format that a JPEG is made from: half the contiguous memory of RGB, and quicker.
        # No raw stream: nobody looks at it.
        configuration = camera.create_still_configuration(
            main={"size": size(settings), "format": "YUV420"},
            raw=None,
            buffer_count=1,
            transform=libcamera.Transform(hflip=turned, vflip=turned),
            sensor=self._mode(libcamera),
        )
        camera.configure(configuration)
        camera.options["quality"] = settings.quality
        # Only a configured camera knows how much of its sensor this mode can show, and how long it can expose.
        controls(settings, camera.camera_controls, _whole_field(camera))

    def _mode(self, libcamera: Any) -> dict[str, Size]:
        """The sensor's mode; nothing for a camera on USB, whose sensor is its own business."""
        camera = self._camera
        if "ColorFilterArrangement" not in camera.camera_properties:
            return {}
        # picamera2's own list of modes would have to be made by configuring each.
        formats = camera.camera.generate_configuration([libcamera.StreamRole.Raw]).at(0).formats
        sizes = {(at.width, at.height) for kind in formats.pixel_formats for at in formats.sizes(kind)}
        return {"output_size": mode(self._settings, camera.sensor_resolution, sizes)}

    def _run(self) -> None:
        """Start it if it rests, and give it `camera.warm_up` to find its exposure again."""
        if self._camera is None:
            raise CameraError("the camera is not open")
        if self._is_running:
            return
        camera, settings = self._camera, self._settings
        with _explained("the camera cannot be started"):
            # With each start: picamera2 forgets the controls once it has sent them.
            configured = camera.camera_configuration()["controls"]
            own = controls(settings, camera.camera_controls, _whole_field(camera))
            camera.set_controls(configured | own)
            self._is_running = True
            camera.start(show_preview=False)
        self._sleep(float(settings.warm_up))

    def _focus(self) -> None:
        """Have the lens look for the focus, where there is one with a motor; a picture out of focus is one, too."""
        if self._settings.lens_position != "auto" or "AfMode" not in self._camera.camera_controls:
            return
        self._remark = _NO_FOCUS
        with _explained("the camera cannot focus"), suppress(CameraError):
            job = self._camera.autofocus_cycle(wait=False)
            if self._waited_for(job, _PART_FOR_FOCUS * self._settings.timeout):
                self._remark = None

    def _next_request(self) -> Any:
        """The next frame that the sensor finishes: with one buffer none can be left over from before.

        By flash it is the next one that it begins; a camera on USB does not say when that was. It is waited
        for a little less than the caller does, so that the reason is known.
        """
        settings = self._settings
        begins_now = self._flash.is_set and "ExposureTime" in self._camera.camera_controls
        job = self._camera.capture_request(wait=False, flush=True if begins_now else None)
        seconds = _PART_FOR_FRAME * settings.timeout + frames_at_most(settings) * settings.exposure
        return self._waited_for(job, seconds)

    def _waited_for(self, job: Any, seconds: float) -> Any:
        """What a job comes to. CameraError when it does not come in time.

        A frame that came after that would be handed to nobody and keep the buffer: the job is taken back.
        """
        try:
            return job.get_result(timeout=float(seconds))
        except TimeoutError:
            self._camera.cancel_all_and_flush()
            raise CameraError(_SILENT) from None

    def _frame(self, content: bytes, metadata: dict[str, Any]) -> Frame:
        try:
            header = structure.header(content)
        except DamagedImage as error:
            raise CameraError(f"the camera's picture is no JPEG: {error}") from None
        return Frame(
            jpeg=content,
            width=header.width,
            height=header.height,
            model=self._model,
            exposure=_seconds(metadata.get("ExposureTime")),
            gain=_product(metadata.get("AnalogueGain"), metadata.get("DigitalGain")),
            lens_position=_number(metadata.get("LensPosition")),
            remark=self._remark,
        )


def _picamera2() -> Any:
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        # libcamera's bindings are built for the system's Python alone; say which of them is missing.
        raise CameraError(f"{NOT_INSTALLED} ({error})") from None
    return Picamera2


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever picamera2 raises (RuntimeError, ValueError, TypeError, KeyError ...) becomes one line."""
    try:
        yield
    except CameraError:
        raise
    except Exception as error:
        raise CameraError(f"{what}: {_advice(error)}") from error


def _advice(error: BaseException) -> str:
    """What to do, by the words of the error or of what caused it; picamera2 wraps the true one twice."""
    words = []
    cause: BaseException | None = error
    while cause is not None:
        words.append(" ".join(str(cause).split()) or type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    text = " / ".join(words).lower()
    if isinstance(error, TypeError) or "not supported for pil" in text:
        return f"this picamera2 is too old ({words[0]}): {_OLD}"
    if "busy" in text or "acquire" in text:
        return f"{_BUSY} ({words[-1]})"
    if any(words in text for words in ("not found", "no camera number", "list index out of range")):
        return _NOT_FOUND
    if "permission denied" in text:
        return "no permission: run scripts/install once more, which adds the daemon's user to the group video"
    if "cannot allocate memory" in text:
        return f"no contiguous memory left ({words[-1]}): lower camera.resolution, or reboot"
    return f"{words[0]}; see `rpicam-hello --list-cameras` for what this camera can do"


def _whole_field(camera: Any) -> Box:
    """What the sensor shows in this mode: libcamera's property, or the bounds of the control."""
    field = camera.camera_properties.get("ScalerCropMaximum")
    if not field or not field[2]:
        field = camera.camera_controls.get("ScalerCrop", (None, (0, 0, 0, 0)))[1]
    left, top, width, height = field
    return left, top, width, height


def _seconds(microseconds: object) -> float | None:
    number = _number(microseconds)
    return None if number is None else number / 1e6


def _product(*factors: object) -> float | None:
    """The gain: analogue times digital; a missing digital one is 1."""
    numbers = [number for number in map(_number, factors) if number is not None]
    return numbers[0] * numbers[1] if len(numbers) == 2 else numbers[0] if numbers else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
