//! Bars of downloads and unpacking outside of a build: `box import`, `pull`, `push`.

use std::sync::OnceLock;
use std::time::Duration;

use box_builder::exec::CancelToken;
use box_store::Digest;
use box_store::registry::TransferProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::ProgressMode;

/// One transfer; shown on a terminal only.
#[derive(Debug)]
pub(crate) struct Transfer {
    bar: ProgressBar,
}

impl Transfer {
    /// A transfer that is shown as the mode says.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let bar = ProgressBar::no_length();
        if super::resolve(mode) != ProgressMode::Tty {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bar }
    }
}

impl box_store::transfer::Progress for Transfer {
    fn start(&self, total: Option<u64>) {
        self.bar.set_style(style(total));
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Blobs on their way, a bar for each on a terminal.
pub(crate) struct Transfers {
    bars: MultiProgress,
    cancel: CancelToken,
}

impl Transfers {
    /// Transfers that are shown as the mode says, and given up with the token.
    pub(crate) fn new(mode: ProgressMode, quiet: bool, cancel: &CancelToken) -> Self {
        let bars = match super::resolve(mode) {
            ProgressMode::Tty if !quiet => terminal(),
            _ => MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
        };
        Self {
            bars,
            cancel: cancel.clone(),
        }
    }
}

impl TransferProgress for Transfers {
    fn blob(&self, digest: &Digest, size: u64) -> Box<dyn box_store::transfer::Progress> {
        let bar = self.bars.add(ProgressBar::new(size));
        bar.set_prefix(digest.hex().chars().take(12).collect::<String>());
        Box::new(Transfer { bar })
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// All bars that are on the terminal at once: whoever draws there without the others draws over them.
pub(super) fn terminal() -> MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new).clone()
}

/// Bytes, speed and the time left, where the size is known.
pub(super) fn style(total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => "  {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "  {prefix} {spinner} {bytes} {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
