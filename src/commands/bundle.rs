//! `box bundle`: an image as a bundle that every runtime can run.

use crate::app::App;
use crate::cli::BundleArgs;
use crate::error::Failure;

pub(super) fn run(_app: &App, _args: &BundleArgs) -> Result<u8, Failure> {
    Err(Failure::own("not yet"))
}
