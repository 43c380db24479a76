"""JPEG files: their structure, metadata, small copies, and the examination of a new one.

structure    the segments before the picture data, the size of the picture
scan         the picture data itself: cut off, overwritten or whole
exif/        EXIF read and written, without a change to the picture
thumbnail    small copies by libvips
examination  everything that is done to a new file, in an examiner process
"""
