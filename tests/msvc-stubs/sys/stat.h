#ifndef MS_STAT
#define MS_STAT
#include <vcruntime.h>
MS_BEGIN
#define _S_IFMT 0xF000
#define _S_IFDIR 0x4000
#define _S_IFCHR 0x2000
#define _S_IFREG 0x8000
struct _stat64 {
    unsigned st_dev;
    unsigned short st_ino, st_mode;
    short st_nlink, st_uid, st_gid;
    unsigned st_rdev;
    long long st_size, st_atime, st_mtime, st_ctime;
};
int _wstat64(const wchar_t *path, struct _stat64 *s);
MS_END
#endif
