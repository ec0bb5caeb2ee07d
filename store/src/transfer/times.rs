//! Which layers of an image from elsewhere box made, and when they are from.

use crate::image::{ImageConfig, parse_rfc3339};

/// What box writes as the comment of its history entries.
const OURS: &str = "box";

/// For each layer that box made, its logical time: its history entry says both.
pub(crate) fn logical_times(config: &ImageConfig) -> Vec<Option<i64>> {
    let made = config
        .history
        .iter()
        .filter(|entry| entry.empty_layer != Some(true));
    let times: Vec<_> = made
        .map(|entry| {
            let ours = entry.comment.as_deref() == Some(OURS);
            entry.created.as_deref().filter(|_| ours).and_then(parse_rfc3339)
        })
        .collect();
    match times.len() == config.rootfs.diff_ids.len() {
        true => times,
        // A history that does not fit says nothing of the layers.
        false => vec![None; config.rootfs.diff_ids.len()],
    }
}
