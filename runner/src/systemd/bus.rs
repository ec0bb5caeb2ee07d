//! A connection to a message bus, for one call (D-Bus specification, "Authentication Protocol" and "Server Addresses").

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::message::{self, Call, FIXED, Message};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a line of the authentication.
const MAX_LINE: u64 = 4096;
/// Most messages that are read before the answer.
const MAX_OTHERS: u32 = 100;

/// Where a bus listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusAddress {
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in the abstract namespace.
    Abstract(Vec<u8>),
}

impl BusAddress {
    /// The first of the addresses (as in `DBUS_SESSION_BUS_ADDRESS`) that is a socket of this machine.
    pub fn parse(text: &str) -> Option<BusAddress> {
        text.split(';').find_map(|address| {
            let options = address.strip_prefix("unix:")?;
            options
                .split(',')
                .find_map(|option| match option.split_once('=')? {
                    ("path", value) => Some(BusAddress::Path(OsString::from_vec(unescape(value)?).into())),
                    ("abstract", value) => Some(BusAddress::Abstract(unescape(value)?)),
                    _ => None,
                })
        })
    }

    fn connect(&self) -> io::Result<UnixStream> {
        match self {
            BusAddress::Path(path) => UnixStream::connect(path),
            BusAddress::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        }
    }

    fn shown(&self) -> String {
        match self {
            BusAddress::Path(path) => path.display().to_string(),
            BusAddress::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// Bytes outside a small set are `%XX`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
        }
    }
    (!bytes.is_empty() && !bytes.contains(&0)).then_some(bytes)
}

/// An open connection.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// Connects as whoever the kernel says we are, and greets the bus. Nothing is waited for yet.
    pub(super) fn connect(address: &BusAddress) -> Result<Bus, String> {
        let failed = |e: io::Error| format!("systemd can't be asked for one: {}: {e}", address.shown());
        let stream = address.connect().map_err(failed)?;
        let limit = |set: fn(&UnixStream, Option<Duration>) -> io::Result<()>| set(&stream, Some(PATIENCE));
        limit(UnixStream::set_read_timeout).map_err(failed)?;
        limit(UnixStream::set_write_timeout).map_err(failed)?;
        let mut bus = Bus {
            stream: BufReader::new(stream),
            serial: 0,
        };
        // In a user namespace our own number of the user is not the bus': none is said, and it takes the kernel's.
        bus.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
            .map_err(failed)?;
        bus.authenticated().map_err(failed)?;
        bus.call(&Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            unit: "",
            properties: &[],
        })?;
        Ok(bus)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn authenticated(&mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line)?;
            match line.split(|byte| matches!(byte, b' ' | b'\r')).next() {
                Some(b"OK") => return Ok(()),
                Some(b"DATA") => {}
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "the bus did not let us in",
                    ));
                }
            }
        }
    }

    /// Calls a method and waits for its answer. An error is why not, in words for the user.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<(), String> {
        let failed = |e: io::Error| format!("systemd does not answer: {}: {e}", call.member);
        self.serial += 1;
        let ours = self.serial;
        self.write(&call.encode(ours)).map_err(failed)?;
        for _ in 0..MAX_OTHERS {
            match self.read().map_err(failed)? {
                Message::Done { serial } if serial == ours => return Ok(()),
                Message::Refused { serial, name, text } if serial == ours => {
                    return Err(format!("systemd refuses: {text} ({name})"));
                }
                _ => {}
            }
        }
        Err(failed(io::ErrorKind::InvalidData.into()))
    }

    fn read(&mut self) -> io::Result<Message> {
        let garbled = || io::Error::from(io::ErrorKind::InvalidData);
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed)?;
        let length = message::length(&fixed).ok_or_else(garbled)?;
        let mut bytes = vec![0; length];
        bytes[..FIXED].copy_from_slice(&fixed);
        self.stream.read_exact(&mut bytes[FIXED..])?;
        message::decode(&bytes).ok_or_else(garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn addresses() {
        let path = |text: &str| Some(BusAddress::Path(text.into()));
        let check = |text: &str, expected| assert_eq!(BusAddress::parse(text), expected, "{text:?}");
        check("unix:path=/run/user/1000/bus", path("/run/user/1000/bus"));
        check("unix:path=/a%20b,guid=00", path("/a b"));
        check("tcp:host=x,port=1;unix:guid=1,path=/c", path("/c"));
        check(
            "unix:abstract=/tmp/x",
            Some(BusAddress::Abstract(b"/tmp/x".to_vec())),
        );
        for bad in [
            "",
            "unix:",
            "unix:path=",
            "unix:path=%",
            "unix:path=%zz",
            "unix:path=%00",
            "path=/x",
            "unix:tmpdir=/tmp",
        ] {
            check(bad, None);
        }
    }

    /// What a bus of another mind says is an error in words, at once.
    #[test]
    fn strange_buses() {
        for said in [
            &b""[..],
            b"REJECTED EXTERNAL\r\n",
            b"OK 1\r\n",
            b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxxxx",
        ] {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("box-test-bus-{}-{number}", std::process::id()).into_bytes();
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
            let bus = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(said).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let refused = Bus::connect(&BusAddress::Abstract(name)).err().unwrap();
            assert!(refused.contains("systemd"), "{refused}");
            bus.join().unwrap();
        }
        let nowhere = Bus::connect(&BusAddress::Path("/nowhere/bus".into()));
        assert!(nowhere.err().unwrap().contains("/nowhere/bus"));
    }
}
