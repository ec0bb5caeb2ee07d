//! The tests' other side: the program that is started as the containers' init, and, inside a
//! container, one that tries what must be refused. Prints `name=result` lines.
#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod outside;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn main() {
    box_runner::init_main_if_requested();
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match args.as_slice() {
        ["syscalls"] => syscalls(),
        ["i386-syscalls"] => i386_syscalls(),
        ["write-self"] => write_self(),
        ["fds"] => fds(),
        ["open-for-writing", paths @ ..] => paths.iter().for_each(|p| open_for_writing(p)),
        ["node", paths @ ..] => paths.iter().for_each(|p| node(p)),
        ["eat", mebibytes] => eat(mebibytes.parse().unwrap()),
        ["fork-bomb"] => fork_bomb(),
        ["euid"] => println!("euid={}", unsafe { libc::geteuid() }),
        ["orphans"] => orphans(),
        ["rlimit"] => rlimits(),
        ["hello"] => hello(),
        ["outside", rest @ ..] => outside::main(rest),
        other => panic!("no such probe: {other:?}"),
    }
}

/// Says hello to whoever connects to port 80, by TCP, or sends to port 53, by UDP.
fn hello() {
    use std::io::Write;
    use std::net::{TcpListener, UdpSocket};
    let listener = TcpListener::bind("[::]:80")
        .or_else(|_| TcpListener::bind("0.0.0.0:80"))
        .unwrap();
    let socket = UdpSocket::bind("[::]:53")
        .or_else(|_| UdpSocket::bind("0.0.0.0:53"))
        .unwrap();
    std::thread::spawn(move || {
        loop {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            let _ = socket.send_to(b"hello\n", from);
        }
    });
    for stream in listener.incoming() {
        let _ = stream.unwrap().write_all(b"hello\n");
    }
}

fn tell(name: &str, result: libc::c_long) {
    let text = match result {
        -1 => io::Error::last_os_error()
            .raw_os_error()
            .map_or("?".into(), |e| format!("errno {e}")),
        _ => "ALLOWED".to_owned(),
    };
    println!("{name}={text}");
}

/// Calls that must be refused, each so that it would do something if it were let through.
fn syscalls() {
    const HIGH: libc::c_long = 1 << 32;
    let null = std::ptr::null::<libc::c_char>();
    unsafe {
        let flags = libc::MS_BIND;
        let root = c"/".as_ptr();
        tell(
            "mount",
            libc::syscall(libc::SYS_mount, root, c"/tmp".as_ptr(), null, flags, null),
        );
        tell(
            "umount",
            libc::syscall(libc::SYS_umount2, c"/proc/sys".as_ptr(), libc::MNT_DETACH),
        );
        tell("pivot_root", libc::syscall(libc::SYS_pivot_root, root, root));
        tell(
            "open_tree",
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, root, 1),
        );
        tell(
            "unshare-user",
            libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
        );
        tell(
            "unshare-mount",
            libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS),
        );
        tell(
            "clone-user",
            libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0),
        );
        tell("setns", libc::syscall(libc::SYS_setns, 0, 0));
        tell("keyctl", libc::syscall(libc::SYS_keyctl, 0, -3, 0));
        tell(
            "add_key",
            libc::syscall(libc::SYS_add_key, null, null, null, 0, 0),
        );
        tell("bpf", libc::syscall(libc::SYS_bpf, 0, null, 0));
        tell("io_uring_setup", libc::syscall(libc::SYS_io_uring_setup, 1, null));
        tell(
            "perf_event_open",
            libc::syscall(libc::SYS_perf_event_open, null, 0, 0, -1, 0),
        );
        tell("userfaultfd", libc::syscall(libc::SYS_userfaultfd, 0));
        tell("kexec_load", libc::syscall(libc::SYS_kexec_load, 0, 0, null, 0));
        tell(
            "mknod-block",
            libc::mknod(c"/tmp/b".as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(254, 0)).into(),
        );
        tell(
            "socket-vsock",
            libc::syscall(libc::SYS_socket, 40, libc::SOCK_STREAM, 0),
        );
        tell(
            "socket-vsock-high",
            libc::syscall(libc::SYS_socket, HIGH | 40, libc::SOCK_STREAM, 0),
        );
        tell(
            "socket-alg",
            libc::syscall(libc::SYS_socket, 38, libc::SOCK_SEQPACKET, 0),
        );
        tell("clone3", libc::syscall(libc::SYS_clone3, null, 0));
        tell("x32-getpid", libc::syscall(0x4000_0000 | libc::SYS_getpid));
        tell("sethostname", libc::sethostname(c"x".as_ptr(), 1).into());
        tell("reboot", libc::syscall(libc::SYS_reboot, 0, 0, 0, 0));
        tell("swapon", libc::syscall(libc::SYS_swapon, null, 0));
        tell("init_module", libc::syscall(libc::SYS_init_module, null, 0, null));
    }
}

/// A call by i386's gate, which this program can use as it is.
fn int80(number: i64, arg: i64) -> i64 {
    let result: i64;
    unsafe {
        std::arch::asm!(
            "xchg rbx, {arg}", "int 0x80", "xchg rbx, {arg}",
            arg = inout(reg) arg => _,
            inlateout("rax") number => result,
            in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result as i32)
}

fn i386_syscalls() {
    for (name, number, arg) in [
        ("getpid", 20, 0),
        ("mount", 21, 0),
        ("socketcall", 102, 1),
        ("unshare", 310, 0x1000_0000),
        ("socket-vsock", 359, 40),
        ("bpf", 357, 0),
    ] {
        println!("{name}={}", int80(number, arg));
    }
}

fn write_self() {
    for path in ["/proc/self/exe", "/proc/1/exe"] {
        open_for_writing(path);
    }
}

fn open_for_writing(path: &str) {
    match OpenOptions::new().write(true).open(path) {
        Ok(_) => println!("{path}=WRITABLE"),
        Err(e) => println!("{path}=errno {}", e.raw_os_error().unwrap_or(0)),
    }
}

fn fds() {
    for fd in 0..4096 {
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            println!("{fd}");
        }
    }
}

fn node(path: &str) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = if meta.file_type().is_char_device() {
        "char"
    } else {
        "other"
    };
    println!(
        "{path}={kind} {}:{}",
        libc::major(meta.rdev()),
        libc::minor(meta.rdev())
    );
}

fn eat(mebibytes: usize) {
    let mut eaten = Vec::new();
    for _ in 0..mebibytes {
        eaten.push(vec![1u8; 1 << 20]);
    }
    println!("ate={}", eaten.len());
}

fn fork_bomb() {
    let mut started = 0;
    for _ in 0..5000 {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            loop {
                unsafe { libc::pause() };
            }
        }
        if pid < 0 {
            break;
        }
        started += 1;
    }
    println!("started={started}");
}

/// Leaves grandchildren that end after their parents, then counts zombies.
fn orphans() {
    for _ in 0..5 {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            if unsafe { libc::fork() } == 0 {
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
            unsafe { libc::_exit(0) };
        }
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let zombies = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
        .filter(|s| s.contains(") Z "))
        .count();
    println!("zombies={zombies}");
}

fn rlimits() {
    for (name, resource) in [("core", libc::RLIMIT_CORE), ("nofile", libc::RLIMIT_NOFILE)] {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        println!("{name}={}:{}", limit.rlim_cur, limit.rlim_max);
    }
}
