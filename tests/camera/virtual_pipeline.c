/* What libcamera's virtual pipeline lacks where it is driven; preloaded by scripts/test-camera, and by nothing else.
 *
 * Buffers: libcamera makes a memfd, seals it, and asks /dev/udmabuf to wrap it as a DMA buffer; many kernels have
 * none. On the CPU a memfd can be mapped just like one, so the answer is a copy of its descriptor; and what is then
 * asked of a DMA buffer (to be synchronised, to be named) needs nothing to be done.
 *
 * Status: libcamera 0.4's virtual pipeline never says that a frame is well; picamera2 finds what the memory held
 * before, and throws most frames away. Memory that C++ objects are made in is therefore zero, which is "success".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* operator new(size_t); operator delete is free() all the same. */
void *_Znwm(size_t size)
{
	void *memory = calloc(1, size ? size : 1);
	if (!memory)
		abort();
	return memory;
}

static const char *instead_of(const char *path)
{
	return path && strcmp(path, "/dev/udmabuf") == 0 ? "/dev/zero" : path;
}

/* The mode is only there when a file may be made. */
#define MODE(flags)                                       \
	mode_t mode = 0;                                  \
	if ((flags) & (O_CREAT | __O_TMPFILE)) {          \
		va_list rest;                             \
		va_start(rest, flags);                    \
		mode = va_arg(rest, mode_t);              \
		va_end(rest);                             \
	}

int open(const char *path, int flags, ...)
{
	MODE(flags)
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	return next(instead_of(path), flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE(flags)
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
	return next(instead_of(path), flags, mode);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	va_start(rest, request);
	void *argument = va_arg(rest, void *);
	va_end(rest);

	if (request == UDMABUF_CREATE)
		return fcntl(((struct udmabuf_create *)argument)->memfd, F_DUPFD_CLOEXEC, 0);
	if (_IOC_TYPE(request) == DMA_BUF_BASE)
		return 0;
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, request, argument);
}
