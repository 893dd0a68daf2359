#ifndef MS_IO
#define MS_IO
#include <vcruntime.h>
#include <stdint.h>
MS_BEGIN
int _open_osfhandle(intptr_t handle, int flags);
intptr_t _get_osfhandle(int fd);
int _commit(int fd);
int _close(int fd);
int _isatty(int fd);
int _waccess(const wchar_t *path, int how);
int _setmode(int fd, int mode);
int _chsize(int fd, long size);
MS_END
#endif
