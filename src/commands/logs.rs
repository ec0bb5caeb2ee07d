//! `box logs`: what a container has printed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use super::ps::until;
use crate::app::App;
use crate::cli::LogsArgs;
use crate::containers;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::logs::{Entry, FILE, LogReader, LogStream};

/// How often is looked for more.
const TICK: Duration = Duration::from_millis(20);

/// Prints each stream where it belongs.
pub(super) fn run(app: &App, args: &LogsArgs) -> Result<u8, Failure> {
    let container = containers::find(app, &args.container)?;
    if container.config.log.none {
        return Err(Failure::new(
            EXIT_INPUT,
            "the container keeps no log (--log-driver none)",
        ));
    }
    let dir = app.store.container_dir(&container.id)?;
    if container.is_transient && container.state.is_active() && !dir.join(FILE).exists() {
        return Err(Failure::new(
            EXIT_INPUT,
            "the container runs in the foreground and is removed at its end (--rm): its output goes to its terminal and is not kept",
        ));
    }
    let wanted = Wanted::new(args)?;
    let failed =
        |e: io::Error| Failure::new(EXIT_BOX, format!("cannot read the log in {}: {e}", dir.display()));
    let mut reader = LogReader::open(&dir.join(FILE)).map_err(failed)?;
    let mut printer = Printer {
        timestamps: args.timestamps,
        in_line: [false; 2],
    };
    if let Some(lines) = wanted.lines {
        for entry in tail(&mut reader, lines, &wanted).map_err(failed)? {
            if printer.print(&entry).is_err() {
                return Ok(0);
            }
        }
    }
    loop {
        // Asked before reading: what was written by then is read.
        let goes_on = args.follow
            && containers::get(app, &container.id)?.is_some_and(|container| container.state.is_active());
        while let Some(entry) = reader.next().map_err(failed)? {
            if wanted.is_after(&entry) {
                return Ok(0);
            }
            // Who has read enough closes the pipe.
            if wanted.takes(&entry) && printer.print(&entry).is_err() {
                return Ok(0);
            }
        }
        if !goes_on {
            return Ok(0);
        }
        std::thread::sleep(TICK);
    }
}

/// Which entries.
struct Wanted {
    since: Option<i64>,
    until: Option<i64>,
    lines: Option<usize>,
}

impl Wanted {
    fn new(args: &LogsArgs) -> Result<Self, Failure> {
        let time = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => until(text).map(Some).ok_or_else(|| {
                Failure::own(format!("{text:?} is no time"))
                    .hint("write for example 10m, or 2026-01-31T12:00:00Z")
            }),
        };
        let lines = match args.tail.as_str() {
            "all" | "-1" => None,
            text => Some(text.parse().map_err(|_| {
                Failure::own(format!("{text:?} is no number of lines")).hint("write a number, or all")
            })?),
        };
        Ok(Self {
            since: time(&args.since)?,
            until: time(&args.until)?,
            lines,
        })
    }

    fn takes(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.nanos() >= since) && !self.is_after(entry)
    }

    fn is_after(&self, entry: &Entry) -> bool {
        self.until.is_some_and(|until| entry.nanos() > until)
    }
}

/// The last lines of what is there.
fn tail(reader: &mut LogReader, lines: usize, wanted: &Wanted) -> io::Result<VecDeque<Entry>> {
    let mut kept: VecDeque<Entry> = VecDeque::new();
    let mut ends = 0;
    while let Some(entry) = reader.next()? {
        if !wanted.takes(&entry) {
            continue;
        }
        ends += usize::from(entry.is_end);
        kept.push_back(entry);
        // A line that has not ended counts, too.
        let open = usize::from(kept.back().is_some_and(|last| !last.is_end));
        while ends + open > lines {
            let Some(first) = kept.pop_front() else { break };
            ends -= usize::from(first.is_end);
        }
    }
    Ok(kept)
}

struct Printer {
    timestamps: bool,
    /// Whether a part of a line was printed last, of each stream.
    in_line: [bool; 2],
}

impl Printer {
    fn print(&mut self, entry: &Entry) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entry.content.len() + 40);
        let in_line = &mut self.in_line[entry.stream as usize];
        if self.timestamps && !*in_line {
            bytes.extend_from_slice(entry.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&entry.content);
        bytes.extend(entry.is_end.then_some(b'\n'));
        *in_line = !entry.is_end;
        match entry.stream {
            LogStream::Stdout => write(io::stdout(), &bytes),
            LogStream::Stderr => write(io::stderr(), &bytes),
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
