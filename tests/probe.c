// What a process in a container can do: prints one line per attempt, "name ok" or "name ERRNO".
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *name, long result) {
	printf("%s %s\n", name, result >= 0 ? "ok" : strerrorname_np(errno));
	fflush(stdout);
}

int main(void) {
	const long high = 1L << 40;
	say("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
	say("umount", syscall(SYS_umount2, "/proc", 2));
	say("pivot_root", syscall(SYS_pivot_root, ".", "."));
	say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	say("open_tree", syscall(SYS_open_tree, -100, "/", 1));
	say("unshare-user", syscall(SYS_unshare, 0x10000000));
	say("unshare-mount", syscall(SYS_unshare, 0x00020000));
	say("clone-user", syscall(SYS_clone, 0x10000000 | 17, 0, 0, 0, 0));
	say("clone3", syscall(SYS_clone3, 0, 0));
	say("keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
	say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
	say("bpf", syscall(SYS_bpf, 0, 0, 0));
	say("io_uring_setup", syscall(SYS_io_uring_setup, 1, 0));
	say("perf_event_open", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
	say("ptrace-1", syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0));
	say("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
	say("init_module", syscall(SYS_init_module, 0, 0, ""));
	say("userfaultfd", syscall(SYS_userfaultfd, 0));
	say("vsock", syscall(SYS_socket, 40, 1, 0));
	say("vsock-high", syscall(SYS_socket, 40 | high, 1, 0));
	say("alg-socket", syscall(SYS_socket, 38, 5, 0));
	say("inet-socket", syscall(SYS_socket, 2, 1, 0));
	say("unknown-call", syscall(100000));
	say("write-proc-sys", open("/proc/sys/kernel/core_pattern", O_WRONLY));
	say("write-sysrq", open("/proc/sysrq-trigger", O_WRONLY));
	say("kcore", open("/proc/kcore", O_RDONLY) >= 0 && lseek(3, 0, SEEK_END) > 0 ? 0 : (errno = ENODATA, -1));
	say("mknod", syscall(SYS_mknod, "/tmp/null", 0020666, 0x103));
	say("chroot", syscall(SYS_chroot, "/"));
	say("open_by_handle_at", syscall(SYS_open_by_handle_at, 3, "", 0));

	DIR *fds = opendir("/proc/self/fd");
	for (struct dirent *e; (e = readdir(fds));) {
		int fd = atoi(e->d_name);
		if (e->d_name[0] != '.' && fd > 2 && fd != dirfd(fds)) {
			char path[64], target[4096] = "";
			snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
			if (readlink(path, target, sizeof target - 1) < 0) strcpy(target, "?");
			if (strcmp(target, "/proc/kcore") != 0 && strcmp(target, "/dev/null") != 0 && strncmp(target, "socket:", 7) != 0)
				printf("leaked %d %s\n", fd, target);
		}
	}
	return 0;
}
