//! A copy in words, for its key.

use crate::plan::{CopySourcePlan, CopyStep};
use crate::url::without_credentials;

/// The sources as the key names them.
pub(super) fn source_names(step: &CopyStep) -> Vec<String> {
    let names = step.sources.iter().map(|source| match source {
        CopySourcePlan::Path(pattern) => pattern.clone(),
        CopySourcePlan::Inline { name, .. } => format!("<<{name}"),
        CopySourcePlan::Url { url, .. } => without_credentials(url),
        CopySourcePlan::Git { address, .. } => without_credentials(&address.with_fragment(true)),
    });
    names.collect()
}

/// The instruction in canonical form, for its key.
pub(crate) fn canonical(step: &CopyStep, keeps_owners: bool) -> Vec<String> {
    let mut words = vec![step.destination.clone()];
    words.extend(step.chown.iter().map(|owner| format!("--chown={owner}")));
    words.extend(step.chmod.iter().map(|(text, _)| format!("--chmod={text}")));
    words.extend(step.excludes.iter().map(|pattern| format!("--exclude={pattern}")));
    words.extend(step.parents.then(|| "--parents".to_owned()));
    words.extend(step.link.then(|| "--link".to_owned()));
    words.push(if keeps_owners { "owners" } else { "no owners" }.to_owned());
    words
}
