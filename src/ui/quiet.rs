//! No progress: what a step that failed printed last comes with the build's failure.

use box_builder::progress::{Event, EventSink};

/// Shows nothing.
#[derive(Debug, Default)]
pub(super) struct Nothing;

impl EventSink for Nothing {
    fn event(&self, _event: Event<'_>) {}
}
