//! box with somebody at a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal of its own, and what it has shown.
pub struct AtTerminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// How much of it was waited for.
    seen: usize,
    slave: OwnedFd,
}

/// What of its streams are the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// All three.
    All,
    /// Standard input and standard error: what is written to the other is a result.
    WithoutOutput,
}

impl AtTerminal {
    /// Starts it; it is the foreground of the terminal, so that keys become signals.
    pub fn start(command: &Command, streams: Streams) -> Self {
        let size = Winsize {
            ws_row: 33,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        leader.stdin(end()).stderr(end());
        match streams {
            Streams::All => leader.stdout(end()),
            Streams::WithoutOutput => leader.stdout(Stdio::piped()),
        };
        let child = leader.spawn().unwrap();
        let keys = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut source, kept) = (keys.try_clone().unwrap(), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match source.read(&mut buffer) {
                    Ok(count) if count > 0 => kept.lock().unwrap().extend(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The last one who had it open is gone.
                    Ok(_) | Err(_) => return,
                }
            }
        });
        Self {
            child,
            keys,
            shown,
            reader: Some(reader),
            seen: 0,
            slave,
        }
    }

    /// Everything that was shown.
    pub fn shown(&self) -> String {
        super::text(&self.shown.lock().unwrap())
    }

    /// Waits until this is shown after what was waited for before; gives what was between.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = {
                let shown = self.shown.lock().unwrap();
                let rest = &shown[self.seen..];
                let at = rest
                    .windows(wanted.len())
                    .position(|part| part == wanted.as_bytes());
                at.map(|at| (super::text(&rest[..at]), self.seen + at + wanted.len()))
            };
            if let Some((between, seen)) = found {
                self.seen = seen;
                return between;
            }
            assert!(
                Instant::now() < deadline,
                "{wanted:?} does not come:\n{}",
                self.shown()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a busybox shell reads: then it asks the terminal where its cursor is.
    #[track_caller]
    pub fn prompt(&mut self) {
        self.expect("\x1b[6n");
    }

    /// Says a line to the shell that prompts there, and gives what it answers.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> String {
        self.prompt();
        // The mark is not in the line as it is typed, which is shown, too.
        self.press(&format!("{line}; echo 'end of '\"answer\"\n"));
        self.expect("\"answer\"");
        let answer = self.expect("end of answer\r\n");
        answer.strip_prefix("\r\n").unwrap_or(&answer).replace('\r', "")
    }

    /// Gives the terminal another size, as a window does.
    pub fn resize(&self, rows: u16, columns: u16) {
        let mut stty = Command::new("stty");
        stty.args(["rows", &rows.to_string(), "columns", &columns.to_string()]);
        let status = stty.stdin(self.slave.try_clone().unwrap()).status();
        assert!(status.unwrap().success());
    }

    /// The program's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether keys are shown and lines are edited, as on any terminal that nobody has to itself.
    pub fn is_calm(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// Waits for its end; gives how it ended, all that it showed, and what it wrote beside the terminal.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= deadline {
                self.child.kill().unwrap();
                panic!("it does not end:\n{}", self.shown());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(self.is_calm(), "the terminal is as it was before");
        let mut output = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut output).unwrap();
        }
        let (reader, shown) = (self.reader.take().unwrap(), self.shown.clone());
        // Its end of the terminal closes with the last of ours.
        drop(self);
        reader.join().unwrap();
        let shown = super::text(&shown.lock().unwrap());
        (status, shown, output)
    }
}

impl Drop for AtTerminal {
    /// A test that panics leaves nobody at the terminal. (Who has ended is not killed twice.)
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
