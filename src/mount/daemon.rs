//! A daemon that its starter waits for until it is of use.
//!
//! The daemon is this program, started again: a fork would leave a process with one thread and
//! unknown locks. Its standard output leads to its starter. A byte on it says "ready"; the end of
//! it without that byte says that the daemon failed, and its exit status is passed on. What it has
//! to say until then goes to the starter's standard error.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use super::error::{Error, Result};

/// Environment variable that tells the second start from the first.
const MARK: &str = "STRATAFS_DAEMON";

/// True in the daemon.
#[must_use]
pub fn is_daemon() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts the daemon, with the arguments of this process, and waits until it is ready or has
/// failed. What is returned is the exit code for this process.
///
/// # Errors
/// Fails when it can't be started.
pub fn start() -> Result<ExitCode> {
    let failed = |err| Error::io("/proc/self/exe", err);
    let program = env::current_exe().map_err(failed)?;
    let mut arguments = env::args_os();
    let mut command = Command::new(&program);
    command.arg0(arguments.next().unwrap_or(program.into())).args(arguments).env(MARK, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut daemon = command.spawn().map_err(failed)?;
    let mut word = Vec::new();
    if let Some(mut output) = daemon.stdout.take() {
        output.read_to_end(&mut word).map_err(failed)?;
    }
    if !word.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let status = daemon.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In the daemon: lets go of the terminal, the working directory and the starter, who is told that
/// the mount can be used.
///
/// # Errors
/// Fails when the starter is gone: then nobody wants the mount any more.
pub fn detach() -> io::Result<()> {
    env::set_current_dir("/")?;
    rustix::process::setsid()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut output = io::stdout().lock();
    output.write_all(b"\n")?;
    output.flush()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
