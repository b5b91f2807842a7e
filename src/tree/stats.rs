//! `.stratafs/stats.json` and `.stratafs/metrics`: the counters of a mount, for people and programs.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::fs;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::Tree;
use crate::error::{Error, Result};
use crate::metrics::{Durations, Usage};

/// What was counted since the mount was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Of this program.
    pub version: &'static str,
    /// Age of the mount, in seconds.
    pub uptime_seconds: f64,
    /// How long requests took, by what was asked for.
    pub requests: BTreeMap<&'static str, Durations>,
    /// Bytes that were read through the daemon, by what they are of.
    pub read_bytes: BTreeMap<&'static str, u64>,
    /// Answers that were an error, by its name.
    pub errors: BTreeMap<&'static str, u64>,
    /// What caches were good for.
    pub caches: BTreeMap<&'static str, Usage>,
    /// How often something was worked out that takes a pass over a layer or a container.
    pub index_builds: BTreeMap<&'static str, u64>,
    /// How often the list of what a store holds was read.
    pub catalog_reads: u64,
    /// Inodes that the kernel knows of.
    pub inodes: u64,
    /// What the process takes.
    pub process: Process,
}

/// What this process takes.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Process {
    /// Memory that it has now, in bytes.
    pub resident_bytes: u64,
    /// The most that it has had, in bytes.
    pub peak_resident_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// Threads.
    pub threads: u64,
    /// Time on processors, in seconds.
    pub cpu_seconds: f64,
}

impl Process {
    /// As `/proc` tells; what it does not tell is 0.
    fn now() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0_u64)
        };
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Process {
            resident_bytes: number("VmRSS") << 10,
            peak_resident_bytes: number("VmHWM") << 10,
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            threads: number("Threads"),
            cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9,
        }
    }
}

impl Stats {
    /// As indented JSON.
    ///
    /// # Errors
    /// None that is known of.
    pub fn json(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|err| Error::io("stats.json", err))?;
        Ok((text + "\n").into_bytes())
    }

    /// In the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Text(String::new());
        text.one("build_info", "gauge", "What runs.", "version", [(self.version, 1)]);
        text.plain("uptime_seconds", "gauge", "Age of the mount.", self.uptime_seconds);
        text.durations(&self.requests);
        let read = self.read_bytes.iter().map(|(kind, bytes)| (*kind, *bytes));
        text.one("read_bytes_total", "counter", "Bytes read through the daemon.", "kind", read);
        let errors = self.errors.iter().map(|(errno, count)| (*errno, *count));
        text.one("errors_total", "counter", "Answers that were an error.", "errno", errors);
        let of = |part: fn(&Usage) -> u64| {
            self.caches.iter().map(move |(cache, usage)| (*cache, part(usage)))
        };
        let hits = of(|usage| usage.hits);
        text.one("cache_hits_total", "counter", "Found in a cache.", "cache", hits);
        let misses = of(|usage| usage.misses);
        text.one("cache_misses_total", "counter", "Not found in a cache.", "cache", misses);
        let gone = of(|usage| usage.evictions);
        text.one("cache_evictions_total", "counter", "Dropped to make room.", "cache", gone);
        let builds = self.index_builds.iter().map(|(index, count)| (*index, *count));
        text.one("index_builds_total", "counter", "Passes over a layer's files.", "index", builds);
        text.plain("catalog_reads_total", "counter", "Stores read anew.", self.catalog_reads);
        text.plain("inodes", "gauge", "Inodes that the kernel knows of.", self.inodes);
        let own = &self.process;
        text.plain("resident_memory_bytes", "gauge", "Memory.", own.resident_bytes);
        text.plain("resident_memory_max_bytes", "gauge", "At most.", own.peak_resident_bytes);
        text.plain("open_fds", "gauge", "Open files.", own.open_files);
        text.plain("threads", "gauge", "Threads.", own.threads);
        text.plain("cpu_seconds_total", "counter", "Time on processors.", own.cpu_seconds);
        text.0
    }
}

/// Lines of Prometheus' text format. Labels are words of ours, with nothing in them to escape.
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP stratafs_{name} {help}\n# TYPE stratafs_{name} {kind}"));
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(format_args!("stratafs_{name} {value}"));
    }

    /// A metric with one label.
    fn one<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, kind, help);
        for (word, value) in values {
            self.line(format_args!("stratafs_{name}{{{label}=\"{word}\"}} {value}"));
        }
    }

    fn durations(&mut self, requests: &BTreeMap<&'static str, Durations>) {
        let name = "request_duration_seconds";
        self.head(name, "histogram", "Time that a request took in the daemon.");
        for (request, durations) in requests {
            let Durations { count, seconds, buckets } = durations;
            let label = format!("request=\"{request}\"");
            for (bound, up_to) in buckets {
                let bucket = format_args!("_bucket{{{label},le=\"{bound}\"}} {up_to}").to_string();
                self.line(format_args!("stratafs_{name}{bucket}"));
            }
            self.line(format_args!("stratafs_{name}_bucket{{{label},le=\"+Inf\"}} {count}"));
            self.line(format_args!("stratafs_{name}_sum{{{label}}} {seconds}"));
            self.line(format_args!("stratafs_{name}_count{{{label}}} {count}"));
        }
    }
}

impl Tree {
    /// What was counted since the tree was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (archives, layers) = (self.archives.usage(), self.archives.layer_usage());
        let (changes, indexes) = (self.diffs.usage(), self.options.cache.index_usage());
        let shelves: Vec<_> = self.engines.iter().flat_map(|engine| engine.shelves()).collect();
        let usages = shelves.iter().map(|shelf| shelf.usage());
        let (images, configs) = usages.fold(Default::default(), |sum: (Usage, Usage), one| {
            (sum.0.with(one.0), sum.1.with(one.1))
        });
        let caches = [
            ("archives", archives),
            ("changes", changes),
            ("configs", configs),
            ("directories", self.merged_dirs.usage().with(self.own_dirs.usage())),
            ("images", images),
            ("inflated", self.options.cache.segment_usage()),
            ("layers", layers),
            ("stamps", self.stamps.usage()),
        ];
        let builds =
            [("archive", archives), ("changes", changes), ("inflated", indexes), ("layer", layers)];
        Stats {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.clock.elapsed().as_secs_f64(),
            requests: self.metrics.durations(),
            read_bytes: self.metrics.bytes_read(),
            errors: self.metrics.errors(),
            caches: caches.into(),
            index_builds: builds.map(|(name, usage)| (name, usage.misses)).into(),
            catalog_reads: shelves.iter().map(|shelf| shelf.catalogs()).sum(),
            inodes: self.inodes.len() as u64,
            process: Process::now(),
        }
    }
}
