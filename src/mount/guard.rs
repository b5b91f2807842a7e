//! A second process that ends the connection of a daemon that was killed.
//!
//! A daemon that is killed while it hands contents to the kernel (`fuse::push`) may never end (see
//! [`connection`]): its last thread is out of reach, holds what the process had open, and so looks
//! alive to all who wait for a pipe, a lock or a process. Its first thread does end, and the kernel
//! tells that to the children which that thread started. So this program, started again, waits for
//! that word, and aborts the connection by a file that it has open since: numbers of connections are
//! used again.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::connection;
use super::error::{Error, Result};

/// The command by which this program becomes the guard.
pub const GUARD: &str = "abort-if-orphaned";

/// What the guard is called among processes: who kills all that are called `stratafs` spares it.
const NAME: &std::ffi::CStr = c"fuse-guard";

/// The guard of a connection, for as long as this lives.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts the guard of the mount with that device number; it is on its guard when this returns.
    /// Must be called by a thread that lives as long as the process.
    ///
    /// # Errors
    /// Fails where the connection can't be aborted by us, or no process is to be had.
    pub(super) fn start(device: &str) -> io::Result<Guard> {
        let switch = connection::switch(device)?;
        let process = Command::new("/proc/self/exe")
            .arg0(NAME.to_string_lossy().as_ref())
            .args([GUARD, &std::process::id().to_string()])
            .current_dir("/")
            .stdin(switch)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut guard = Guard(process);
        if let Some(mut pipe) = guard.0.stdout.take() {
            pipe.read_exact(&mut [0])?;
        }
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Where it is gone already, nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the guard does: waits for the end of the process `daemon`, which started it, and switches
/// its connection off.
///
/// # Errors
/// Fails when it can't wait, or the daemon is gone already, before it served anybody.
pub fn abort_if_orphaned(daemon: u32) -> Result<()> {
    wait_and_abort(daemon).map_err(|err| Error::io("guard", err))
}

fn wait_and_abort(daemon: u32) -> io::Result<()> {
    // Whoever ends all processes of a service means the daemon, and needs the guard until then.
    let mut signals = Signals::new([SIGUSR1, SIGTERM])?;
    set_parent_process_death_signal(Some(Signal::USR1))?;
    let parent = getppid().map(Pid::as_raw_pid);
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(daemon) {
        return Err(io::Error::other("the daemon is gone"));
    }
    rustix::thread::set_name(NAME)?;
    rustix::process::setsid()?;
    io::stdout().write_all(b"\n")?;
    io::stdout().flush()?;
    signals.forever().find(|&signal| signal == SIGUSR1);
    rustix::io::write(rustix::stdio::stdin(), b"1")?;
    Ok(())
}
