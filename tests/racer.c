/* Exchanges pairs of names for ever: racer A B [A B]... */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
	for (;;)
		for (int i = 1; i + 1 < argc; i += 2)
			syscall(SYS_renameat2, AT_FDCWD, argv[i], AT_FDCWD, argv[i + 1], 2 /* RENAME_EXCHANGE */);
}
