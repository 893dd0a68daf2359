#ifndef MS_SIGNAL
#define MS_SIGNAL
#include <vcruntime.h>
MS_BEGIN
typedef int sig_atomic_t;
typedef void (*MS_HANDLER)(int);
#define SIG_DFL ((MS_HANDLER)0)
#define SIG_IGN ((MS_HANDLER)1)
#define SIGINT 2
#define SIGABRT 22
#define SIGTERM 15
#define SIGBREAK 21
MS_HANDLER signal(int number, MS_HANDLER handler);
MS_END
#endif
