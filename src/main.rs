//! The `stratafs` command.

use std::io::{self, Write};
use std::process::ExitCode;

use stratafs::cli;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(failure) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "stratafs: {failure}");
            failure.status().into()
        }
    }
}
