//! An ordinary user's way out: `pasta`, which carries the traffic of a network namespace by sockets of the host.
//!
//! Lifecycle: a process of ours is the first of a pid namespace. It starts `pasta`, which goes to the background there once all
//! is set up, and stays until our end of its control socket is closed, however that comes. With it the kernel ends
//! everything in the pid namespace, so that no `pasta` outlives its container.

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::inside::INTERFACE;
use super::ports::{self, MappedPort, PortRequest, Protocol};
use crate::error::{Result, RunnerError};
use crate::rootless::find_tool;
use crate::sys::{self, ExecStrings};

/// The first argument that makes a program of this library the keeper of a `pasta`.
pub(crate) const HIDDEN_ARGUMENT: &str = "__box_pasta";
/// Where the container reaches the host's resolver, also one on the host's loopback.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Descriptors of the keeper, after the standard streams.
const CONTROL: i32 = 3;
const NAMESPACE: i32 = 4;
/// What the keeper says when all is set up.
const READY: u8 = b'r';
/// Most bytes of a message of `pasta`'s that are read.
const MAX_MESSAGE: u64 = 4096;

/// A `pasta` at work; dropping it ends it.
#[derive(Debug)]
pub(super) struct Pasta {
    keeper: i32,
    control: UnixStream,
}

/// Starts one for the namespace; its traffic can flow when this returns.
pub(super) fn start(
    program: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    requests: &[PortRequest],
) -> Result<(Pasta, Vec<MappedPort>)> {
    let tool = find_tool("pasta", "passt").map_err(|_| RunnerError::NoPasta)?;
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| RunnerError::NoTun { source })?;
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    // Held until just before pasta takes them: a port in use is told by number.
    let reserved = ports::reserve(requests, has_ipv6)?;
    let mapped = reserved.ports.clone();
    let mut args = vec![
        OsString::from("box"),
        HIDDEN_ARGUMENT.into(),
        tool.into_os_string(),
    ];
    args.extend(options(requests, &mapped).into_iter().map(OsString::from));
    drop(reserved);
    let starting = |e: io::Error| RunnerError::os("start pasta", e);
    let (mut pasta, said) = spawn(program, namespace, &args).map_err(starting)?;
    let mut answer = [0];
    if matches!(pasta.control.read(&mut answer), Ok(1)) && answer == [READY] {
        return Ok((pasta, mapped));
    }
    let mut text = Vec::new();
    // Its own words are better than none, also when they are cut short.
    let _ = said.take(MAX_MESSAGE).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.contains("syslog"))
        .collect();
    let said = if lines.is_empty() {
        "(nothing)".into()
    } else {
        lines.join("; ")
    };
    Err(RunnerError::Pasta { said })
}

fn spawn(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>, args: &[OsString]) -> io::Result<(Pasta, File)> {
    let args: Vec<CString> = args
        .iter()
        .map(|a| CString::new(a.as_bytes()))
        .collect::<std::result::Result<_, _>>()?;
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let (control, theirs) = UnixStream::pair()?;
    let (said, says) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let fds = [
        null.as_raw_fd(),
        says.as_raw_fd(),
        says.as_raw_fd(),
        theirs.as_raw_fd(),
        namespace.as_raw_fd(),
    ];
    let (keeper, _) = sys::spawn(&sys::Program {
        file: program,
        args: &ExecStrings::new(&args),
        env: &ExecStrings::new(&[]),
        fds: &fds,
        namespaces: libc::CLONE_NEWPID,
    })?;
    Ok((Pasta { keeper, control }, said.into()))
}

/// What it is told; the namespace comes last.
fn options(requests: &[PortRequest], mapped: &[MappedPort]) -> Vec<String> {
    let mut options: Vec<String> = [
        "--config-net",
        "--quiet",
        "--stderr",
        "--ns-ifname",
        INTERFACE,
        // Services of the host's loopback are not the container's.
        "--no-map-gw",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        "--no-netns-quit",
        "--dns-forward",
        &RESOLVER.to_string(),
    ]
    .map(str::to_owned)
    .into();
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let specs = specs(requests, mapped, protocol);
        for spec in specs {
            options.extend([option.to_owned(), spec]);
        }
    }
    options.push("--netns".to_owned());
    options
}

fn specs(requests: &[PortRequest], mapped: &[MappedPort], protocol: Protocol) -> Vec<String> {
    let mut specs: Vec<String> = Vec::new();
    for port in mapped.iter().filter(|port| port.protocol == protocol) {
        // Without an address it is at every one of both kinds.
        let is_both = requests.iter().any(|request| {
            request.address.is_none() && request.container == port.container && port.address.is_unspecified()
        });
        let ports = format!("{}:{}", port.host, port.container);
        let spec = match port.address {
            _ if is_both => ports,
            IpAddr::V4(v4) => format!("{v4}/{ports}"),
            IpAddr::V6(v6) => format!("{v6}/{ports}"),
        };
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    if specs.is_empty() {
        // Otherwise it looks for itself what the container listens to.
        specs.push("none".to_owned());
    }
    specs
}

impl Drop for Pasta {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        // When this returns, its whole pid namespace is gone.
        let _ = sys::wait_for(self.keeper, false);
    }
}

/// The keeper: `arguments` are pasta's path and its options.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> i32 {
    let (Ok(control), Ok(namespace)) = (sys::inherited_fd(CONTROL), sys::inherited_fd(NAMESPACE)) else {
        return 125;
    };
    match keep(UnixStream::from(control), arguments) {
        Ok(()) => {
            drop(namespace);
            0
        }
        Err(e) => {
            // The other end of this pipe is read when the word that all is ready does not come.
            let _ = writeln!(io::stderr(), "{e}");
            125
        }
    }
}

fn keep(mut control: UnixStream, arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    // By the number that this process has outside its pid namespace, as /proc shows it.
    let own = fs::read_link("/proc/self")?;
    let namespace = format!("/proc/{}/fd/{NAMESPACE}", own.display());
    let mut args: Vec<CString> = arguments
        .chain([OsString::from(namespace)])
        .map(|a| CString::new(a.into_vec()))
        .collect::<std::result::Result<_, _>>()?;
    if args.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = std::mem::replace(&mut args[0], CString::new("pasta")?);
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let Some(pasta) = sys::fork()? else {
        drop(go);
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut [0]));
        sys::reset_signals();
        let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
        let error = sys::exec(&path, &ExecStrings::new(&args), &ExecStrings::new(&[]));
        let _ = writeln!(io::stderr(), "{}: {error}", path.to_string_lossy());
        sys::exit_now(127)
    };
    // It gives up rights of its own before it opens our descriptor, which only somebody with ours may do.
    sys::set_caps(0)?;
    drop(go);
    // It is in the background once all is set up.
    match sys::wait_for(pasta, false)? {
        Some(ended) if ended.status == 0 => {}
        _ => return Err(io::Error::other("it could not be started")),
    }
    control.write_all(&[READY])?;
    // Nobody ever writes: it ends when the other side does.
    let _ = control.read(&mut [0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ports::HostPort;
    use super::*;

    #[test]
    fn ports_as_pasta_takes_them() {
        let request = |address: Option<&str>, host, container| PortRequest {
            address: address.map(|a| a.parse().unwrap()),
            host: HostPort::Exactly(host),
            container,
            protocol: Protocol::Tcp,
        };
        let mapped = |address: &str, host, container| MappedPort {
            address: address.parse().unwrap(),
            host,
            container,
            protocol: Protocol::Tcp,
        };
        let requests = [request(None, 8080, 80), request(Some("127.0.0.1"), 81, 81)];
        let all = [
            mapped("0.0.0.0", 8080, 80),
            mapped("::", 8080, 80),
            mapped("127.0.0.1", 81, 81),
        ];
        assert_eq!(
            specs(&requests, &all, Protocol::Tcp),
            ["8080:80", "127.0.0.1/81:81"]
        );
        assert_eq!(specs(&requests, &all, Protocol::Udp), ["none"]);
        let options = options(&requests, &all).join(" ");
        let expect = "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/81:81 --udp-ports none --netns";
        assert!(options.ends_with(expect), "{options}");
    }
}
