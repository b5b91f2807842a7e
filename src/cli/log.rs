//! Where what there is to say goes: standard error, as long as somebody may read that. A daemon goes
//! on in the file of `--log`, or in the host's log as syslog(3) writes it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::error::{Error, Result};

/// Where journald and all other loggers listen (syslog(3)).
const SYSLOG: &str = "/dev/log";

/// The facility of daemons, LOG_DAEMON (syslog(3)).
const FACILITY: u8 = 3 << 3;

/// Where it all goes, for each who holds it.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Place>>);

#[derive(Debug)]
enum Place {
    StandardError,
    File(std::fs::File),
    Syslog(UnixDatagram),
}

impl Log {
    /// Starts with standard error. `RUST_LOG` outranks `level`; fuser's warnings are about what it
    /// answers rightly.
    pub(super) fn start(level: LevelFilter, is_colourful: bool) -> Log {
        let log = Log(Arc::new(Mutex::new(Place::StandardError)));
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new(format!("{level},fuser=error")));
        let all = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_colourful);
        let all = all.with_span_events(FmtSpan::CLOSE).with_timer(log.clone());
        all.with_writer(log.clone()).init();
        log
    }

    /// Goes on in a file, behind what is there.
    ///
    /// # Errors
    /// Fails where it can't be written.
    pub(super) fn go_on_in_file(&self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        *self.lock() = Place::File(file.map_err(|err| Error::io(path, err))?);
        Ok(())
    }

    /// Standard error is gone: goes on in the host's log, where there is one and nothing else was
    /// asked for.
    pub(super) fn detach(&self) {
        let mut place = self.lock();
        if let Place::StandardError = &*place
            && let Ok(syslog) = connect(Path::new(SYSLOG))
        {
            *place = Place::Syslog(syslog);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(socket: &Path) -> io::Result<UnixDatagram> {
    let syslog = UnixDatagram::unbound()?;
    syslog.connect(socket)?;
    // A logger that is stuck holds up no reader.
    syslog.set_nonblocking(true)?;
    Ok(syslog)
}

impl FormatTime for Log {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        match &*self.lock() {
            Place::StandardError | Place::File(_) => SystemTime.format_time(line),
            Place::Syslog(_) => Ok(()), // it has a clock of its own
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { place: self.lock(), level: Level::INFO }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { place: self.lock(), level: *about.level() }
    }
}

/// Takes one line, in one piece.
#[derive(Debug)]
pub(super) struct Line<'a> {
    place: MutexGuard<'a, Place>,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.place {
            Place::StandardError => io::stderr().write(line),
            Place::File(file) => file.write(line),
            Place::Syslog(syslog) => {
                syslog.send(&message(self.level, line))?;
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as syslog(3) sends it.
fn message(level: Level, line: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7, // levels are no enum to match on
    };
    let head = format!("<{}>stratafs[{}]: ", FACILITY | severity, std::process::id());
    [head.as_bytes(), line.trim_ascii()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_the_log_of_the_host_as_one_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let host = UnixDatagram::bind(&path).unwrap();
        let log = Log(Arc::new(Mutex::new(Place::Syslog(connect(&path).unwrap()))));
        Line { place: log.lock(), level: Level::WARN }.write_all(b" WARN it broke\n").unwrap();
        let mut message = [0; 100];
        let length = host.recv(&mut message).unwrap();
        let expected = format!("<28>stratafs[{}]: WARN it broke", std::process::id());
        assert_eq!(message[..length], *expected.as_bytes());
    }
}
