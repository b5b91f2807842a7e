//! What is counted, and how it is told.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::stores::sample::sample;

/// Longer than the kernel keeps what may change.
const STALE: Duration = Duration::from_millis(600);

/// Samples of Prometheus' text format by their name and labels, held to its rules.
fn parse(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut families, mut samples) = (HashMap::new(), HashMap::new());
    let mut helped = HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name) && families.insert(name, kind).is_none(), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let name = key.split('{').next().unwrap();
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| name.strip_suffix(end));
            match families.get(name).or_else(|| families.get(family?)) {
                Some(&"counter") => assert!(name.ends_with("_total"), "{line}"),
                Some(_) => {}
                None => panic!("nothing told of {line}"),
            }
            if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let list = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
                for label in list.split(',') {
                    let (word, text) = label.split_once("=\"").unwrap();
                    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
                    assert!(word.chars().all(is_plain) && text.ends_with('"'), "{line}");
                }
            }
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && samples.insert(key.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

/// Holds the buckets of a histogram to what it says of itself.
fn check_histogram(samples: &HashMap<String, f64>, request: &str) {
    let name = "stratafs_request_duration_seconds";
    let count = samples[&format!("{name}_count{{request=\"{request}\"}}")];
    let sum = samples[&format!("{name}_sum{{request=\"{request}\"}}")];
    let start = format!("{name}_bucket{{request=\"{request}\",le=\"");
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(key, value)| {
            let bound = key.strip_prefix(&start)?.strip_suffix("\"}")?;
            Some((bound.replace("+Inf", "inf").parse().unwrap(), *value))
        })
        .collect();
    buckets.sort_by(|one, other| one.partial_cmp(other).unwrap());
    assert!(buckets.len() > 10 && buckets.is_sorted_by_key(|(_, value)| *value), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
    assert!(count == 0.0 || sum > 0.0, "{request}");
}

#[test]
fn requests_bytes_errors_and_caches_are_counted() {
    if !can_mount() {
        return;
    }
    let Some(sample) = sample() else { return };
    let mounted = Mounted::new(sample.path());
    let metrics = || parse(&fs::read_to_string(mounted.at(".stratafs/metrics")).unwrap());
    let before = metrics();
    let tar = fs::read(mounted.at("images/app:1/save.tar")).unwrap();
    let file = fs::read(mounted.at("images/app:1/rootfs/etc/passwd")).unwrap();
    assert!(!mounted.at("images/app:1/rootfs/no-such").exists());
    fs::read_dir(mounted.at("containers/web/rootfs")).unwrap().count();
    thread::sleep(STALE);
    let after = metrics();
    let grew = |key: &str| after[key] - before[key];
    assert_eq!(grew("stratafs_read_bytes_total{kind=\"save\"}"), tar.len() as f64);
    assert_eq!(grew("stratafs_read_bytes_total{kind=\"file\"}"), file.len() as f64);
    assert_eq!(grew("stratafs_read_bytes_total{kind=\"export\"}"), 0.0);
    assert!(grew("stratafs_errors_total{errno=\"ENOENT\"}") >= 1.0);
    assert_eq!(grew("stratafs_errors_total{errno=\"EIO\"}"), 0.0);
    for request in ["lookup", "read", "readdirplus"] {
        let key = format!("stratafs_request_duration_seconds_count{{request=\"{request}\"}}");
        assert!(grew(&key) >= 1.0, "{request}");
        check_histogram(&after, request);
    }
    assert!(grew("stratafs_cache_misses_total{cache=\"archives\"}") >= 1.0);
    assert!(grew("stratafs_index_builds_total{index=\"archive\"}") >= 1.0);
    assert!(grew("stratafs_inodes") >= 3.0);
    for gauge in ["resident_memory_bytes", "open_fds", "threads"] {
        assert!(after[&format!("stratafs_{gauge}")] >= 1.0, "{gauge}");
    }
    let json = fs::read(mounted.at(".stratafs/stats.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["read_bytes"]["save"], tar.len());
    assert!(json["requests"]["read"]["count"].as_u64().unwrap() >= 2);
    assert!(json["process"]["resident_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn open_counters_stay_as_they_were() {
    if !can_mount() {
        return;
    }
    let Some(sample) = sample() else { return };
    let mounted = Mounted::new(sample.path());
    let path = mounted.at(".stratafs/metrics");
    let mut open = File::open(&path).unwrap();
    let size = open.metadata().unwrap().len();
    fs::read(mounted.at("images/app:1/save.tar")).unwrap();
    thread::sleep(STALE);
    let new = fs::read_to_string(&path).unwrap();
    let mut old = String::new();
    open.read_to_string(&mut old).unwrap();
    assert_eq!(old.len() as u64, size);
    let key = "stratafs_read_bytes_total{kind=\"save\"}";
    assert_eq!(parse(&old)[key], 0.0);
    assert!(parse(&new)[key] > 0.0);
}
