//! Extended header records: `<length> <key>=<value>\n`.

use std::collections::BTreeMap;

use crate::backing::Time;

/// Records of one extended header, sorted by key bytewise, as they are written.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Appends one record. Its length counts itself.
pub fn write_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + decimal_digits(rest);
    let actual = rest + decimal_digits(length);
    if actual != length {
        length = actual;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// A time as a record's value: seconds, and the fraction without trailing zeros; a negative time is
/// the magnitude with a sign.
#[must_use]
pub fn format_time(time: Time) -> Vec<u8> {
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

/// Visits the records of an extended header in order, with Go's rules of what one is.
///
/// # Errors
/// Says why the bytes are none; the records before were visited.
pub fn read_records(
    mut body: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), &'static str> {
    const WRONG: &str = "an extended header that makes no sense";
    while !body.is_empty() {
        let space = body.iter().take(20).position(|&byte| byte == b' ').ok_or(WRONG)?;
        let digits = std::str::from_utf8(&body[..space]).map_err(|_| WRONG)?;
        let length: usize = digits.parse().map_err(|_| WRONG)?;
        let record = body.get(space + 1..length).ok_or(WRONG)?;
        let record = record.strip_suffix(b"\n").ok_or(WRONG)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or(WRONG)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let is_text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || key.contains(&0) || (is_text && value.contains(&0)) {
            return Err(WRONG);
        }
        visit(key, value);
        body = &body[length..];
    }
    Ok(())
}

/// The time that [`format_time`] writes; what is finer than a nanosecond is cut off.
#[must_use]
pub fn parse_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = whole.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let secs: i64 = whole.parse().ok().filter(|_| is_plain)?;
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(match (whole.starts_with('-'), nanos) {
        (true, 1..) => Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos },
        _ => Time { secs, nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_its_own_digits() {
        for value in 80..120 {
            let mut record = Vec::new();
            write_record(&mut record, b"path", &vec![b'x'; value]);
            let text = String::from_utf8(record.clone()).unwrap();
            let (length, _) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), record.len());
        }
        let mut record = Vec::new();
        write_record(&mut record, b"uid", b"3000000");
        assert_eq!(record, b"15 uid=3000000\n");
    }

    #[test]
    fn times_carry_sign_and_fraction() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-1, 500_000_000, "-0.5"),
            (-2, 250_000_000, "-1.75"),
            (-5, 0, "-5"),
            (1_350_244_992, 23_960_108, "1350244992.023960108"),
        ] {
            assert_eq!(format_time(Time { secs, nanos }), text.as_bytes());
        }
    }
}
