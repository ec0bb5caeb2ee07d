//! The page itself: one file of HTML and CSS, no script, nothing fetched. All that comes from a Boxfile or an image is escaped.

use std::fmt::Write;
use std::time::Duration;

use super::{Fate, Layer, Report, Step};
use crate::ui::human;

const STYLE: &str = include_str!("style.css");

/// The report as HTML.
pub(crate) fn page(report: &Report) -> String {
    let title = report.image.as_deref().unwrap_or("a build that failed");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(title)
    );
    page.push_str(&head(report, title));
    page.push_str(&timeline(report));
    page.push_str(&steps(report));
    if !report.layers.is_empty() {
        page.push_str(&layers(&report.layers));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// No character of the text has a meaning in HTML, and none is invisible.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            // Also those that turn the direction of writing.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

fn head(report: &Report, title: &str) -> String {
    let count = |fate| report.steps.iter().filter(|step| step.fate == fate).count();
    let bytes: u64 = report.layers.iter().map(|layer| layer.weight.bytes).sum();
    let hidden: u64 = report.layers.iter().map(|layer| layer.weight.hidden).sum();
    let mut tiles = vec![
        ("time", human::duration(report.wall)),
        ("steps done", count(Fate::Done).to_string()),
        ("from the cache", count(Fate::Cached).to_string()),
    ];
    if report.error.is_none() {
        tiles.push(("image size", human::bytes(bytes)));
        tiles.push(("hidden by later layers", human::bytes(hidden)));
    }
    let mut text = format!("<header>\n<h1>{}</h1>\n", escape(title));
    if let Some(error) = &report.error {
        let _ = writeln!(text, "<p class=\"error\">{}</p>", escape(error));
    }
    text.push_str("<dl class=\"tiles\">\n");
    for (name, value) in tiles {
        let _ = writeln!(text, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    }
    text.push_str("</dl>\n</header>\n");
    text
}

fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Config => "config",
        Fate::Cached => "cached",
        Fate::Done => "done",
        Fate::Failed => "failed",
        Fate::Stopped => "stopped",
        Fate::Open => "not ended",
    }
}

fn class(fate: Fate) -> &'static str {
    match fate {
        Fate::Open => "stopped",
        fate => word(fate),
    }
}

fn stage_name(step: &Step) -> String {
    step.stage_name
        .clone()
        .unwrap_or_else(|| format!("stage {}", step.stage))
}

/// A row for each stage, in the order of the Boxfile; a bar for each step, where it was in time.
fn timeline(report: &Report) -> String {
    let whole = report.wall.as_secs_f64().max(0.001);
    let percent = |time: Duration| time.as_secs_f64() / whole * 100.0;
    let mut stages: Vec<usize> = report.steps.iter().map(|step| step.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    let mut text = "<section>\n<h2>When</h2>\n<div class=\"timeline\">\n".to_owned();
    for stage in stages {
        let of_stage: Vec<&Step> = report.steps.iter().filter(|step| step.stage == stage).collect();
        let name = of_stage.first().map(|step| stage_name(step)).unwrap_or_default();
        let _ = write!(
            text,
            "<div class=\"stage\"><span class=\"name\">{}</span><div class=\"lane\">",
            escape(&name)
        );
        for step in of_stage {
            let (left, width) = (
                percent(step.begun),
                percent(step.ended.saturating_sub(step.begun)),
            );
            let told = format!(
                "{} ({}, {})",
                step.text,
                word(step.fate),
                human::duration(step.ended.saturating_sub(step.begun))
            );
            let _ = write!(
                text,
                "<span class=\"bar {}\" style=\"left:{left:.3}%;width:{width:.3}%\" title=\"{}\"></span>",
                class(step.fate),
                escape(&told)
            );
        }
        text.push_str("</div></div>\n");
    }
    let _ = writeln!(
        text,
        "<div class=\"axis\"><span>0</span><span>{}</span><span>{}</span></div>\n</div>",
        human::duration(report.wall / 2),
        human::duration(report.wall)
    );
    text.push_str(
        "<p class=\"legend\"><span class=\"key done\"></span>done <span class=\"key cached\"></span>from the cache \
         <span class=\"key config\"></span>configuration alone <span class=\"key failed\"></span>failed \
         <span class=\"key stopped\"></span>stopped</p>\n</section>\n",
    );
    text
}

fn steps(report: &Report) -> String {
    let mut text = "<section>\n<h2>Steps</h2>\n<table>\n<thead><tr><th>line</th><th>step</th><th>result</th><th class=\"n\">time</th>\
                    <th class=\"n\">cpu</th><th class=\"n\">peak memory</th><th class=\"n\">read</th><th class=\"n\">written</th>\
                    <th class=\"n\">layer</th><th class=\"n\">files</th></tr></thead>\n<tbody>\n"
        .to_owned();
    let mut stage = None;
    for step in &report.steps {
        if stage != Some(step.stage) {
            stage = Some(step.stage);
            let _ = writeln!(
                text,
                "<tr class=\"group\"><th colspan=\"10\">{}</th></tr>",
                escape(&stage_name(step))
            );
        }
        text.push_str(&row(step));
    }
    text.push_str("</tbody>\n</table>\n</section>\n");
    text
}

fn row(step: &Step) -> String {
    let usage = step.usage.unwrap_or_default();
    let cpu = usage
        .cpu_user
        .into_iter()
        .chain(usage.cpu_system)
        .reduce(|a, b| a + b);
    let of = |value: Option<String>| value.unwrap_or_default();
    let why = match (step.fate, step.why.is_empty()) {
        (Fate::Done | Fate::Failed, false) => format!("<div class=\"why\">{}</div>", escape(&step.why)),
        _ => String::new(),
    };
    format!(
        "<tr><td class=\"n\">{}</td><td><code>{}</code>{why}</td><td><span class=\"tag {}\">{}</span></td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
        step.line,
        escape(&step.text),
        class(step.fate),
        word(step.fate),
        human::duration(step.ended.saturating_sub(step.begun)),
        of(cpu.map(human::duration)),
        of(usage.peak_memory.map(human::bytes)),
        of(usage.io_read.map(human::bytes)),
        of(usage.io_written.map(human::bytes)),
        of(step.layer.map(|layer| human::bytes(layer.0))),
        of(step.layer.map(|layer| layer.1.to_string())),
    )
}

/// Each layer with its share of the largest one, its largest files, and what of it nobody sees.
fn layers(all: &[Layer]) -> String {
    let largest = all
        .iter()
        .map(|layer| layer.weight.bytes)
        .max()
        .unwrap_or(0)
        .max(1);
    let share = |bytes: u64| bytes as f64 / largest as f64 * 100.0;
    let mut text = "<section>\n<h2>Layers</h2>\n".to_owned();
    for layer in all {
        let weight = &layer.weight;
        let seen = weight.bytes.saturating_sub(weight.hidden);
        let _ = write!(
            text,
            "<div class=\"layer\"><h3><code>{}</code></h3>\n<p>{} in {} file{}{}</p>\n\
             <div class=\"weight\"><span class=\"seen\" style=\"width:{:.2}%\"></span><span class=\"hidden\" style=\"width:{:.2}%\"></span></div>\n",
            escape(&layer.made_by),
            human::bytes(weight.bytes),
            weight.files,
            if weight.files == 1 { "" } else { "s" },
            match weight.hidden {
                0 => String::new(),
                bytes => format!(
                    "; <strong>{} of them hidden by later layers</strong>",
                    human::bytes(bytes)
                ),
            },
            share(seen),
            share(weight.hidden),
        );
        let files = |text: &mut String, title: &str, files: &[(std::path::PathBuf, u64)]| {
            if files.is_empty() {
                return;
            }
            let _ = write!(
                text,
                "<details{}><summary>{title}</summary><table>",
                if title.starts_with("Hidden") { " open" } else { "" }
            );
            for (path, size) in files {
                let _ = write!(
                    text,
                    "<tr><td class=\"n\">{}</td><td><code>/{}</code></td></tr>",
                    human::bytes(*size),
                    escape(&path.to_string_lossy())
                );
            }
            text.push_str("</table></details>\n");
        };
        files(&mut text, "Largest files", &weight.largest);
        files(&mut text, "Hidden files", &weight.largest_hidden);
        text.push_str("</div>\n");
    }
    text.push_str("</section>\n");
    text
}
