//! `box ps`: which containers there are.

use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Format, PsArgs};
use crate::clock::timestamp;
use crate::containers::{self, Container, Status, now};
use crate::error::Failure;
use crate::ui::{self, human, table};
use crate::values::GoDuration;

const SECOND: i64 = 1_000_000_000;
/// How much of a command is shown.
const COMMAND_WIDTH: usize = 30;

/// Lists containers, the newest first.
pub(super) fn run(app: &App, args: &PsArgs) -> Result<u8, Failure> {
    let known = ["id", "name", "label", "status", "exited", "ancestor", "health"];
    let filters = Filters::parse(&args.filter, &known)?;
    let mut all = containers::list(app)?;
    let asks_status = args
        .filter
        .iter()
        .any(|filter| filter.starts_with("status=") || filter.starts_with("exited="));
    if !args.all && !args.latest && args.last.is_none() && !asks_status {
        all.retain(|container| container.state.is_active());
    }
    all.retain(|container| filters.take(container));
    if let Some(count) = args.last.or(args.latest.then_some(1)) {
        all.truncate(count);
    }
    let id = |container: &Container| match args.no_trunc {
        true => container.id.clone(),
        false => container.short_id().to_owned(),
    };
    if args.quiet {
        ui::result(
            &all.iter()
                .map(|container| id(container) + "\n")
                .collect::<String>(),
        )?;
        return Ok(0);
    }
    match args.format {
        Format::Json => ui::json(&all.iter().map(object).collect())?,
        Format::Table => {
            let row = |container: &Container| {
                vec![
                    id(container),
                    container.config.image.clone(),
                    command(container, args.no_trunc),
                    human::ago((now() - container.config.created) / SECOND),
                    status(container),
                    ports(container),
                    container.config.name.clone(),
                ]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            let headings = [
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "PORTS",
                "NAMES",
            ];
            ui::result(&table::render(&headings, &rows))?;
        }
    }
    Ok(0)
}

fn command(container: &Container, whole: bool) -> String {
    let words = container.config.args.iter().map(|word| word.to_string_lossy());
    let command = words.collect::<Vec<_>>().join(" ");
    match whole {
        true => command,
        false => human::truncate(&command, COMMAND_WIDTH),
    }
}

/// In words, as Docker has them.
pub(super) fn status(container: &Container) -> String {
    let state = &container.state;
    let since = |time: i64| human::ago((now() - time) / SECOND);
    let up = || {
        let text = since(state.started);
        format!(
            "Up {}",
            text.trim_end_matches(" ago")
                .replace("just now", "less than a second")
        )
    };
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match &state.health {
            Some(health) => format!("{} ({})", up(), health.status.word()),
            None => up(),
        },
        Status::Paused => format!("{} (paused)", up()),
        Status::Restarting => format!("Restarting ({}) {}", state.exit_code, since(state.finished)),
        Status::Exited if state.finished == 0 => format!("Exited ({})", state.exit_code),
        Status::Exited => format!("Exited ({}) {}", state.exit_code, since(state.finished)),
    }
}

/// The ports of the host that lead to it while it runs.
fn ports(container: &Container) -> String {
    let network = container
        .state
        .network
        .as_ref()
        .filter(|_| container.state.is_active());
    let ports = network.iter().flat_map(|network| &network.ports);
    ports.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn object(container: &Container) -> Value {
    json!({
        "Id": container.id,
        "Names": container.config.name,
        "Image": container.config.image,
        "ImageId": container.config.image_id,
        "Command": command(container, true),
        "CreatedAt": timestamp(container.config.created),
        "State": container.state.status.word(),
        "Status": status(container),
        "ExitCode": container.state.exit_code,
        "Pid": container.state.pid,
        "Labels": container.config.labels,
        "Ports": ports(container),
    })
}

/// `--filter`: every name must fit, and one of the values of each.
pub(super) struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Each one understood or refused.
    pub(super) fn parse(given: &[String], known: &[&str]) -> Result<Self, Failure> {
        let mut filters: Vec<(String, Vec<String>)> = Vec::new();
        for text in given {
            let split = text.split_once('=').filter(|(name, _)| known.contains(name));
            let Some((name, value)) = split else {
                return Err(Failure::own(format!("the filter {text:?} is not understood"))
                    .hint(format!("write {}=VALUE", known.join("=VALUE, "))));
            };
            let word_of = |words: &[&str]| words.contains(&value);
            let is_good = match name {
                "status" => word_of(&["created", "running", "paused", "restarting", "exited", "dead"]),
                "health" => word_of(&["starting", "healthy", "unhealthy", "none"]),
                "exited" => value.parse::<i32>().is_ok(),
                "until" => until(value).is_some(),
                _ => true,
            };
            if !is_good {
                return Err(Failure::own(format!(
                    "the filter {text:?} is not understood: it can't have that value"
                )));
            }
            match filters.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value.to_owned()),
                None => filters.push((name.to_owned(), vec![value.to_owned()])),
            }
        }
        Ok(Self(filters))
    }

    /// Whether it is one of those.
    pub(super) fn take(&self, container: &Container) -> bool {
        self.0
            .iter()
            .all(|(name, values)| values.iter().any(|value| fits(container, name, value)))
    }
}

fn fits(container: &Container, name: &str, value: &str) -> bool {
    let (config, state) = (&container.config, &container.state);
    match name {
        "id" => container.id.starts_with(value),
        "name" => config.name.contains(value),
        "label" => match value.split_once('=') {
            Some((label, value)) => config.labels.get(label).is_some_and(|has| has == value),
            None => config.labels.contains_key(value),
        },
        "status" => state.status.word() == value,
        "exited" => state.status == Status::Exited && state.exit_code.to_string() == value,
        "ancestor" => {
            let id = config.image_id.trim_start_matches("sha256:");
            config.image == value
                || config.image.strip_suffix(":latest") == Some(value)
                || id.starts_with(value)
        }
        "health" => {
            state
                .health
                .as_ref()
                .map_or("none", |health| health.status.word())
                == value
        }
        "until" => until(value).is_some_and(|until| config.created < until),
        _ => false,
    }
}

/// A time, in nanoseconds since 1970, or a while before now.
pub(super) fn until(text: &str) -> Option<i64> {
    if let Ok(GoDuration(nanos)) = text.parse() {
        return now().checked_sub(i64::try_from(nanos).ok()?);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Some((seconds * 1e9) as i64);
    }
    let time = text.parse::<jiff::Timestamp>();
    // Without a zone it is UTC, which is all a program without a table of zones can know.
    let time = time.or_else(|_| format!("{text}Z").parse::<jiff::Timestamp>());
    let time = time.or_else(|_| format!("{text}T00:00:00Z").parse::<jiff::Timestamp>());
    i64::try_from(time.ok()?.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(until("1970-01-01T00:00:01Z"), Some(SECOND));
        assert_eq!(until("1970-01-02"), Some(86_400 * SECOND));
        assert_eq!(until("1.5"), Some(1_500_000_000));
        assert!(until("1h").is_some_and(|time| time < now()));
        assert_eq!(until("soon"), None);
    }

    #[test]
    fn filters_are_understood_or_refused() {
        let parse = |text: &str| Filters::parse(&[text.to_owned()], &["status", "exited"]);
        assert!(parse("status=running").is_ok());
        for wrong in ["status=walking", "exited=x", "name=x", "status", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
