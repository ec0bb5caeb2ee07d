//! What a build is given besides its Boxfile's own ARGs: the platforms, and the time that nothing is later than.

use std::collections::BTreeMap;

use crate::ast::{Boxfile, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::error::BuildError;
use crate::graph::StageGraph;
use crate::request::{BuildRequest, Platform};

/// The ARGs that every Boxfile has without declaring them.
pub(super) fn platform_args(request: &BuildRequest, boxfile: &Boxfile) -> BTreeMap<String, String> {
    let of = |prefix: &str, platform: &Platform| {
        [
            (format!("{prefix}PLATFORM"), platform.to_string()),
            (format!("{prefix}OS"), platform.os.clone()),
            (format!("{prefix}ARCH"), platform.architecture.clone()),
            (
                format!("{prefix}VARIANT"),
                platform.variant.clone().unwrap_or_default(),
            ),
        ]
    };
    let last = boxfile
        .instructions
        .iter()
        .rev()
        .find_map(|instruction| match &instruction.kind {
            InstructionKind::From(from) => Some(from.alias.as_ref().map(|alias| alias.name.clone())),
            _ => None,
        });
    let target = request.target.clone().or(last.flatten());
    let stage = target.unwrap_or_else(|| "default".to_owned());
    let all = of("TARGET", &request.platform)
        .into_iter()
        .chain(of("BUILD", &Platform::native()));
    all.chain([("TARGETSTAGE".to_owned(), stage)]).collect()
}

/// SOURCE_DATE_EPOCH of the caller, of a build argument or of a global ARG. `context` asks for the time of a context that
/// has one, a commit or an archive; a directory has none.
pub(super) fn source_date_epoch(
    boxfile: &Boxfile,
    graph: &StageGraph,
    request: &BuildRequest,
) -> Result<Option<i64>, BuildError> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let text = graph
        .global_args
        .get(NAME)
        .or(request.build_args.get(NAME))
        .filter(|text| !text.is_empty() && *text != "context");
    let (Some(text), None) = (text, request.source_date_epoch) else {
        return Ok(request.source_date_epoch);
    };
    if let Some(time) = text.parse().ok().filter(|time| *time >= 0) {
        return Ok(Some(time));
    }
    let declared = boxfile
        .instructions
        .iter()
        .find(|instruction| match &instruction.kind {
            InstructionKind::Arg(args) => args.iter().any(|arg| arg.name.value == NAME),
            _ => false,
        });
    let span = declared
        .or(boxfile.instructions.first())
        .map(|instruction| instruction.span);
    let problem = Diagnostic::error(span.unwrap_or_default(), format!("invalid {NAME}: {text}"));
    Err(BuildError::Boxfile {
        diagnostics: vec![problem.expected("seconds since 1970")],
        sources: boxfile.sources.clone(),
    })
}
