"""What libcamera's virtual pipeline lacks of a Raspberry Pi's camera, put under the real picamera2.

Importing this makes `picamera2.Picamera2` one that opens libcamera's virtual camera. That camera knows no raw
modes, gives NV12 where a Pi gives YUV420, and its buffers come from libcamera and not from the kernel's DMA
heaps; nothing else is changed, and nothing of trapsync. While the file SILENT is there nobody gets a frame, as
when a cable came loose.

As a program it is `trapsync`; the camera's process imports it again, and so meets the virtual camera too.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SILENT = Path("/tmp/silent")


class _AnyFormat(type):
    def __getattr__(cls, name: str) -> type:
        return cls


class PixelFormat(metaclass=_AnyFormat):
    """Every format that picamera2's preview on a screen would ask pykms for; there is no screen."""


if __name__ != "__main__":  # the daemon itself has no camera
    pykms = ModuleType("pykms")
    vars(pykms)["PixelFormat"] = PixelFormat
    sys.modules.setdefault("pykms", pykms)

    import libcamera
    import numpy
    import picamera2
    from picamera2.allocators import LibcameraAllocator
    from picamera2.allocators.allocator import Allocator
    from picamera2.request import Helpers

    class VirtualPicamera2(picamera2.Picamera2):  # type: ignore[misc] # it has no types
        """The real one, with what it would ask of a Pi answered by the virtual pipeline."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, allocator=Allocator(), **options)
            self.allocator = LibcameraAllocator(self.camera)

        def _get_raw_modes(self) -> list[dict[str, Any]]:
            still = self.camera.generate_configuration([libcamera.StreamRole.StillCapture]).at(0)
            return [{"format": str(still.pixel_format), "size": (still.size.width, still.size.height)}]

        def configure_(self, camera_config: Any) -> None:
            super().configure_(camera_config)
            self.camera_config["main"]["format"] = "YUV420"

        def capture_request_(self) -> tuple[bool, Any]:
            return (False, None) if SILENT.exists() else super().capture_request_()

    _make_array_shared = Helpers._make_array_shared

    def _as_yuv420(self: Any, buffer: Any, config: dict[str, Any]) -> Any:
        """NV12's one plane of both colours as YUV420's two."""
        width, height = config["size"]
        luma = width * height
        planar = numpy.empty(luma * 3 // 2, numpy.uint8)
        planar[:luma] = buffer[:luma]
        planar[luma : luma * 5 // 4] = buffer[luma : luma * 3 // 2 : 2]
        planar[luma * 5 // 4 :] = buffer[luma + 1 : luma * 3 // 2 : 2]
        return _make_array_shared(self, planar, config | {"stride": width})

    Helpers._make_array_shared = _as_yuv420
    picamera2.picamera2.DmaAllocator = Allocator  # what a closed camera leaves behind
    picamera2.Picamera2 = VirtualPicamera2


def make(settings: Any, device: str) -> Any:
    """What the camera's process is given in place of `cameras.make`, so that it imports this."""
    from trapsync import cameras

    return cameras.make(settings, device)


if __name__ == "__main__":
    from trapsync.cli import main

    main()
