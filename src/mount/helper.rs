//! Mounting as a user: `fusermount3` does it with root's rights, and passes the device back.
//!
//! The protocol is libfuse's (`lib/mount.c`): the helper finds the number of a socket in
//! `_FUSE_COMMFD`, and sends the open `/dev/fuse` through it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::error::{Error, Result};

/// Where it may be. It runs as root, so no search path decides which one.
const PLACES: [&str; 4] = [
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
    "/usr/local/bin/fusermount3",
    "/run/wrappers/bin/fusermount3",
];

/// Mounts with `options`, separated by commas.
pub(super) fn mount(point: &Path, options: &str) -> Result<OwnedFd> {
    let failed = |err: io::Error| Error::io("fusermount3", err);
    let (ours, its) = UnixStream::pair().map_err(failed)?;
    rustix::io::fcntl_setfd(&its, FdFlags::empty()).map_err(|err| failed(err.into()))?;
    let mut command = command()?;
    command.args(["-o", options, "--"]).arg(point);
    command.env("_FUSE_COMMFD", its.as_raw_fd().to_string());
    let child = command.spawn().map_err(failed)?;
    drop(its); // so that the end of the helper is the end of what it sends
    let device = receive(&ours).map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    device.ok_or_else(|| Error::NotPermitted(said(&output)))
}

/// Unmounts; lazily, where `options` say so.
pub(super) fn unmount(point: &Path, options: &[&str]) -> Result<()> {
    let output = command()?
        .arg("-u")
        .args(options)
        .arg("--")
        .arg(point)
        .output()
        .map_err(|err| Error::io("fusermount3", err))?;
    match said(&output) {
        _ if output.status.success() => Ok(()),
        said if said.contains("busy") => Err(Error::Busy(point.to_owned())),
        said => Err(Error::NotPermitted(said)),
    }
}

/// `value`, so that no comma in it starts the next option.
pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

fn command() -> Result<Command> {
    let Some(path) = PLACES.into_iter().find(|path| Path::new(path).exists()) else {
        let why = "fusermount3: not found: install it (package fuse3), or mount as root";
        return Err(Error::NotPermitted(why.into()));
    };
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// The descriptor that comes through `socket`; `None` where it ends without one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None, // not ours to enumerate
    }))
}

/// The first line that the helper printed, without the directory it lies in.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    match text.lines().next() {
        Some(line) => line[line.find("fusermount3").unwrap_or(0)..].to_owned(),
        None => format!("fusermount3: {}", output.status),
    }
}
