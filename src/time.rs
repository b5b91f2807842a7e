//! Points in time as Go programs write them: into JSON, RFC 3339 with nanoseconds; into extended
//! headers of tars, seconds and a fraction.

use std::fmt;

use crate::backing::Time;

/// A point in time, and its text as Go prints it.
///
/// The text keeps the offset that was stored; trailing zeros of the fraction are dropped and an
/// offset of zero is `Z` (Go's `time.RFC3339Nano`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    instant: Time,
    text: String,
}

impl Timestamp {
    /// Parses RFC 3339; `None` where Go's strict parser refuses it too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Timestamp> {
        let (date, rest) = text.split_at_checked("2006-01-02T15:04:05".len())?;
        let seconds = local_seconds(date.as_bytes())?;
        let zone = rest.rfind(['Z', '+', '-'])?;
        let (fraction, zone) = rest.split_at_checked(zone)?;
        let offset = offset_seconds(zone)?;
        let nanos = nanoseconds(fraction)?;
        let instant = Time { secs: seconds - offset, nanos };
        Some(Timestamp { instant, text: format_parts(date, nanos, zone, offset) })
    }

    /// Go's zero time, which stands where nothing was set: the start of the year 1.
    #[must_use]
    pub fn zero() -> Timestamp {
        Timestamp::from_instant(Time { secs: ZERO_SECONDS, nanos: 0 })
    }

    /// `instant` in UTC. Years that do not fit four digits become the nearest that does.
    #[must_use]
    pub fn from_instant(instant: Time) -> Timestamp {
        let secs = instant.secs.clamp(ZERO_SECONDS, LAST_SECOND);
        let (days, second) = (secs.div_euclid(DAY), secs.rem_euclid(DAY));
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let date = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let text = format_parts(&date, instant.nanos, "Z", 0);
        Timestamp { instant: Time { secs, nanos: instant.nanos }, text }
    }

    /// The point in time, whatever the offset.
    #[must_use]
    pub fn instant(&self) -> Time {
        self.instant
    }

    /// True for Go's zero time.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.instant == Time { secs: ZERO_SECONDS, nanos: 0 }
    }

    /// The text as Go prints it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Seconds in a day, leap seconds aside (Unix time has none).
const DAY: i64 = 86_400;

/// Go's zero time (0001-01-01) in Unix seconds.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// 9999-12-31T23:59:59Z in Unix seconds: the last that Go's JSON can hold.
const LAST_SECOND: i64 = 253_402_300_799;

/// Parses RFC 3339 for the point in time alone.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Time> {
    Timestamp::parse(text).map(|stamp| stamp.instant)
}

/// The time that a file made from something created then carries, in seconds since 1970: whole
/// seconds, and 0 for what is unknown or older (Docker's `system.Chtimes`).
#[must_use]
pub fn mtime(created: Option<&Timestamp>) -> u64 {
    created.map_or(0, |stamp| u64::try_from(stamp.instant.secs).unwrap_or(0))
}

/// The value of an extended header's record: seconds since 1970, and the fraction without trailing
/// zeros; a negative time is the magnitude with a sign.
#[must_use]
pub fn format_pax(time: Time) -> Vec<u8> {
    let (sign, secs, nanos) = if time.secs < 0 && time.nanos > 0 {
        ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - time.nanos)
    } else if time.secs < 0 {
        ("-", time.secs.unsigned_abs(), 0)
    } else {
        ("", time.secs.unsigned_abs(), time.nanos)
    };
    let mut text = format!("{sign}{secs}");
    if nanos > 0 {
        let fraction = format!(".{nanos:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.into_bytes()
}

/// Parses what [`format_pax`] makes; of a longer fraction nine digits count.
#[must_use]
pub fn parse_pax(text: &[u8]) -> Option<Time> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let magnitude = whole.strip_prefix('-');
    let digits = magnitude.unwrap_or(whole);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (secs, nanos) = (number(digits.as_bytes())?, nanoseconds(fraction)?);
    Some(match (magnitude.is_some(), nanos) {
        (false, nanos) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, nanos) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Seconds since 1970 of `2006-01-02T15:04:05`, taken as UTC.
fn local_seconds(text: &[u8]) -> Option<i64> {
    for (index, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if text.get(index) != Some(&separator) {
            return None;
        }
    }
    let part = |from: usize, to: usize| number(text.get(from..to)?);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    valid.then(|| days_before(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

/// The value of up to nine decimal digits.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })
}

/// `.` and digits, of which nine count; nothing at all is zero.
fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits = fraction.strip_prefix('.')?.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nine = [b'0'; 9];
    for (place, digit) in nine.iter_mut().zip(digits) {
        *place = *digit;
    }
    u32::try_from(number(&nine)?).ok()
}

/// Seconds east of Greenwich of `Z`, `+07:00`, `-07:00`.
fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'Z'] => return Some(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let (hour, minute) = (number(zone.as_bytes().get(1..3)?)?, number(zone.as_bytes().get(4..)?)?);
    (hour < 24 && minute < 60).then_some(sign * (hour * 3600 + minute * 60))
}

fn format_parts(date: &str, nanos: u32, zone: &str, offset: i64) -> String {
    let fraction = format!(".{nanos:09}");
    let fraction = if nanos == 0 { "" } else { fraction.trim_end_matches('0') };
    let zone = if offset == 0 { "Z" } else { zone };
    format!("{date}{fraction}{zone}")
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the date, for the years 0 to 9999 of the Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    // A year that begins in March has its leap day last, and months in a pattern of 153 days.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date that lies `days` after 1970-01-01; the inverse of [`days_before`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_records_carry_sign_and_fraction() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-1, 500_000_000, "-0.5"),
            (-2, 250_000_000, "-1.75"),
            (-5, 0, "-5"),
            (1_350_244_992, 23_960_108, "1350244992.023960108"),
        ] {
            assert_eq!(format_pax(Time { secs, nanos }), text.as_bytes());
            assert_eq!(parse_pax(text.as_bytes()), Some(Time { secs, nanos }));
        }
        assert_eq!(parse_pax(b"1.0000000019"), Some(Time { secs: 1, nanos: 1 }));
        for text in
            ["", "-", ".5", "1.", "1.x", "+1", "--1", "1e3", "1234567890123456789", "\u{e9}"]
        {
            assert_eq!(parse_pax(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_are_printed_as_go_does() {
        for (stored, secs, nanos, printed) in [
            ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", -1, 500_000_000, "1969-12-31T23:59:59.5Z"),
            (
                "2000-02-29T12:00:00.120+02:00",
                951_818_400,
                120_000_000,
                "2000-02-29T12:00:00.12+02:00",
            ),
            (
                "2026-11-21T21:10:19.112298125Z",
                1_795_295_419,
                112_298_125,
                "2026-11-21T21:10:19.112298125Z",
            ),
            (
                "2026-11-21T21:10:19.1122981259Z",
                1_795_295_419,
                112_298_125,
                "2026-11-21T21:10:19.112298125Z",
            ),
            ("2026-11-21T21:10:19.000+00:00", 1_795_295_419, 0, "2026-11-21T21:10:19Z"),
            ("2026-11-21T21:10:19-00:00", 1_795_295_419, 0, "2026-11-21T21:10:19Z"),
            ("2026-11-21T21:10:19-01:30", 1_795_300_819, 0, "2026-11-21T21:10:19-01:30"),
            ("9999-12-31T23:59:59Z", LAST_SECOND, 0, "9999-12-31T23:59:59Z"),
            ("0000-01-01T00:00:00Z", -62_167_219_200, 0, "0000-01-01T00:00:00Z"),
        ] {
            let stamp = Timestamp::parse(stored).expect(stored);
            assert_eq!(stamp.instant(), Time { secs, nanos }, "{stored}");
            assert_eq!(stamp.as_str(), printed, "{stored}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-21",
            "2026-11-21T21:10:19",
            "2026-11-21t21:10:19Z",
            "2026-13-21T21:10:19Z",
            "2026-02-29T21:10:19Z",
            "2026-11-31T21:10:19Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T21:60:19Z",
            "2026-11-21T21:10:60Z",
            "2026-11-21T21:10:19.Z",
            "2026-11-21T21:10:19,5Z",
            "2026-11-21T21:10:19.5",
            "2026-11-21T21:10:19+24:00",
            "2026-11-21T21:10:19+0100",
            "2026-11-21T21:10:19.5xZ",
            "2026-11-21T21:10:19+01:0é",
            "2026-11-21T21:10:1é",
            "+026-11-21T21:10:19Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_survives_the_way_there_and_back() {
        for day in (-719_162..2_932_896).step_by(17) {
            let (year, month, of_month) = date_of(day);
            assert_eq!(days_before(year, month, of_month), day);
            let instant = Time { secs: day * DAY + 3661, nanos: 0 };
            let stamp = Timestamp::from_instant(instant);
            assert_eq!(Timestamp::parse(stamp.as_str()), Some(stamp.clone()));
            assert_eq!(stamp.instant(), instant);
        }
        assert_eq!(Timestamp::zero().as_str(), "0001-01-01T00:00:00Z");
        assert!(Timestamp::zero().is_zero());
    }

    #[test]
    fn a_time_before_1970_gives_mtime_0() {
        let mtime_of = |text| mtime(Timestamp::parse(text).as_ref());
        assert_eq!(mtime(None), 0);
        assert_eq!(mtime_of("0001-01-01T00:00:00Z"), 0);
        assert_eq!(mtime_of("1969-12-31T23:59:59.9Z"), 0);
        assert_eq!(mtime_of("1970-01-01T00:00:01.9Z"), 1);
        assert_eq!(mtime_of("1970-01-01T01:00:01+01:00"), 1);
    }
}
