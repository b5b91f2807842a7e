//! Extended header records: `<length> <key>=<value>\n`.

use std::collections::BTreeMap;

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
}
