//! The calls Docker's default profile lets through, as numbers of both architectures.

/// Numbers of calls on x86-64 and on i386.
pub(super) struct Calls {
    pub(super) x86_64: &'static [u32],
    pub(super) x86: &'static [u32],
}

macro_rules! calls {
    (both: $($both:ident)*; x86_64: $($long:ident)*; x86: $($short:ident)*;) => {
        Calls {
            x86_64: &[
                $(syscalls::x86_64::Sysno::$both as u32,)* $(syscalls::x86_64::Sysno::$long as u32,)*
            ],
            x86: &[$(syscalls::x86::Sysno::$both as u32,)* $(syscalls::x86::Sysno::$short as u32,)*],
        }
    };
}

/// Let through whatever the arguments and capabilities.
pub(super) const ALWAYS: Calls = calls! {
    both:
        accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
        clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect
        copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
        epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
        fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
        fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
        futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area
        getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid
        getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
        getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
        inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
        io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
        landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat
        llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create
        memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl
        msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep open openat
        openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
        ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev
        pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom
        recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
        restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
        sched_yield seccomp select semctl semget sendfile sendmmsg sendmsg sendto set_robust_list
        set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
        setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat
        shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs
        statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
        timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
        timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat
        utimes vfork vmsplice wait4 waitid write writev;
    x86_64:
        accept epoll_ctl_old epoll_wait_old newfstatat semop semtimedop uretprobe;
    x86:
        _llseek _newselect chown32 clock_adjtime64 clock_getres_time64 clock_gettime64
        clock_nanosleep_time64 fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftruncate64
        futex_time64 getegid32 geteuid32 getgid32 getgroups32 getresgid32 getresuid32 getuid32
        io_pgetevents_time64 ipc lchown32 lstat64 mmap2 mq_timedreceive_time64 mq_timedsend_time64
        ppoll_time64 pselect6_time64 recvmmsg_time64 rt_sigtimedwait_time64 sched_rr_get_interval_time64
        semtimedop_time64 sendfile64 setfsgid32 setfsuid32 setgid32 setgroups32 setregid32 setresgid32
        setresuid32 setreuid32 setuid32 sigprocmask sigreturn socketcall stat64 statfs64 timer_gettime64
        timer_settime64 timerfd_gettime64 timerfd_settime64 truncate64 ugetrlimit utimensat_time64
        waitpid;
};

/// Let through when the container has the capability.
pub(super) const WITH_CAPABILITY: &[(&str, Calls)] = &[
    (
        "DAC_READ_SEARCH",
        calls! { both: open_by_handle_at; x86_64:; x86:; },
    ),
    (
        "SYS_ADMIN",
        calls! {
            both:
                bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
                lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree
                perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2
                unshare;
            x86_64: ;
            x86: umount;
        },
    ),
    ("SYS_BOOT", calls! { both: reboot; x86_64:; x86:; }),
    ("SYS_CHROOT", calls! { both: chroot; x86_64:; x86:; }),
    (
        "SYS_MODULE",
        calls! { both: delete_module init_module finit_module; x86_64:; x86:; },
    ),
    ("SYS_PACCT", calls! { both: acct; x86_64:; x86:; }),
    (
        "SYS_PTRACE",
        calls! {
            both:
                kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace;
            x86_64: ;
            x86: ;
        },
    ),
    ("SYS_RAWIO", calls! { both: iopl ioperm; x86_64:; x86:; }),
    (
        "SYS_TIME",
        calls! { both: settimeofday clock_settime; x86_64:; x86: stime clock_settime64; },
    ),
    ("SYS_TTY_CONFIG", calls! { both: vhangup; x86_64:; x86:; }),
    (
        "SYS_NICE",
        calls! {
            both:
                get_mempolicy mbind set_mempolicy set_mempolicy_home_node;
            x86_64: ;
            x86: ;
        },
    ),
    ("SYSLOG", calls! { both: syslog; x86_64:; x86:; }),
    ("BPF", calls! { both: bpf; x86_64:; x86:; }),
    ("PERFMON", calls! { both: perf_event_open; x86_64:; x86:; }),
];
