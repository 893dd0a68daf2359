#ifndef MS_ERRNO
#define MS_ERRNO
#include <vcruntime.h>
MS_BEGIN
int *_errno(void);
#define errno (*_errno())
#define EPERM 1
#define ENOENT 2
#define EINTR 4
#define EIO 5
#define EBADF 9
#define EAGAIN 11
#define ENOMEM 12
#define EACCES 13
#define EEXIST 17
#define ENOTDIR 20
#define EISDIR 21
#define EINVAL 22
#define EFBIG 27
#define ENOSPC 28
#define EROFS 30
#define EDOM 33
#define ERANGE 34
#define ENAMETOOLONG 38
#define ENOSYS 40
#define EWOULDBLOCK 140
MS_END
#endif
