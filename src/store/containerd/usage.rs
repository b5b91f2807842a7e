//! What a namespace takes on disk, by containerd's own count.

use super::records::varint;
use super::snapshots::Snapshotter;
use super::state::State;

/// Adds up the recorded sizes of all blobs and committed snapshots.
pub(super) fn used(state: &State<'_>) -> u64 {
    let blobs = state.bucket(&[b"content", b"blob"]).into_iter().flat_map(|blobs| blobs.buckets());
    let blobs = blobs.filter_map(|(_, blob)| varint(blob.get(b"size")?)?.try_into().ok());
    let snapshots = Snapshotter::ALL.into_iter().flat_map(|snapshotter| {
        let keys = state.bucket(&[b"snapshots", snapshotter.name().as_bytes()]);
        let keys = keys.into_iter().flat_map(|keys| keys.buckets());
        // One that is not as it should be does not count; whoever asks for it is told.
        keys.filter_map(move |(key, _)| {
            state.snapshot(snapshotter, str::from_utf8(key).ok()?).ok()??.size
        })
    });
    blobs.chain(snapshots).fold(0, u64::saturating_add)
}
