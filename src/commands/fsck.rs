//! `box fsck`: whether the store is whole.

use serde_json::json;

use crate::app::App;
use crate::cli::{Format, FsckArgs};
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Looks at everything; fails if something is damaged and stays so.
pub(super) fn run(app: &App, args: &FsckArgs) -> Result<u8, Failure> {
    let checked = app
        .store
        .check(args.repair)
        .map_err(|e| Failure::of(EXIT_BOX, &e))?;
    if args.format == Format::Json {
        let findings: Vec<_> = checked
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "what": finding.what,
                    "name": finding.name,
                    "problem": finding.problem,
                    "repaired": finding.is_repaired,
                })
            })
            .collect();
        ui::json(&json!({"checked": checked.count, "findings": findings}))?;
    } else {
        let mut text = String::new();
        for finding in &checked.findings {
            let done = match finding.what {
                _ if !finding.is_repaired => "",
                "file" => " (written anew)",
                _ => " (put aside)",
            };
            text.push_str(&format!(
                "{} {}: {}{done}\n",
                finding.what, finding.name, finding.problem
            ));
        }
        let count = checked.findings.len();
        let verdict = if count == 0 {
            "all is well".to_owned()
        } else {
            format!("{count} damaged")
        };
        text.push_str(&format!("{} things looked at: {verdict}\n", checked.count));
        ui::result(&text)?;
    }
    let is_left = checked.findings.iter().any(|finding| !finding.is_repaired);
    if is_left && !args.repair {
        ui::note(
            "box fsck --repair puts aside what is damaged; it is built or pulled again when it is needed",
        );
    }
    Ok(if is_left { EXIT_INPUT } else { 0 })
}
