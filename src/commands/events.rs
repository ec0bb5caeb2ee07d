//! `box events`: what happens, as it happens, and what has happened.

use std::time::Duration;

use super::ps::until;
use crate::app::App;
use crate::cli::{EventsArgs, Format};
use crate::clock::{now, timestamp};
use crate::error::{EXIT_BOX, Failure};
use crate::events::{Event, Kind};
use crate::ui;

/// How often is looked for more.
const TICK: Duration = Duration::from_millis(50);

/// Prints what fits, until a time that was named, or for ever.
pub(super) fn run(app: &App, args: &EventsArgs) -> Result<u8, Failure> {
    let time = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => until(text).map(Some).ok_or_else(|| {
            Failure::own(format!("{text:?} is no time"))
                .hint("write for example 10m, or 2026-01-31T12:00:00Z")
        }),
    };
    let (since, last) = (time(&args.since)?, time(&args.until)?);
    let filters = Filters::parse(&args.filters)?;
    // Without --since only what comes; with --until alone, all up to then.
    let since = since.or_else(|| last.is_none().then(now));
    let mut journal = app.store.journal();
    loop {
        // Asked before reading: what was noted by then is read.
        let is_over = last.is_some_and(|last| now() > last);
        while let Some(text) = journal.next_text().map_err(|e| Failure::of(EXIT_BOX, &e))? {
            // What another version wrote is left out.
            let Ok(event) = serde_json::from_slice::<Event>(&text) else {
                continue;
            };
            let is_in_time =
                since.is_none_or(|since| event.nanos >= since) && last.is_none_or(|last| event.nanos <= last);
            if is_in_time && filters.take(&event) {
                ui::result(&line(&event, args.format)?)?;
            }
        }
        if is_over {
            return Ok(0);
        }
        std::thread::sleep(TICK);
    }
}

/// In Docker's words; what the names of others may hold reaches no terminal as it is.
fn line(event: &Event, format: Format) -> Result<String, Failure> {
    if format == Format::Json {
        let text = serde_json::to_string(event).map_err(|e| Failure::of(EXIT_BOX, &e))?;
        return Ok(text + "\n");
    }
    let attributes = event.actor.attributes.iter();
    let attributes: Vec<String> = attributes
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!(
        "{} {} {} {} ({})",
        timestamp(event.nanos),
        event.kind.word(),
        event.action,
        event.actor.id,
        attributes.join(", ")
    );
    Ok(ui::human::printable(&text) + "\n")
}

/// Of several values of one name one must fit, of the names all.
#[derive(Debug, Default)]
struct Filters(Vec<(String, String)>);

impl Filters {
    const NAMES: [&str; 7] = [
        "container",
        "event",
        "image",
        "label",
        "network",
        "type",
        "volume",
    ];

    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match Self::NAMES.contains(&name) && !value.is_empty() {
                true => Ok((name.to_owned(), value.to_owned())),
                false => Err(Failure::own(format!("{text:?} is no filter")).hint(format!(
                    "write NAME=VALUE; the names are {}",
                    Self::NAMES.join(", ")
                ))),
            }
        };
        texts.iter().map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn take(&self, event: &Event) -> bool {
        Self::NAMES.iter().all(|name| {
            let mut values = self.0.iter().filter(|(filter, _)| filter == name).peekable();
            values.peek().is_none() || values.any(|(_, value)| fits(event, name, value))
        })
    }
}

fn fits(event: &Event, name: &str, value: &str) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    let is_called = |kind: Kind| {
        event.kind == kind && (event.actor.id.starts_with(value) || attribute("name") == Some(value))
    };
    match name {
        "type" => event.kind.word() == value,
        // As Docker has it: `health_status` stands for `health_status: healthy` too.
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "container" => is_called(Kind::Container),
        "volume" => is_called(Kind::Volume),
        "network" => is_called(Kind::Network),
        "image" => is_called(Kind::Image) || attribute("image") == Some(value),
        "label" => match value.split_once('=') {
            Some((label, wanted)) => attribute(label) == Some(wanted),
            None => attribute(value).is_some(),
        },
        _ => false,
    }
}
