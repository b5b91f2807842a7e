//! A sqlite database that an engine may be writing to, read without a lock: its bytes as they were
//! between two transactions, and rows of them.
//!
//! The writer first notes in a journal beside the file what the pages were that it is about to
//! change, then changes them, then removes the journal (sqlite.org/fileformat2.html, "Rollback
//! Journal"). So bytes are good where there was no journal before nor after they were read and the
//! file did not change meanwhile; and where one is left, they are after what it notes was put back.
//! The file is read whole into memory: nobody can change it under sqlite, or lead sqlite elsewhere.

use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB, Row};

use crate::backing::{Root, Stat};
use crate::error::{Error, Result};
use crate::store::files::if_found;

/// Largest database that is read, in bytes. A container takes some 10 KiB.
const DATABASE_MAX: u64 = 32 << 20;

/// Largest journal: every page of it, and 8 bytes for each.
const JOURNAL_MAX: u64 = DATABASE_MAX + DATABASE_MAX / 32;

/// Most memory that sqlite may take, in bytes: the database, and what it does with it.
const HEAP_MAX: u64 = 2 * DATABASE_MAX;

/// Most bytes of values that are taken from one, as much as it may be large.
const VALUES_MAX: usize = DATABASE_MAX as usize;

/// How often a database is read while an engine writes to it, and how long is waited in between.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);

/// Steps of sqlite's machine between two looks at how many there were, and most of them: some tenths
/// of a second.
const STEPS: i32 = 10_000;
const STEPS_MAX: u32 = 3_000;

/// How a journal begins.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Length of what a database begins with, and where in it the versions of its format for writing and
/// for reading stand: 1 with a rollback journal, 2 with a write-ahead log; and where its transactions
/// are counted.
const HEADER: usize = 100;
const VERSIONS: Range<usize> = 18..20;
const COUNTER: Range<usize> = 24..28;

/// The bytes of the database `path` between two transactions; `None` where there is none.
///
/// # Errors
/// Busy where it changes all the time; and where it can't be read, is too large, or has a
/// write-ahead log.
pub(super) fn read_settled(root: &Root, path: &str) -> Result<Option<Vec<u8>>> {
    let journal = format!("{path}-journal");
    for _ in 0..TRIES {
        let before = [if_found(root.stat(path))?, if_found(root.stat(&journal))?];
        if before[0].is_none() {
            return Ok(None);
        }
        let Some(mut bytes) = if_found(root.read(path, DATABASE_MAX))? else { continue };
        let noted = if_found(root.read(&journal, JOURNAL_MAX))?;
        let after = [if_found(root.stat(path))?, if_found(root.stat(&journal))?];
        let stamps = |stats: [Option<Stat>; 2]| stats.map(|stat| stat.map(|stat| stat.stamp()));
        if stamps(before) == stamps(after)
            && counter(root, path)? == bytes.get(COUNTER).map(<[u8]>::to_vec)
        {
            roll_back(&mut bytes, &noted.unwrap_or_default());
            return without_log(root, path, bytes).map(Some);
        }
        thread::sleep(PAUSE);
    }
    Err(Error::busy(root.path().join(path), "it changes all the time"))
}

/// What counts the transactions, in the file as it is now.
fn counter(root: &Root, path: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = if_found(root.open_file(path))? else { return Ok(None) };
    let mut header = [0; COUNTER.end];
    let read =
        file.read_at(0, &mut header).map_err(|err| Error::io(root.path().join(path), err))?;
    Ok((read == header.len()).then(|| header[COUNTER].to_vec()))
}

/// Bytes of a database without a write-ahead log, marked so; the engine itself uses none.
fn without_log(root: &Root, path: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let log = if_found(root.stat(format!("{path}-wal")))?;
    match bytes.get_mut(VERSIONS) {
        Some(versions) if versions == [2, 2] => {
            if log.is_some_and(|log| log.size > 0) {
                let what = "a database with a write-ahead log";
                return Err(Error::unsupported(root.path().join(path), what));
            }
            versions.fill(1);
        }
        _ => {}
    }
    Ok(bytes)
}

/// Puts back the pages that a journal notes, up to where it makes no sense any more: what comes
/// after was not yet needed when its writer ended.
fn roll_back(database: &mut Vec<u8>, journal: &[u8]) {
    let mut at = 0;
    let mut pages_before = None;
    while let Some(header) = JournalHeader::parse(journal.get(at..).unwrap_or_default()) {
        pages_before.get_or_insert((header.pages_before, header.page_size));
        at = at.saturating_add(header.sector);
        let length = header.page_size + 8;
        let records = journal.get(at..).unwrap_or_default().chunks_exact(length);
        let mut count = 0;
        for record in records.take(header.records) {
            let Some(()) = put_back(database, record, &header) else { break };
            count += 1;
        }
        if count < header.records {
            break;
        }
        at = at.saturating_add(count * length).next_multiple_of(header.sector);
    }
    if let Some((pages, size)) = pages_before {
        database.truncate(pages.saturating_mul(size));
    }
}

/// Puts one page back: its number, the page, and its checksum. `None` where that is none.
fn put_back(database: &mut Vec<u8>, record: &[u8], header: &JournalHeader) -> Option<()> {
    let (number, rest) = record.split_first_chunk::<4>()?;
    let (page, checksum) = rest.split_last_chunk::<4>()?;
    let sampled = (1..).map_while(|step| page.len().checked_sub(200 * step)).filter(|&at| at > 0);
    let sum = sampled.fold(header.nonce, |sum, at| sum.wrapping_add(u32::from(page[at])));
    let number = u32::from_be_bytes(*number) as usize;
    if sum != u32::from_be_bytes(*checksum) || number == 0 || number > header.pages_before {
        return None;
    }
    let start = (number - 1).checked_mul(page.len())?;
    let end = start.checked_add(page.len()).filter(|&end| end as u64 <= DATABASE_MAX)?;
    if database.len() < end {
        database.resize(end, 0);
    }
    database[start..end].copy_from_slice(page);
    Some(())
}

/// What one part of a journal begins with.
struct JournalHeader {
    /// How many pages follow.
    records: usize,
    /// What their checksums begin with.
    nonce: u32,
    /// How many pages the database had.
    pages_before: usize,
    /// Length of this header, in bytes, and what the next one is aligned to.
    sector: usize,
    page_size: usize,
}

impl JournalHeader {
    fn parse(bytes: &[u8]) -> Option<JournalHeader> {
        let rest = bytes.strip_prefix(&JOURNAL_MAGIC)?;
        let number = |at: usize| {
            let bytes = rest.get(4 * at..4 * at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes) as usize)
        };
        let (sector, page_size) = (number(3)?, number(4)?);
        let is_good = |size: usize, range: RangeInclusive<usize>| {
            size.is_power_of_two() && range.contains(&size)
        };
        (is_good(sector, 32..=65536) && is_good(page_size, 512..=65536)).then_some(JournalHeader {
            records: number(0)?,
            nonce: u32::try_from(number(1)?).ok()?,
            pages_before: number(2)?,
            sector,
            page_size,
        })
    }
}

/// A database in memory, which may say anything.
pub(super) struct Database(Connection);

impl Database {
    /// The one with these bytes; `path` is for messages.
    ///
    /// # Errors
    /// Corrupt where it is no database.
    pub(super) fn open(bytes: &[u8], path: &Path) -> Result<Database> {
        if bytes.len() < HEADER {
            return Err(Error::corrupt(path, "shorter than a database"));
        }
        Database::bounded(bytes).map_err(|err| Error::corrupt(path, err.to_string()))
    }

    fn bounded(bytes: &[u8]) -> rusqlite::Result<Database> {
        let mut connection = Connection::open_in_memory()?;
        let memory = format!("PRAGMA hard_heap_limit = {HEAP_MAX}; PRAGMA temp_store = MEMORY");
        connection.execute_batch(&memory)?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, 4 << 20),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
            (Limit::SQLITE_LIMIT_COLUMN, 64),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 32),
            (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
            (Limit::SQLITE_LIMIT_VDBE_OP, 10_000),
            (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
        for (setting, value) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        ] {
            connection.set_db_config(setting, value)?;
        }
        let mut looks = 0;
        let is_too_long = move || {
            looks += 1;
            looks > STEPS_MAX
        };
        connection.progress_handler(STEPS, Some(is_too_long))?;
        connection.deserialize_read_exact(MAIN_DB, bytes, bytes.len(), true)?;
        connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA query_only = ON")?;
        Ok(Database(connection))
    }

    /// Calls `row` with each row that `select` finds.
    ///
    /// # Errors
    /// The phrase in which sqlite says what is wrong.
    pub(super) fn each(
        &self,
        select: &str,
        mut row: impl FnMut(&Row<'_>) -> Option<()>,
    ) -> Result<(), String> {
        let said = |err: rusqlite::Error| err.to_string();
        let mut statement = self.0.prepare(select).map_err(said)?;
        let mut rows = statement.query([]).map_err(said)?;
        let mut bytes = 0;
        while let Some(found) = rows.next().map_err(said)? {
            bytes += (0..found.as_ref().column_count()).map(|at| length(found, at)).sum::<usize>();
            if bytes > VALUES_MAX {
                return Err("more values than it has bytes".to_owned());
            }
            row(found); // one that says nothing is passed over
        }
        Ok(())
    }
}

/// The text in the column `at`; `None` for anything else.
pub(super) fn text<'a>(row: &'a Row<'_>, at: usize) -> Option<&'a str> {
    match row.get_ref(at) {
        Ok(ValueRef::Text(text)) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn length(row: &Row<'_>, at: usize) -> usize {
    match row.get_ref(at) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => 16 + bytes.len(),
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use proptest::prelude::*;
    use rustix::io::Errno;

    use super::*;
    use crate::backing::Access;

    /// A database on disk with a table of 1000 rows, of which each has the value `value`.
    fn database(dir: &tempfile::TempDir, value: &str) -> (Root, Connection) {
        let connection = Connection::open(dir.path().join("db.sql")).unwrap();
        connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, value TEXT)").unwrap();
        fill(&connection, 1000, value);
        (Root::open(dir.path(), Access::Live).unwrap(), connection)
    }

    fn fill(connection: &Connection, rows: u32, value: &str) {
        let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT OR REPLACE INTO t SELECT i, ?2 FROM n";
        connection.execute(insert, (rows, value)).unwrap();
    }

    /// How many rows there are, and all their values, each once.
    fn rows(bytes: &[u8]) -> Result<(usize, Vec<String>), String> {
        let database = Database::open(bytes, Path::new("db")).map_err(|err| err.to_string())?;
        let (mut count, mut values) = (0, Vec::new());
        database.each("SELECT value FROM t", |row| {
            count += 1;
            values.push(text(row, 0)?.to_owned());
            Some(())
        })?;
        values.sort();
        values.dedup();
        Ok((count, values))
    }

    fn settled(root: &Root) -> (usize, Vec<String>) {
        rows(&read_settled(root, "db.sql").unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_lock_is_not_waited_for_and_what_is_not_committed_is_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let old = "old".repeat(50);
        let (root, writer) = database(&dir, &old);
        let expected = (1000, vec![old]);
        assert_eq!(settled(&root), expected);
        // So small a cache that pages are written long before the end.
        writer.execute_batch("PRAGMA cache_size = 2; BEGIN EXCLUSIVE").unwrap();
        assert_eq!(settled(&root), expected);
        fill(&writer, 3000, "new");
        assert!(dir.path().join("db.sql-journal").exists());
        let raw = fs::read(dir.path().join("db.sql")).unwrap();
        assert_ne!(rows(&raw).ok().as_ref(), Some(&expected), "half of it is in the file");
        let start = Instant::now();
        assert_eq!(settled(&root), expected);
        assert!(start.elapsed() < Duration::from_secs(1));
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(settled(&root), (3000, vec!["new".to_owned()]));
    }

    #[test]
    fn under_a_writer_each_state_is_one_that_was() {
        let dir = tempfile::tempdir().unwrap();
        let (root, writer) = database(&dir, "0");
        writer.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = 2").unwrap();
        let write = thread::spawn(move || {
            for round in 1..60 {
                fill(&writer, 1000, &round.to_string());
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut seen = 0;
        while !write.is_finished() {
            let bytes = match read_settled(&root, "db.sql") {
                Err(err) if err.errno() == Errno::BUSY => continue,
                bytes => bytes.unwrap().unwrap(),
            };
            let (count, values) = rows(&bytes).unwrap();
            assert_eq!((count, values.len()), (1000, 1), "{values:?}");
            seen += 1;
        }
        write.join().unwrap();
        assert!(seen > 0);
        assert_eq!(settled(&root).1, ["59"]);
    }

    #[test]
    fn a_write_ahead_log_is_refused_and_a_switch_to_one_alone_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (root, writer) = database(&dir, "x");
        writer.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert_eq!(settled(&root).0, 1000);
        fill(&writer, 10, "y");
        let err = read_settled(&root, "db.sql").unwrap_err();
        assert_eq!(err.errno(), Errno::OPNOTSUPP);
        assert_eq!(read_settled(&root, "none").unwrap(), None);
    }

    #[test]
    fn what_is_no_database_is_refused_and_what_never_ends_is_ended() {
        for bytes in [&b""[..], b"SQLite format 3\0", &[0; 4096], &[0xff; 10_000]] {
            assert!(rows(bytes).is_err());
        }
        let dir = tempfile::tempdir().unwrap();
        let endless = "CREATE VIEW t AS WITH RECURSIVE n(value) AS
            (SELECT 1 UNION ALL SELECT value + 1 FROM n) SELECT value FROM n";
        for (name, view) in [("endless", endless), ("any", "CREATE VIEW t AS SELECT 1 AS value")] {
            let connection = Connection::open(dir.path().join(name)).unwrap();
            connection.execute_batch(view).unwrap();
            assert!(rows(&fs::read(dir.path().join(name)).unwrap()).is_err(), "{name}");
        }
        let file = dir.path().join("other.sql");
        let connection = Connection::open(&file).unwrap();
        let large = "CREATE TABLE t(id INTEGER, value TEXT AS (hex(zeroblob(1000000))));
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO t(id) SELECT i FROM n";
        connection.execute_batch(large).unwrap();
        let start = Instant::now();
        assert!(rows(&fs::read(file).unwrap()).is_err());
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn five_hundred_damaged_databases_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let (root, writer) = database(&dir, "value");
        writer.execute_batch("PRAGMA cache_size = 2; BEGIN EXCLUSIVE").unwrap();
        fill(&writer, 2000, "other");
        let good = fs::read(dir.path().join("db.sql")).unwrap();
        let journal = fs::read(dir.path().join("db.sql-journal")).unwrap();
        drop(root);
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for case in 0..500 {
            let (mut bytes, mut journal) = (good.clone(), journal.clone());
            for _ in 0..=next(20) {
                let near = if case % 2 == 0 { 8192 } else { bytes.len() };
                let at = next(near);
                bytes[at] = next(256) as u8;
                let near = if case % 3 == 0 { 64 } else { journal.len() };
                let at = next(near);
                journal[at] = next(256) as u8;
            }
            if case % 5 == 0 {
                bytes.truncate(next(good.len()));
            }
            let _ = rows(&bytes); // whatever it says, it comes to an end
            roll_back(&mut bytes, &journal);
            assert!(bytes.len() as u64 <= DATABASE_MAX);
            let _ = rows(&bytes);
        }
    }

    proptest! {
        #[test]
        fn no_journal_makes_a_database_grow_beyond_its_bound(
            mut database: Vec<u8>,
            numbers: [u32; 5],
            rest: Vec<u8>,
        ) {
            let mut journal = JOURNAL_MAGIC.to_vec();
            numbers.iter().for_each(|number| journal.extend(number.to_be_bytes()));
            journal.extend(rest);
            roll_back(&mut database, &journal);
            prop_assert!(database.len() as u64 <= DATABASE_MAX);
        }
    }
}
