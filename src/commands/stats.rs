//! `box stats` and `box top`: what containers use, and their processes.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stop::running;
use crate::app::App;
use crate::cli::{Format, StatsArgs, TopArgs};
use crate::containers::{self, Container};
use crate::error::{EXIT_INPUT, Failure};
use crate::monitor::{Figures, Process, Reply, Request};
use crate::ui::{self, human, table};

/// Time between two looks, by which the share of the processor is known.
const PERIOD: Duration = Duration::from_millis(500);
const TO_THE_TOP: &str = "\u{1b}[H\u{1b}[J";

/// Prints what each uses, again and again.
pub(super) fn run(app: &App, args: &StatsArgs) -> Result<u8, Failure> {
    let named = chosen(app, args)?;
    let mut last = look(app, &named)?;
    let is_live = !args.no_stream && args.format == Format::Table && std::io::stdout().is_terminal();
    loop {
        std::thread::sleep(PERIOD);
        let named = chosen(app, args)?;
        let now = look(app, &named)?;
        let rows: Vec<Row> = now
            .iter()
            .map(|seen| {
                Row::new(
                    seen,
                    last.iter()
                        .find(|before| before.container.id == seen.container.id),
                )
            })
            .collect();
        match args.format {
            Format::Json => ui::json(&rows.iter().map(Row::object).collect())?,
            Format::Table => {
                let cells: Vec<_> = rows.iter().map(|row| row.cells(args.no_trunc)).collect();
                let headings = [
                    "CONTAINER ID",
                    "NAME",
                    "CPU %",
                    "MEM USAGE / LIMIT",
                    "MEM %",
                    "NET I/O",
                    "BLOCK I/O",
                    "PIDS",
                ];
                let text = table::render(&headings, &cells);
                ui::result(&format!("{}{text}", if is_live { TO_THE_TOP } else { "" }))?;
            }
        }
        if args.no_stream {
            return Ok(0);
        }
        last = now;
    }
}

/// Those that are asked for, else all that run.
fn chosen(app: &App, args: &StatsArgs) -> Result<Vec<Container>, Failure> {
    if args.containers.is_empty() {
        let mut all = containers::list(app)?;
        all.retain(|container| container.state.is_active());
        return Ok(all);
    }
    args.containers
        .iter()
        .map(|name| containers::find(app, name))
        .collect()
}

/// One that was looked at.
struct Seen {
    container: Container,
    figures: Figures,
    at: Instant,
}

fn look(app: &App, chosen: &[Container]) -> Result<Vec<Seen>, Failure> {
    let mut seen = Vec::new();
    for container in chosen {
        let figures = match running(app, container, &Request::Stats) {
            Ok(Reply::Stats(figures)) => figures,
            // It does not run, or ended meanwhile: it uses nothing.
            Ok(_) => Figures::default(),
            Err(failure) if failure.code == EXIT_INPUT => Figures::default(),
            Err(failure) => return Err(failure),
        };
        seen.push(Seen {
            container: container.clone(),
            figures,
            at: Instant::now(),
        });
    }
    Ok(seen)
}

/// What is shown of one.
struct Row<'a> {
    seen: &'a Seen,
    /// Hundredths of one processor.
    cpu: f64,
}

impl<'a> Row<'a> {
    fn new(seen: &'a Seen, before: Option<&Seen>) -> Self {
        let cpu = before.map_or(0.0, |before| {
            let used = seen.figures.cpu.saturating_sub(before.figures.cpu) as f64;
            let passed = seen.at.duration_since(before.at).as_nanos() as f64;
            if passed > 0.0 { 100.0 * used / passed } else { 0.0 }
        });
        Self { seen, cpu }
    }

    fn share(&self) -> Option<f64> {
        let figures = &self.seen.figures;
        Some(100.0 * figures.memory? as f64 / figures.memory_limit? as f64)
    }

    fn cells(&self, whole: bool) -> Vec<String> {
        let Seen {
            container, figures, ..
        } = self.seen;
        let pair = |pair: Option<(u64, u64)>| match pair {
            Some((one, two)) => format!("{} / {}", human::bytes(one), human::bytes(two)),
            None => "-".to_owned(),
        };
        let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), human::bytes);
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}%"));
        vec![
            if whole {
                container.id.clone()
            } else {
                container.short_id().to_owned()
            },
            container.config.name.clone(),
            format!("{:.2}%", self.cpu),
            format!("{} / {}", bytes(figures.memory), bytes(figures.memory_limit)),
            percent(self.share()),
            pair(figures.net),
            pair(figures.io),
            figures
                .pids
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
        ]
    }

    fn object(&self) -> Value {
        let Seen {
            container, figures, ..
        } = self.seen;
        json!({
            "Id": container.id,
            "Name": container.config.name,
            "CpuPercent": self.cpu,
            "CpuNanoseconds": figures.cpu,
            "Memory": figures.memory,
            "MemoryLimit": figures.memory_limit,
            "MemoryPercent": self.share(),
            "NetworkReceived": figures.net.map(|(received, _)| received),
            "NetworkSent": figures.net.map(|(_, sent)| sent),
            "BlockRead": figures.io.map(|(read, _)| read),
            "BlockWritten": figures.io.map(|(_, written)| written),
            "Pids": figures.pids,
        })
    }
}

/// Prints the processes.
pub(super) fn top(app: &App, args: &TopArgs) -> Result<u8, Failure> {
    let container = containers::find(app, &args.container)?;
    let processes = match running(app, &container, &Request::Top)? {
        Reply::Top(processes) => processes,
        _ => return Err(Failure::own("whoever runs the container gave another answer")),
    };
    let time = |milliseconds: u64| {
        let seconds = milliseconds / 1000;
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    };
    let object = |process: &Process| {
        json!({
            "Pid": process.pid, "ParentPid": process.parent, "Uid": process.uid,
            "CpuMilliseconds": process.cpu, "Command": process.command,
        })
    };
    match args.format {
        Format::Json => ui::json(&processes.iter().map(object).collect())?,
        Format::Table => {
            let row = |process: &Process| {
                vec![
                    process.uid.to_string(),
                    process.pid.to_string(),
                    process.parent.to_string(),
                    time(process.cpu),
                    process.command.clone(),
                ]
            };
            let rows: Vec<_> = processes.iter().map(row).collect();
            ui::result(&table::render(&["UID", "PID", "PPID", "TIME", "CMD"], &rows))?;
        }
    }
    Ok(0)
}
