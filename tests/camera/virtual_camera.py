"""What libcamera's virtual pipeline lacks of a Raspberry Pi's camera, put under the real picamera2.

Imported in place of a camera: `import virtual_camera` makes `picamera2.Picamera2` one that opens libcamera's
virtual camera. That camera knows no raw modes, gives NV12 where a Pi gives YUV420, and its buffers come from
libcamera and not from the kernel's DMA heaps; nothing else is changed.
"""

import sys
from types import ModuleType
from typing import Any


class _AnyFormat(type):
    def __getattr__(cls, name: str) -> type:
        return cls


class PixelFormat(metaclass=_AnyFormat):
    """Every format that picamera2's preview on a screen would ask pykms for; there is no screen."""


pykms = ModuleType("pykms")
vars(pykms)["PixelFormat"] = PixelFormat
sys.modules.setdefault("pykms", pykms)

import libcamera  # noqa: E402
import numpy  # noqa: E402
import picamera2  # noqa: E402
import picamera2.picamera2 as module  # noqa: E402
from picamera2.allocators import LibcameraAllocator  # noqa: E402
from picamera2.allocators.allocator import Allocator  # noqa: E402
from picamera2.request import Helpers  # noqa: E402


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


_make_array_shared = Helpers._make_array_shared


def _deinterleaved(self: Any, buffer: Any, config: dict[str, Any]) -> Any:
    """NV12's one plane of both colours as YUV420's two."""
    width, height = config["size"]
    luma = width * height
    planar = numpy.empty(luma * 3 // 2, numpy.uint8)
    planar[:luma] = buffer[:luma]
    planar[luma : luma * 5 // 4] = buffer[luma : luma * 3 // 2 : 2]
    planar[luma * 5 // 4 :] = buffer[luma + 1 : luma * 3 // 2 : 2]
    return _make_array_shared(self, planar, config | {"stride": width})


Helpers._make_array_shared = _deinterleaved
module.DmaAllocator = Allocator  # close() leaves an unused one behind
picamera2.Picamera2 = VirtualPicamera2
