//! How far work has come: a bar, for whoever watches a terminal.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar, hidden where nobody would see it.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for that many bytes; `None` where nobody knows how many there are.
    pub(super) fn new(total: Option<u64>, is_quiet: bool) -> Progress {
        let template = match total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {bytes_per_sec}",
        };
        Progress::with(total, template, is_quiet)
    }

    /// A bar for that many layers and images.
    pub(super) fn of_images(layers: u64, images: u64, is_quiet: bool) -> Progress {
        let template = "{wide_bar} {pos}/{len} layers and images {eta}";
        Progress::with(Some(layers + images), template, is_quiet)
    }

    fn with(total: Option<u64>, template: &str, is_quiet: bool) -> Progress {
        let target = match is_quiet || !io::stderr().is_terminal() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(total, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// Counts what is through.
    pub(super) fn add(&self, count: u64) {
        self.0.inc(count);
    }

    /// Says something beside the bar.
    pub(super) fn say(&self, line: &str) {
        // Nobody is left to tell when standard error is closed.
        self.0.suspend(|| drop(writeln!(io::stderr(), "stratafs: {line}")));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
